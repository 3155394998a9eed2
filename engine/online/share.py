"""What one server of the online store holds, and the names of the keys that have to lie beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache

from redis.crc import key_slot

from engine.online.node import Node

SLOTS = 16_384


@dataclass(frozen=True, slots=True)
class Share:
    """The `slots` of one master of a cluster, in rising order as `0-5460,7000`; '' where one server holds all.

    Two are equal when they are of the same slots, whoever holds them: a replica that takes over has the same share.
    """

    slots: str
    node: Node = field(compare=False)

    def key(self, name: str) -> bytes:
        """The key of this share that is called `name`: it lies where the share's rows do."""
        return key_of_share(name, self.slots)


def key_of_share(name: str, slots: str) -> bytes:
    """The key that is called `name` beside the rows of these slots.

    On a cluster its name has a hash of the slots, so that it is not found any more when they change, and a tag that
    puts it into one of them.
    """
    if not slots:
        return name.encode()
    hashed = hashlib.sha256(slots.encode()).hexdigest()[:12]
    return f"{name}:{hashed}:{{{tags()[next(numbers(slots))]}}}".encode()


def numbers(slots: str) -> Iterator[int]:
    """The numbers of slots.

    >>> list(numbers("0-2,7"))
    [0, 1, 2, 7]
    """
    for part in slots.split(",") if slots else []:
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


@cache
def tags() -> list[str]:
    """For each slot the lowest whole number, in decimal, whose slot as a hash tag it is.

    >>> key_slot(b"{" + tags()[7000].encode() + b"}")
    7000
    """
    found: dict[int, str] = {}
    number = 0
    while len(found) < SLOTS:
        tag = str(number)
        found.setdefault(key_slot(tag.encode()), tag)
        number += 1
    return [found[slot] for slot in range(SLOTS)]
