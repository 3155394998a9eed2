"""What the kind of a value is called in errors: they name it instead of the value, which may be somebody's."""

from __future__ import annotations

from datetime import datetime
from types import NoneType

KINDS: dict[type, str] = {
    bool: "a boolean",
    int: "an integer",
    float: "a float",
    str: "a string",
    list: "a list",
    dict: "an object",
    datetime: "a datetime",
    NoneType: "null",
}


def kind_of(value: object) -> str:
    """What an error says of a value.

    >>> kind_of("C1"), kind_of(None), kind_of(b"")
    ('a string', 'null', 'a bytes')
    """
    return KINDS.get(type(value), f"a {type(value).__name__}")
