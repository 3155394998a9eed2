"""Redis as Celery's broker, with a worker that outlives it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
from kombu.transport.redis import Channel, Transport


class HubChannel(Channel):
    """A channel that fails as a lost connection does when it is used after the loss of its connection.

    kombu 5.7 uses it twice more: it puts the messages of unfinished tasks back when it lets go of the lost connection,
    and acknowledges each when its task has ended. Both look up an address that is gone, and the AttributeError ended
    the worker, whenever its Redis was restarted while a thread was at work. A lost connection is expected in both
    places: the message stays where it is until it is delivered again, and a task that comes twice does nothing.
    """

    @contextmanager
    def conn_or_acquire(self, client: Any = None) -> Iterator[Any]:
        if self.connection is None or self.connection.client is None:
            raise redis.ConnectionError("The channel's connection to the broker was lost.")
        with super().conn_or_acquire(client) as acquired:
            yield acquired


def outlive_the_broker() -> None:
    """Have every connection to a Redis broker use such channels."""
    Transport.Channel = HubChannel
