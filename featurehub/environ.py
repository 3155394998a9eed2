"""What an RSGI server says of a request, as WSGI has it (PEP 3333)."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from io import BytesIO
from tempfile import SpooledTemporaryFile
from typing import Any

from granian.rsgi import ProtocolClosed

from catalog.bodies import MAX_BYTES, declared_length

Environ = dict[str, Any]

#: Of a body this much stays in memory, the rest is in a file.
IN_MEMORY_BYTES = 64 << 10
#: How long a longer body may take to come in.
SECONDS_OF_A_BODY = 60.0
#: The names of the usual headers; any others are made each time, since callers may invent any number.
_NAMES = {
    name: "HTTP_" + name.upper().replace("-", "_")
    for name in (
        "host",
        "authorization",
        "accept",
        "user-agent",
        "accept-encoding",
        "connection",
        "x-request-id",
        "cookie",
    )
} | {"content-type": "CONTENT_TYPE", "content-length": "CONTENT_LENGTH"}
_ALWAYS: Environ = {
    "SCRIPT_NAME": "",
    "wsgi.version": (1, 0),
    "wsgi.errors": sys.stderr,
    "wsgi.input_terminated": True,
    "wsgi.multithread": True,
    "wsgi.multiprocess": True,
    "wsgi.run_once": False,
}


def environ_of(scope: Any) -> Environ:
    """A request's environ, without `wsgi.input`: the body is yet to come."""
    server, _, port = scope.server.rpartition(":")
    client, _, client_port = scope.client.rpartition(":")
    path = scope.path
    environ: Environ = {
        **_ALWAYS,
        "REQUEST_METHOD": scope.method,
        "PATH_INFO": path if path.isascii() else path.encode(errors="surrogateescape").decode("latin-1"),
        "QUERY_STRING": scope.query_string,
        "SERVER_PROTOCOL": f"HTTP/{scope.http_version}",
        "SERVER_NAME": server.strip("[]"),
        "SERVER_PORT": port,
        "REMOTE_ADDR": client.strip("[]"),
        "REMOTE_PORT": client_port,
        "wsgi.url_scheme": scope.scheme,
    }
    if scope.authority is not None:
        environ["HTTP_HOST"] = scope.authority
    for name, value in scope.headers.items():
        key = _NAMES.get(name)
        if key is None:
            if "_" in name:
                continue  # it would pass for the header that has a hyphen there
            key = "HTTP_" + name.upper().replace("-", "_")
        environ[key] = f"{environ[key]}{';' if key == 'HTTP_COOKIE' else ','}{value}" if key in environ else value
    return environ


async def take_body(environ: Environ, protocol: Any) -> bool:
    """Read the body into `wsgi.input`, no more than one byte above what any route takes; whether it came in time."""
    environ["wsgi.input"] = BytesIO()
    declared, is_chunked = declared_length(environ), "HTTP_TRANSFER_ENCODING" in environ
    if not is_chunked and (declared > MAX_BYTES or declared == 0):
        return True  # what is too long is refused by what it says
    if not is_chunked and declared <= IN_MEMORY_BYTES:
        with suppress(ProtocolClosed):  # its sender has gone, and hears of no answer
            environ["wsgi.input"] = BytesIO(await protocol())
        return True
    body = environ["wsgi.input"] = SpooledTemporaryFile(IN_MEMORY_BYTES)  # noqa: SIM115  closed with the request
    try:
        async with asyncio.timeout(SECONDS_OF_A_BODY):
            async for part in protocol:
                body.write(part)
                if body.tell() > MAX_BYTES:
                    break
    except TimeoutError:
        return False
    body.seek(0)
    return True
