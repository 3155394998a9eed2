"""What a pickle can do to whoever loads it."""

from __future__ import annotations

import pickle
from pathlib import Path


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def pickled_bomb(path: Path) -> bytes:
    """What makes a file at `path` when it is unpickled."""
    return pickle.dumps(Bomb(path))


def require_it_goes_off(folder: Path) -> None:
    """It does where somebody unpickles it, so that a test that finds nothing left behind could have failed."""
    pickle.loads(pickled_bomb(folder / "checked"))  # noqa: S301  that is what is shown
    assert (folder / "checked").exists()
