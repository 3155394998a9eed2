"""What Redis answered, held against what was asked: redis-py takes any answer for the one that was meant."""

from __future__ import annotations

from typing import cast

import redis

_TEXT = frozenset((bytes, type(None)))


def texts(reply: object, count: int) -> list[bytes | None]:
    """A reply of so many texts; raises InvalidResponse for any other."""
    if not isinstance(reply, list) or len(reply) != count or not _TEXT.issuperset(map(type, reply)):
        raise redis.InvalidResponse(f"{count} texts were asked for, and something else was answered")
    return reply


def text(reply: object) -> bytes | None:
    """A reply that is one text; raises InvalidResponse for any other."""
    return texts([reply], 1)[0]


def number(reply: object) -> int:
    """A reply that is a whole number; raises InvalidResponse for any other."""
    try:
        return int(cast(int | bytes, reply))
    except (TypeError, ValueError) as error:
        raise redis.InvalidResponse("A number was asked for, and something else was answered") from error


def page(reply: object) -> tuple[int, list[bytes]]:
    """The next cursor of a SCAN, 0 at its end, and some keys; raises InvalidResponse for anything else."""
    try:
        following, keys = cast(tuple[int, list[bytes]], reply)
        return int(following), [bytes(memoryview(key)) for key in keys]  # no text gets by
    except (TypeError, ValueError) as error:
        raise redis.InvalidResponse("A page of keys was asked for, and something else was answered") from error
