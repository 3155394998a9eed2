"""How many requests a web process takes at once: a few are worked at, some wait for them, and further ones are told so.

Without a limit everything that comes waits in the server. Offered five times what two processes can do, answers then
took twelve seconds on average, a half came after their callers had gone away, and the work for those was lost
(docs/adr/0020-a-busy-process-says-so.md).

Callers that wait cost nothing but a thread each: as many as before compete for the interpreter. The cost of passing is
below a microsecond.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from queue import Empty, SimpleQueue
from time import perf_counter
from typing import Any
from weakref import WeakSet

from django.db import DEFAULT_DB_ALIAS, connections

from catalog.metrics import observe
from catalog.problems import RETRY_AFTER_SECONDS, problem_of, respond
from catalog.request_id import request_id_of
from engine.errors import Unavailable
from featurehub.web_limits import AT_ONCE, AT_WORK, SECONDS_TO_WAIT

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[Any]]

#: Asked by whoever restarts a process that does not answer: a busy one does.
ALIVE = ("/healthz", "/healthz/")


class Admission:
    """A WSGI application that lets at most AT_WORK requests into `application` and AT_ONCE wait for it, those included.

    Its server needs some more threads than AT_ONCE, which have the time to refuse the others.
    """

    def __init__(
        self,
        application: Application,
        refuse: Application,
        *,
        at_work: int = AT_WORK,
        at_once: int = AT_ONCE,
        seconds_to_wait: float = SECONDS_TO_WAIT,
    ) -> None:
        self._application, self._refuse, self._seconds = application, refuse, seconds_to_wait
        # Queues of tokens: their methods are one step of the interpreter, where a semaphore's are fifty.
        self._places, self._slots = _tokens(at_once), _tokens(at_work)
        self._databases = _Databases(at_work)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[Any]:
        if environ["PATH_INFO"] in ALIVE:
            return self._application(environ, start_response)
        try:
            self._places.get_nowait()
        except Empty:
            return self._refuse(environ, start_response)
        try:
            return self._when_there_is_room(environ, start_response)
        finally:
            self._places.put(None)

    def _when_there_is_room(self, environ: Environ, start_response: StartResponse) -> Iterable[Any]:
        try:
            self._slots.get(timeout=self._seconds)
        except Empty:
            return self._refuse(environ, start_response)
        try:
            return self._application(environ, start_response)
        finally:
            self._databases.let_go()
            self._slots.put(None)


def _tokens(number: int) -> SimpleQueue[None]:
    tokens: SimpleQueue[None] = SimpleQueue()
    for _ in range(number):
        tokens.put(None)
    return tokens


class _Kept:
    """Stands for a thread that keeps its connection to the database; gone with the thread."""


class _Databases(threading.local):
    """Each thread's connection to the database, of which as many stay open as can be at work.

    Every thread of the server may carry out some request, and PostgreSQL has a limit of connections.
    """

    keepers: WeakSet[_Kept] = WeakSet()

    def __init__(self, at_most: int) -> None:
        self._database, self._at_most = connections[DEFAULT_DB_ALIAS], at_most
        self._kept: _Kept | None = None

    def let_go(self) -> None:
        """Close this thread's connection unless it is one of the few that stay."""
        if self._database.connection is None or self._kept is not None:
            return
        if len(self.keepers) < self._at_most:
            self._kept = _Kept()
            self.keepers.add(self._kept)
        else:
            self._database.close()


def refuse(environ: Environ, start_response: StartResponse) -> Iterable[Any]:
    """503 at once, with the time to come again; counted as the route `busy`."""
    began = perf_counter()
    error = Unavailable("The hub has more requests than it can take now; try again.")
    response = respond(problem_of(error), {"Retry-After": RETRY_AFTER_SECONDS})
    own = {
        "X-Request-ID": request_id_of(environ.get("HTTP_X_REQUEST_ID", "")),
        "X-Content-Type-Options": "nosniff",
        "Content-Length": str(len(response.content)),
    }
    method = environ["REQUEST_METHOD"]
    observe("busy", method if method in ("GET", "POST") else "other", response.status_code, perf_counter() - began)
    start_response(f"503 {response.reason_phrase}", [*response.items(), *own.items()])
    return [response.content]
