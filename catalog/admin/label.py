"""How a state is shown: its word with an icon, never its colour alone."""

from __future__ import annotations

from django.utils.html import format_html
from django.utils.safestring import SafeString

from catalog.models import RunState, Status

#: Unfold's colour of each state.
COLOURS: dict[str, str] = {
    Status.DRAFT: "info",
    Status.ACTIVE: "success",
    Status.DEPRECATED: "warning",
    Status.ARCHIVED: "danger",
    RunState.QUEUED: "info",
    RunState.RUNNING: "primary",
    RunState.SUCCEEDED: "success",
    RunState.FAILED: "danger",
    RunState.DEAD: "danger",
    RunState.CANCELLED: "warning",
    "open": "warning",
    "approved": "success",
    "declined": "danger",
    "withdrawn": "info",
    "pending": "warning",
    "replaying": "primary",
    "replayed": "success",
    "discarded": "info",
    "settled": "success",
    "run_failed": "danger",
    "superseded": "info",
    "valid": "success",
    "revoked": "danger",
    "expired": "warning",
}
#: Names in the icon font that the theme brings.
ICONS: dict[str, str] = {
    Status.DRAFT: "edit",
    Status.ACTIVE: "check_circle",
    Status.DEPRECATED: "warning",
    Status.ARCHIVED: "inventory_2",
    RunState.QUEUED: "schedule",
    RunState.RUNNING: "sync",
    RunState.SUCCEEDED: "check_circle",
    RunState.FAILED: "error",
    RunState.DEAD: "skull",
    RunState.CANCELLED: "cancel",
    "open": "hourglass_empty",
    "approved": "thumb_up",
    "declined": "thumb_down",
    "withdrawn": "undo",
    "pending": "hourglass_empty",
    "replaying": "sync",
    "replayed": "check_circle",
    "discarded": "delete",
    "settled": "check_circle",
    "run_failed": "error",
    "superseded": "history",
    "valid": "check_circle",
    "revoked": "block",
    "expired": "timer_off",
}


def labelled(state: str) -> tuple[str, SafeString]:
    """What a method under `@display(label=COLOURS)` returns to show `state`."""
    return str(state), with_icon(state)


def with_icon(state: str) -> SafeString:
    """The word with its icon, where no coloured label can stand: in a form or a line of text."""
    return in_words_with_icon(str(state), ICONS[state])


def in_words_with_icon(words: str, name: str) -> SafeString:
    """Words with an icon of the theme's font, which is not read out."""
    icon = '<span class="material-symbols-outlined text-sm mr-1 align-[-3px]" aria-hidden="true">{}</span>{}'
    return format_html(icon, name, words)
