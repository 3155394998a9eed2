"""One request as granian's RSGI has it, and what it is told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field


@dataclass
class Scope:
    """A request from loopback."""

    path: str
    method: str = "GET"
    query_string: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    http_version: str = "1.1"
    scheme: str = "http"
    server: str = "127.0.0.1:8000"
    client: str = "127.0.0.1:50000"
    authority: str | None = "localhost"


@dataclass
class Told:
    """The protocol's side: it has the body, in parts, and is told the response."""

    parts: tuple[bytes, ...] = ()
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    blocks: list[bytes] = field(default_factory=list)

    async def __call__(self) -> bytes:
        return b"".join(self.parts)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self.parts:
            yield part

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        assert not self.status, "told twice"
        self.status, self.headers, self.body = status, dict(headers), body

    def response_stream(self, status: int, headers: list[tuple[str, str]]) -> Told:
        self.response_bytes(status, headers, b"")
        return self

    async def send_bytes(self, block: bytes) -> None:
        self.blocks.append(block)
