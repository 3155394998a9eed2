"""What stands in for a Redis that is not well: a server that answers every command alike, and a line that disturbs."""

from __future__ import annotations

import random
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

#: What a connection begins with; a server answers it whatever is wrong with its data.
GREETINGS = {b"HELLO": b"%1\r\n$5\r\nproto\r\n:3\r\n", b"CLIENT": b"+OK\r\n", b"SELECT": b"+OK\r\n"}


@contextmanager
def _serving(path: Path | None, serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """Each connection in a thread; waits at its end until those who are connected have gone. On a socket, or without
    one on a free port of loopback, which is told."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError, ValueError, IndexError):
                serve(self.request)

    with _server(path, Handler) as server:
        accepting = threading.Thread(target=server.serve_forever, args=(0.01,))
        accepting.start()
        yield 0 if path else int(server.server_address[1])
        server.shutdown()
        accepting.join()


def _server(path: Path | None, handler: type[socketserver.BaseRequestHandler]) -> socketserver.BaseServer:
    if path:
        return socketserver.ThreadingUnixStreamServer(str(path), handler)
    return socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler)


class Stub:
    """A server that greets as Redis does and answers whatever else it is asked with `answer`."""

    def __init__(self, path: Path) -> None:
        self.url = f"unix://{path}?db=0"
        self.greetings = GREETINGS
        self.answer = b"-ERR\r\n"
        self.asked: set[bytes] = set()

    @classmethod
    @contextmanager
    def running(cls, path: Path) -> Iterator[Stub]:
        stub = cls(path)
        with _serving(path, stub._serve):
            yield stub

    def _serve(self, connection: socket.socket) -> None:
        with connection.makefile("rb") as received:
            while head := received.readline():
                words = [received.read(int(received.readline()[1:]) + 2)[:-2] for _ in range(int(head[1:]))]
                name = words[0].upper()
                self.asked.add(name)
                connection.sendall(self.greetings.get(name, self.answer))


class ClusterStub(Stub):
    """A Stub that says of itself that it is a cluster, all by itself."""

    @classmethod
    @contextmanager
    def on_a_port(cls) -> Iterator[ClusterStub]:
        stub = cls(Path())
        with _serving(None, stub._serve) as port:
            stub.url = f"redis+cluster://127.0.0.1:{port}"
            nodes = f"07c37df 127.0.0.1:{port}@1{port} myself,master - 0 0 1 connected 0-16383\n"
            stub.greetings = GREETINGS | {b"CLUSTER": f"${len(nodes)}\r\n{nodes}\r\n".encode()}
            yield stub

    def forget(self) -> None:
        """Answer the question for the nodes like all others."""
        self.greetings = GREETINGS


class Line:
    """A connection to a real Redis on which things happen.

    delay:      seconds by which each answer comes later
    swallows:   nothing is passed on any more, and nobody hangs up (half open)
    cuts_after: a word of a request after which the line is cut: Redis gets the request, nobody gets the answer
    cuts_in:    answers are cut off after so many bytes
    odds:       how likely each request and each answer is to cut the line instead of being passed on; `cuts` counts
    """

    def __init__(self, path: Path, target: Path) -> None:
        self.url = f"unix://{path}?db=0"
        self.delay = 0.0
        self.swallows = False
        self.cuts_after: bytes | None = None
        self.cuts_in: int | None = None
        self.odds = 0.0
        self.cuts = 0
        self._chance = random.Random(7)
        self._target = str(target)

    @classmethod
    @contextmanager
    def running(cls, path: Path, target: Path) -> Iterator[Line]:
        line = cls(path, target)
        with _serving(path, line._serve):
            yield line

    def _serve(self, client: socket.socket) -> None:
        is_cut = threading.Event()
        with socket.socket(socket.AF_UNIX) as server:
            server.connect(self._target)
            answers = threading.Thread(target=self._pass_answers, args=(server, client, is_cut))
            answers.start()
            try:
                self._pass_requests(client, server, is_cut)
            finally:
                _hang_up(server)
                answers.join()

    def _pass_requests(self, client: socket.socket, server: socket.socket, is_cut: threading.Event) -> None:
        while request := client.recv(1 << 20):
            if self.swallows:
                continue
            if self.cuts_after is not None and self.cuts_after in request:
                is_cut.set()
            if self._is_cut_by_chance():
                break
            server.sendall(request)

    def _pass_answers(self, server: socket.socket, client: socket.socket, is_cut: threading.Event) -> None:
        with suppress(OSError):
            while (answer := server.recv(1 << 20)) and not is_cut.is_set():
                time.sleep(self.delay)
                if self.swallows:
                    continue
                if self._is_cut_by_chance():
                    break
                client.sendall(answer if self.cuts_in is None else answer[: self.cuts_in])
                if self.cuts_in is not None:
                    break
        _hang_up(client)

    def _is_cut_by_chance(self) -> bool:
        is_cut = self._chance.random() < self.odds
        self.cuts += is_cut
        return is_cut


def _hang_up(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
