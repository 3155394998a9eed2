"""The five different answers to "what is this feature of this entity?"; none of them is ever shown as another."""

from __future__ import annotations

from typing import Final, Literal, get_args

Status = Literal["PRESENT", "NULL_VALUE", "NOT_FOUND", "OUTSIDE_MAX_AGE", "INVALID"]

#: A value is stored and fresh enough.
PRESENT: Final = "PRESENT"
#: Null is what was stored.
NULL_VALUE: Final = "NULL_VALUE"
#: Never written, deleted, or not part of the schema that the row was written with.
NOT_FOUND: Final = "NOT_FOUND"
#: The newest row is older than the group's TTL: its value is withheld.
OUTSIDE_MAX_AGE: Final = "OUTSIDE_MAX_AGE"
#: The stored bytes cannot be read (only the online store answers so, the offline store fails instead), or what is
#: computed on request has no value here, as by a division by zero.
INVALID: Final = "INVALID"

STATUSES: tuple[Status, ...] = get_args(Status)
