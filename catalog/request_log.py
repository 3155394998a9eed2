"""A line for each answered request, where an operator wants it (FEATUREHUB_LOG_REQUESTS).

Off by default: `/metrics` counts every request for a tenth of what a line costs, and errors have lines of their own.
"""

from __future__ import annotations

import logging

from django.conf import settings
from django.http import HttpRequest

log = logging.getLogger("featurehub.requests")


def log_request(request: HttpRequest, status: int, seconds: float) -> None:
    """Log that a request was answered, if that is wanted."""
    if settings.FEATUREHUB_LOG_REQUESTS:
        log.info("answered", extra={"request": request, "status": status, "duration_ms": round(1000 * seconds, 3)})
