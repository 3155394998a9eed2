"""A read as steps: it names the keys that it needs and is sent what the store has under them.

So the same lines are carried out in a thread, which waits for each answer, and on the event loop of a web process
(featurehub/event_loop.py), which does something else meanwhile.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TypeVar

from catalog import stores
from engine.errors import Unavailable

Result = TypeVar("Result")
#: The raw state of the store, and the values of the keys.
Stored = tuple[bytes | None, list[bytes | None]]
#: What a generator of a Result is: keys out, what is stored in; Unavailable is thrown in when there is no answer.
Steps = Generator[Sequence[bytes], Stored, Result]


def carried_out(steps: Steps[Result]) -> Result:
    """The result, when all steps are carried out in this thread."""
    try:
        return rest_of(steps, next(steps))
    except StopIteration as end:
        return end.value


def rest_of(steps: Steps[Result], keys: Sequence[bytes]) -> Result:
    """The same of steps that wait for what is under these keys."""
    store = stores.online()
    try:
        while True:
            try:
                stored = store.read(keys)
            except Unavailable as error:
                keys = steps.throw(error)
            else:
                keys = steps.send(stored)
    except StopIteration as end:
        return end.value
