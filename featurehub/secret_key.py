"""The secret key of an embedded hub: made once, kept in the home folder for this user alone."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

SECRET_KEY_BYTES = 48


def kept_secret_key(home: Path) -> str:
    """The key in `<home>/secret_key`, made on first use (mode 0600); processes that come at once agree on one."""
    kept = home / "secret_key"
    if not kept.exists():
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        written = home / f"secret_key.{os.getpid()}.{secrets.token_hex(4)}"
        with os.fdopen(os.open(written, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(SECRET_KEY_BYTES))
        with suppress(FileExistsError):  # another process was first: its key is the one
            os.link(written, kept)
        written.unlink()
    return kept.read_text()
