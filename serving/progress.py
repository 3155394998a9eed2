"""What a command shows of a join to a person at a terminal, on stderr."""

from __future__ import annotations

import sys
import time

from catalog.commands import FeaturehubCommand


class Progress:
    """A line that is written over: for how long it has joined, then how many rows are made; nothing without a terminal.

    Called with the rows of each batch that was made, or None when the join came further, as `training.write` asks.
    """

    def __init__(self, command: FeaturehubCommand, subject: str) -> None:
        self._command, self._subject = command, subject
        self._rows, self._began = 0, time.monotonic()
        self._shows = sys.stderr.isatty()

    def __call__(self, rows: int | None) -> None:
        self._rows += rows or 0
        self.show(self._rows)

    def show(self, rows: int) -> None:
        """That so many rows are made by now."""
        if self._shows:
            said = f"{rows:,} rows" if rows else f"joining, {time.monotonic() - self._began:.0f} s"
            self._command.stderr.write(f"\r{self._subject}: {said}", ending="")

    def end(self) -> None:
        """Leave the line as it is; what is written next begins another."""
        if self._shows:
            self._command.stderr.write("")
