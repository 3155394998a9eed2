"""Which files a path that somebody wrote into a definition or a request may mean: those below FEATUREHUB_SOURCE_ROOTS,
also after every symbolic link is followed.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from django.conf import settings

from engine.errors import InvalidSource


def find(pattern: str, roots: Sequence[Path] | None = None) -> list[Path]:
    """The files that a definition's path or glob means, sorted; raises InvalidSource when there is none.

    `roots` are the allowed ones by default. A match that leads out of the roots is refused by name.
    """
    given = [Path(root) for root in (settings.FEATUREHUB_SOURCE_ROOTS if roots is None else roots)]
    roots = [root.resolve() for root in given]
    if "\0" in pattern or "://" in pattern:
        raise InvalidSource(f"{pattern!r} is not a path: a source is a file or a glob below a source root.")
    if given and not any(_stays_below(root, pattern) for root in (*given, *roots)):
        raise InvalidSource(f"{pattern!r} lies outside the source roots; a source is a path relative to one of them.")
    found = [path for root in roots for path in _matches(root, pattern)]
    if not found:
        places = ", ".join(map(str, roots)) or "no folder (FEATUREHUB_SOURCE_ROOTS is empty)"
        raise InvalidSource(f"No file matches {pattern!r} below {places}.")
    for path in found:
        if not any(path.resolve().is_relative_to(root) for root in roots):
            raise InvalidSource(f"{pattern!r} leads to {path.resolve()}, which lies outside the source roots.")
    return sorted(set(found))


def _stays_below(root: Path, pattern: str) -> bool:
    """Judged by its text alone: a glob that starts elsewhere is not walked, and nobody learns what is there."""
    return Path(os.path.normpath(root / pattern)).is_relative_to(os.path.abspath(root))


def _matches(root: Path, pattern: str) -> list[Path]:
    return [Path(match) for match in glob.glob(os.path.join(glob.escape(str(root)), pattern), recursive=True)]
