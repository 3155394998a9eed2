"""How a state is shown to people: its word with an icon and a colour, never the colour alone."""

from __future__ import annotations

from catalog.models import RunState, Status

#: The colour of each state, in the words of the admin's theme.
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
    "stale": "warning",
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
    "stale": "update_disabled",
}
