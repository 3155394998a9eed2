"""The database of the test session, as other processes are told of it."""

from __future__ import annotations

from urllib.parse import quote

from django.db import connection


def url() -> str:
    """The DATABASE_URL of the database that the tests use, which is not the one that the session's settings name."""
    database = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{database['NAME']}"
    return f"postgres://{database['USER']}@{quote(database['HOST'], safe='')}/{database['NAME']}"
