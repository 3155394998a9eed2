"""What a read is answered with, before a framework has it: the short way (hot_path.py) and Django use the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from django.http import HttpResponse

JSON = "application/json"


class Answer(NamedTuple):
    """The body of an answer, what it is, and the headers that belong to what it says."""

    body: bytes
    media_type: str
    headers: Mapping[str, str]
    status: int = 200

    @classmethod
    def of(cls, response: HttpResponse) -> Answer:
        """What Django would answer with."""
        headers = dict(response.items())
        return cls(response.content, headers.pop("Content-Type"), headers, response.status_code)

    def to_django(self) -> HttpResponse:
        """The same for Django to answer with."""
        return HttpResponse(self.body, content_type=self.media_type, headers=dict(self.headers), status=self.status)
