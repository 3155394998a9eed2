"""This process's id, remembered: it changes with a fork alone, and asking the system takes more than a microsecond."""

from __future__ import annotations

import os

_remembered = os.getpid()


def process_id() -> int:
    """What os.getpid() answers."""
    return _remembered


def _remember() -> None:
    global _remembered  # noqa: PLW0603  one id per process is what this module keeps
    _remembered = os.getpid()


os.register_at_fork(after_in_child=_remember)
