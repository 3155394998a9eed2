"""Where the rows of a run come from: the one thing in which ingesting files and replaying rejected rows differ."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from engine.raw_batch import RawBatch
from engine.schema import GroupSchema


class Supply(Protocol):
    """The rows of one attempt at a run.

    nothing:            what the run says when there are none.
    size:               how many bytes they come from; set by `claim`.
    failure_rate_limit: the share of rejected rows above which the run fails as a whole.
    """

    @property
    def nothing(self) -> str: ...

    @property
    def size(self) -> int: ...

    @property
    def failure_rate_limit(self) -> float: ...

    def claim(self) -> bool:
        """Whether there are rows for this run; no other run takes them up from then on. Raises Conflict."""
        ...

    def batches(self, schema: GroupSchema, read: Callable[[int], None]) -> Iterator[RawBatch]:
        """The rows; `read` is told how many of the bytes have been read."""
        ...

    def require_claim(self) -> None:
        """Raises Conflict when another run may have taken the rows up; asked in the transaction before the commit."""
        ...

    def give_back(self) -> None:
        """Let other runs have the rows: this one has failed."""
        ...
