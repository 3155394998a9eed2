#!/usr/bin/env python
"""Django's command line. In embedded mode the hub's own commands find the private Redis running."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import django
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management import execute_from_command_line, get_commands

from featurehub import embedded, preparation

OWN_APPS = ("catalog", "ingestion", "serving", "featurehub")


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "featurehub.settings")
    try:
        with _stores_for(sys.argv[1:]):
            execute_from_command_line(sys.argv)
    except ImproperlyConfigured as problem:
        sys.exit(str(problem))


def _stores_for(arguments: list[str]) -> AbstractContextManager[object]:
    """What has to run while the command does: the private Redis, for a command that reads or writes the stores."""
    asks_for_help = bool({"--help", "-h", "--version"} & set(arguments))
    if not arguments or asks_for_help or not settings.EMBEDDED:
        return nullcontext()
    django.setup()  # which app a command belongs to is known once the apps are loaded
    if not _uses_stores(arguments[0]):
        return nullcontext()
    return _embedded_stores()


@contextmanager
def _embedded_stores() -> Iterator[None]:
    preparation.bring_database_up_to_date()
    with embedded.redis():
        preparation.fill_online_store()
        yield


def _uses_stores(command: str) -> bool:
    return command == "shell" or get_commands().get(command) in OWN_APPS


if __name__ == "__main__":
    main()
