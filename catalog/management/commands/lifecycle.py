"""`manage.py lifecycle`: who is hit by another status, changing it, taking that back, and reviews of drafts."""

from __future__ import annotations

from collections.abc import Callable
from getpass import getuser
from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import CommandParser

from catalog.access import AnyCaller
from catalog.actions import at_shell
from catalog.commands import FeaturehubCommand
from catalog.registry import edits
from catalog.registry.answers import review_shown, shown
from catalog.registry.edits import REVIEWING, Transition, Undo
from catalog.registry.kinds import FEATURE_GROUPS, FEATURE_SERVICES, FEATURES, Kind
from catalog.registry.urls import TRANSITIONS
from engine.errors import InvalidInput, NotFound

KINDS = {"feature": FEATURES, "group": FEATURE_GROUPS, "service": FEATURE_SERVICES}
_ACTIONS = ("impact", *TRANSITIONS, "undo", *REVIEWING)
#: What an impact has, as people read it.
_HIT = {
    "services": "feature services",
    "computed_features": "features computed from it",
    "training_datasets": "training datasets",
    "readers": "readers of the last 30 days",
    "owners": "owners",
}


class Command(FeaturehubCommand):
    help = (
        "Show who is hit by another status of a feature, a group or a service; change it, undo that; ask for a review "
        "of a draft and answer one. Exit 0, 1 when it is refused (also with --dry-run)."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("action", choices=_ACTIONS)
        parser.add_argument("kind", choices=KINDS)
        parser.add_argument("name", help="group:feature, a group, or a service (name@version for a certain one).")
        parser.add_argument("--reason", default="", help="For the history; of a review the note or the comment.")
        parser.add_argument(
            "--replaced-by", metavar="GROUP:FEATURE", help="Of a deprecated feature: what to read instead."
        )
        parser.add_argument("--sunset", metavar="TIME", help="Of a deprecated feature: a time with an offset, to come.")
        parser.add_argument("--by", metavar="LOGIN", help="The person who does it, with that person's rights.")
        parser.add_argument("--dry-run", action="store_true", help="Show who is hit and change nothing.")

    def run(self, **options: Any) -> int | None:
        action, kind, names = options["action"], KINDS[options["kind"]], _names_of(options["kind"], options["name"])
        caller = _caller(options["by"])
        if action in REVIEWING:
            self._review(caller, kind, names, options)
            return None
        asked = None if action == "impact" else _asked(caller, kind, names, options)
        if asked is None or options["dry_run"]:
            told = edits.impact(caller, kind, names, asked)
            self._tell(told, lambda: "\n".join(_in_words(told)), as_json=options["json"])
            return 1 if told.get("refused") else None
        done = shown(edits.change_state(caller, kind, names, asked))
        status = done.get("effective_status", done["status"])
        self._tell(done, lambda: f"{options['name']} is {status}.", as_json=options["json"])
        return None

    def _review(self, caller: AnyCaller, kind: Kind, names: list[str], options: dict[str, Any]) -> None:
        if options["dry_run"] or options["replaced_by"] or options["sunset"]:
            raise InvalidInput("A review takes a --reason alone.")
        done = review_shown(edits.review(caller, kind, names, options["action"], options["reason"]))
        self._tell(done, lambda: f"Review {done['id']} of {done['name']} is {done['state']}.", as_json=options["json"])

    def _tell(self, answer: dict[str, Any], words: Callable[[], str], *, as_json: bool) -> None:
        if as_json:
            self.print_json(answer)
        else:
            self.stdout.write(words())


def _names_of(kind: str, name: str) -> list[str]:
    """What an address would name; raises InvalidInput for a feature without its group."""
    if kind != "feature":
        return [name]
    group, between, own = name.partition(":")
    if not between:
        raise InvalidInput(f"A feature is named group:feature; got {name!r}.")
    return [group, own]


def _caller(login: str | None) -> AnyCaller:
    """Who does it: a person, or whoever is at the shell."""
    if login is None:
        return at_shell(getuser())
    person = User.objects.filter(username=login, is_active=True).first()
    if person is None:
        raise NotFound(f"Nobody has the login {login!r}.")
    return person


def _asked(caller: AnyCaller, kind: Kind, names: list[str], options: dict[str, Any]) -> Transition | Undo:
    deprecation = {key: options[key] for key in ("replaced_by", "sunset") if options[key]}
    if deprecation and (options["action"] != "deprecate" or kind is not FEATURES):
        raise InvalidInput("--replaced-by and --sunset belong to a feature that is deprecated.")
    if options["action"] == "undo":
        return Undo(options["reason"])
    body = {"reason": options["reason"], **deprecation}
    return edits.transition_of(caller, kind, names, TRANSITIONS[options["action"]], body)


def _in_words(told: dict[str, Any]) -> list[str]:
    lines = [f"{told['from']} -> {told['to'] or told['from']}"] if "from" in told else []
    for key, noun in _HIT.items():
        hit = told[key]
        if key == "readers":
            hit = [
                f"{reader['name']} ({reader['requests']:,} requests, the last on {reader['last_day']})"
                for reader in hit
            ]
        lines.append(f"{noun}: {', '.join(hit) or 'none'}")
    if told["hidden"]:
        lines.append(f"services and training datasets out of reach: {told['hidden']:,}")
    return [*lines, *([f"refused: {told['refused']}"] if told.get("refused") else [])]
