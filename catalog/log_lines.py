"""How the log is written: a JSON object a line in production, a line for people in development.

Both say the same, and neither a secret (redaction.py), nor an entity's id or a row's value (logged_paths.py,
tracebacks.py). docs/monitoring.md lists the fields.
"""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import Any

import orjson
from django.http import HttpRequest

from catalog.log_context import current_request, current_run, current_task, principal_in, route_of
from catalog.redaction import redacted
from catalog.request_id import IN_REQUEST
from catalog.tracebacks import said, traceback_of

#: A control character could end a line, or change how a terminal shows what follows.
_ESCAPED = {code: f"\\x{code:02x}" for code in (*range(32), 127, *range(0x80, 0xA0), 0x2028, 0x2029)}
_ESCAPED |= {ord("\n"): "\n  ", ord("\t"): "\t"}


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """What a line says, in its order; what there is nothing to say of is not in it."""
    request = getattr(record, "request", None) or current_request.get()
    error = record.exc_info[1] if record.exc_info else None
    found = {
        "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": record.levelname,
        "logger": record.name,
        "message": redacted(_message(record, error)),
        **_of_request(request, record),
        "task": current_task.get(),
        "run": current_run.get(),
        "exception": redacted(traceback_of(error)) if error else "",
    }
    return {name: _encodable(value) for name, value in found.items() if value not in ("", None)}


def _encodable(value: Any) -> Any:
    """Half a character, as in a name that somebody sent, can be in no line."""
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value


def _of_request(request: object, record: logging.LogRecord) -> dict[str, Any]:
    if not isinstance(request, HttpRequest):
        return {}
    return {
        "request_id": request.META.get(IN_REQUEST),
        "method": redacted(str(request.method)[:16]),
        "route": route_of(request),
        "caller": principal_in(request),
        "status": getattr(record, "status", None),
        "duration_ms": getattr(record, "duration_ms", None),
    }


def _message(record: logging.LogRecord, error: BaseException | None) -> str:
    """The message; Celery's quotes the error that it tells of, which stands beside it."""
    if error is not None and isinstance(record.args, dict) and "exc" in record.args:
        record.args = {**record.args, "exc": said(error), "traceback": "", "args": "", "kwargs": ""}
    return record.getMessage()


class StderrLines(logging.StreamHandler):
    """Writes to standard error. A line that cannot be made is told of, where Python would print all that was in it."""

    def handleError(self, record: logging.LogRecord) -> None:
        kind = sys.exc_info()[0]
        failed = f"a line could not be written: {kind.__qualname__ if kind else 'an error'}"
        told = logging.LogRecord(record.name, logging.ERROR, record.pathname, record.lineno, failed, None, None)
        if not issubclass(kind or Exception, OSError):  # then nothing can be written there
            self.stream.write(self.format(told) + self.terminator)
            self.flush()


class JsonLines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        return orjson.dumps(fields_of(record), default=str).decode()


class ReadableLines(logging.Formatter):
    """The same for people: what else is told follows the message, and further lines are indented."""

    def format(self, record: logging.LogRecord) -> str:
        said = fields_of(record)
        start = " ".join(said.pop(name) for name in ("time", "level", "logger"))
        message, error = said.pop("message"), said.pop("exception", "")
        rest = " ".join(f"{name}={value}" for name, value in said.items())
        line = f"{start} {message}" + (f" [{rest}]" if rest else "") + (f"\n{error}" if error else "")
        return line.translate(_ESCAPED)
