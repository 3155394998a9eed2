"""Cutting a list into pages, and the numbers that stand at the foot of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

PER_PAGE = 50


@dataclass(frozen=True, slots=True)
class Listed:
    """A page of a list of `total` things; `page` counts from 1."""

    rows: Sequence[Any]
    total: int
    page: int
    per_page: int = PER_PAGE

    @property
    def pages(self) -> int:
        return pages_of(self.total, self.per_page)

    @property
    def first(self) -> int:
        return (self.page - 1) * self.per_page + 1 if self.total else 0

    @property
    def last(self) -> int:
        return min(self.page * self.per_page, self.total)


def pages_of(total: int, per_page: int = PER_PAGE) -> int:
    """How many pages a list has; an empty one has one, too."""
    return max(1, -(-total // per_page))


def cut(total: int, wanted: int, per_page: int = PER_PAGE) -> tuple[int, slice]:
    """The page that is shown for the one that is wanted (the last where that is beyond it), and its part of the list.

    >>> cut(120, 2), cut(120, 9), cut(0, 1)
    ((2, slice(50, 100, None)), (3, slice(100, 150, None)), (1, slice(0, 50, None)))
    """
    page = min(wanted, pages_of(total, per_page))
    return page, slice((page - 1) * per_page, page * per_page)
