"""The four states of a feature, a group or a service, and which change may follow which."""

from __future__ import annotations

from django.db import models


class Status(models.TextChoices):
    DRAFT = "draft"
    ACTIVE = "active"
    DEPRECATED = "deprecated"
    ARCHIVED = "archived"


#: From each state, the states that may follow. Nothing returns to draft: somebody may read it by then.
TRANSITIONS: dict[str, frozenset[str]] = {
    Status.DRAFT: frozenset({Status.ACTIVE, Status.ARCHIVED}),
    Status.ACTIVE: frozenset({Status.DEPRECATED, Status.ARCHIVED}),
    Status.DEPRECATED: frozenset({Status.ACTIVE, Status.ARCHIVED}),
    Status.ARCHIVED: frozenset({Status.ACTIVE}),
}

_RESTRICTIVE = (Status.ARCHIVED, Status.DRAFT, Status.DEPRECATED, Status.ACTIVE)


def effective_status(own: str, group: str) -> Status:
    """The more restrictive of a feature's own status and its group's; an empty own status follows the group.

    >>> str(effective_status("", "draft")), str(effective_status("deprecated", "active"))
    ('draft', 'deprecated')
    """
    return min((Status(own or group), Status(group)), key=_RESTRICTIVE.index)
