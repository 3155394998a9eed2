"""Requests on an event loop: reads of vectors are answered there, everything else in threads.

What models wait for (serving/hot_path.py) is carried out on the loop, and what is asked of Redis meanwhile goes there
in one packet (engine/online/pipelined.py). Only what is quick is done there: what needs the database, many rows or
another try at Redis is carried on in a thread, from where it is. All other requests go through Django in one.

How much of it at once is bounded (web_limits.py), and what comes beyond is refused at once: without a limit everything
waits in the server until its callers have gone (docs/adr/0020-a-busy-process-says-so.md).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from itertools import chain
from time import perf_counter
from typing import Any, TypeVar

from django.core.exceptions import SynchronousOnlyOperation

from catalog import snapshot, stores
from catalog.metrics import observe
from catalog.problems import RETRY_AFTER_SECONDS, problem_of, respond
from catalog.request_id import request_id_of
from engine.errors import FeaturehubError, TooSlow, Unavailable
from engine.online.pipelined import Pipelined
from featurehub.environ import SECONDS_OF_A_BODY, Environ, environ_of, take_body
from featurehub.web_limits import AT_ONCE, AT_WORK, SECONDS_TO_WAIT
from serving.hot_path import HotPath, Response
from serving.steps import Steps, rest_of

log = logging.getLogger(__name__)

Result = TypeVar("Result")
#: Asked by whoever restarts a process that does not answer: a busy one does.
ALIVE = ("/healthz", "/healthz/")
#: Rows that the loop reads at once; more would keep the other requests waiting for a millisecond.
MOST_KEYS = 256
#: A longer answer of many parts is sent in blocks of this size.
BLOCK_BYTES = 64 << 10
#: How long a caller may take to receive a block.
SECONDS_OF_A_BLOCK = 60.0


class _Busy(Exception):
    """No thread had time for the request."""


class Application:
    """An RSGI application: `hot` answers what it is for on the event loop, and all else as a WSGI application."""

    def __init__(
        self, hot: HotPath, *, at_work: int = AT_WORK, at_once: int = AT_ONCE, seconds_to_wait: float = SECONDS_TO_WAIT
    ) -> None:
        self._hot, self._at_once, self._seconds = hot, at_once, seconds_to_wait
        self._inside = 0
        self._slots = asyncio.Semaphore(at_work)
        # Those that send a long answer have no slot, so that all that are inside may have a thread.
        self._threads = ThreadPoolExecutor(at_once, "request")
        self._thread_of_the_living = ThreadPoolExecutor(1, "alive")
        self._online: Pipelined | None = None

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._online = stores.online().pipelined(loop)

    def __rsgi_del__(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._online is not None:
            self._online.close()

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        environ = environ_of(scope)
        try:
            response = await self._answered(environ, protocol)
        finally:
            environ["wsgi.input"].close()
        if response is not None:
            protocol.response_bytes(*response)

    async def _answered(self, environ: Environ, protocol: Any) -> Response | None:
        if not await take_body(environ, protocol):
            return _told(environ, TooSlow(f"The body did not come within {SECONDS_OF_A_BODY:g} s."), "slow")
        if environ["PATH_INFO"] in ALIVE:
            work = partial(self._through_wsgi, environ, protocol, lambda: None)
            return await self._loop.run_in_executor(self._thread_of_the_living, work)
        if self._inside >= self._at_once:
            return _busy(environ)
        self._inside += 1
        try:
            return await self._response(environ, protocol)
        except _Busy:
            return _busy(environ)
        finally:
            self._inside -= 1

    async def _response(self, environ: Environ, protocol: Any) -> Response | None:
        """None when it was sent in blocks."""
        if (steps := self._hot.steps(environ)) is not None:
            try:
                return await self._carried_out(steps)
            except SynchronousOnlyOperation:  # its key is looked up, before anything else was done
                environ["wsgi.input"].seek(0)
        return await self._in_thread(lambda release: self._through_wsgi(environ, protocol, release))

    async def _carried_out(self, steps: Steps[Response]) -> Response:
        try:
            keys = next(steps)
            while (asked := self._ask(keys)) is not None:
                try:
                    found = await asked
                except Unavailable as error:
                    keys = steps.throw(error)
                    continue
                if found is None or not snapshot.knows(found[0]):
                    break
                keys = steps.send((found[0], found[1:]))
        except StopIteration as end:
            return end.value
        return await self._in_thread(lambda _: rest_of(steps, keys))

    def _ask(self, keys: Any) -> asyncio.Future[list[bytes | None] | None] | None:
        return (
            self._online.mget([stores.online().state_key, *keys]) if self._online and len(keys) <= MOST_KEYS else None
        )

    async def _in_thread(self, work: Callable[[Callable[[], None]], Result]) -> Result:
        """What `work` gives, which is called with what gives its slot back before its end; raises _Busy when there is
        none in time."""
        try:
            async with asyncio.timeout(self._seconds):
                await self._slots.acquire()
        except TimeoutError:
            raise _Busy from None
        slot = [self._slots.release]

        def release() -> None:
            if slot:
                slot.pop()()

        def early() -> None:
            self._loop.call_soon_threadsafe(release)

        done = self._loop.run_in_executor(self._threads, partial(copy_context().run, work, early))
        done.add_done_callback(lambda _: release())
        return await done

    def _through_wsgi(self, environ: Environ, protocol: Any, release: Callable[[], None]) -> Response | None:
        """The response of the WSGI application; None when it was long, and has been sent in blocks."""
        head: list[Any] = []

        def start_response(status: str, headers: list[tuple[str, str]], _: object = None) -> None:
            head[:] = int(status[:3]), headers

        parts = self._hot(environ, start_response)
        try:
            if not getattr(parts, "streaming", False):
                return head[0], head[1], b"".join(parts)
            blocks = _blocks(iter(parts))
            first = next(blocks, b"")
            if len(first) < BLOCK_BYTES:
                return head[0], head[1], first
            release()
            with suppress(TimeoutError, ConnectionError):
                self._send(protocol, head, first, blocks)
            return None
        finally:
            if close := getattr(parts, "close", None):
                close()

    def _send(self, protocol: Any, head: list[Any], first: bytes, blocks: Iterator[bytes]) -> None:
        """Send blocks, each when the one before is on its way; raises TimeoutError and ConnectionError."""

        async def begin() -> Any:
            return protocol.response_stream(*head)

        async def send(block: bytes) -> None:
            try:
                await transport.send_bytes(block)
            except Exception as error:  # granian's own classes say that the caller has gone
                raise ConnectionError from error

        transport = asyncio.run_coroutine_threadsafe(begin(), self._loop).result(SECONDS_OF_A_BLOCK)
        for block in chain((first,), blocks):
            asyncio.run_coroutine_threadsafe(send(block), self._loop).result(SECONDS_OF_A_BLOCK)


def _blocks(parts: Iterator[bytes]) -> Iterator[bytes]:
    """The parts of an answer, joined to blocks; the last one may be shorter."""
    gathered: list[bytes] = []
    size = 0
    for part in parts:
        gathered.append(part)
        size += len(part)
        if size >= BLOCK_BYTES:
            yield b"".join(gathered)
            gathered, size = [], 0
    if gathered:
        yield b"".join(gathered)


def _busy(environ: Environ) -> Response:
    """503 at once, with the time to come again; counted as the route `busy`."""
    error = Unavailable("The hub has more requests than it can take now; try again.")
    return _told(environ, error, "busy", {"Retry-After": RETRY_AFTER_SECONDS})


def _told(environ: Environ, error: FeaturehubError, route: str, headers: dict[str, str] | None = None) -> Response:
    began = perf_counter()
    response = respond(problem_of(error), headers or {})
    own = {
        "X-Request-ID": request_id_of(environ.get("HTTP_X_REQUEST_ID", "")),
        "X-Content-Type-Options": "nosniff",
        "Content-Length": str(len(response.content)),
    }
    method = environ["REQUEST_METHOD"]
    observe(route, method if method in ("GET", "POST") else "other", response.status_code, perf_counter() - began)
    return response.status_code, [*response.items(), *own.items()], response.content
