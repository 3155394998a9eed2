"""What every command of ours shares: `--json`, errors as one clear text on stderr, and the exit code."""

from __future__ import annotations

import sys
from typing import Any

import orjson
from django.core.management.base import BaseCommand, CommandParser

from catalog.problems import problem_of
from engine.errors import FeaturehubError


class FeaturehubCommand(BaseCommand):
    """A command with a `run` that returns its exit code (None is 0) and prints what people or programs read.

    Exit codes: 0 done, 1 an error of engine/errors.py (its text on stderr, a problem object with --json),
    2 wrong usage; a command may add its own.
    """

    requires_system_checks: list[str] = []

    def create_parser(self, prog_name: str, subcommand: str, **options: Any) -> CommandParser:
        parser = super().create_parser(prog_name, subcommand, **options)
        parser.add_argument("--json", action="store_true", help="Print one JSON document for programs.")
        return parser

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            code = self.run(**options)
        except FeaturehubError as error:
            if options["json"]:
                self.print_json(problem_of(error))
            self.stderr.write(str(error))
            code = 1
        if code:
            sys.exit(code)

    def run(self, **options: Any) -> int | None:
        raise NotImplementedError

    def print_json(self, document: object) -> None:
        """One indented JSON document on stdout."""
        self.stdout.write(orjson.dumps(document, option=orjson.OPT_INDENT_2, default=str).decode())
