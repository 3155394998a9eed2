"""Browsers of people with rights in a group, and what a page says to them."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

from django.contrib.auth.models import User
from django.test import Client

from catalog.models import FeatureGroup, GroupRole, Owner, Role


def browser_of(name: str, *roles: tuple[FeatureGroup, Role], csrf: bool = False, **fields: Any) -> Client:
    """A browser in which somebody with these roles is logged in."""
    person = User.objects.create(username=name, **fields)
    team = Owner.objects.create(name=f"team_of_{name}")
    team.members.add(person)
    for group, role in roles:
        GroupRole.objects.create(group=group, team=team, role=role)
    client = Client(enforce_csrf_checks=csrf, raise_request_exception=False)
    client.force_login(person)
    return client


def text_of(answer: Any) -> str:
    """What a page says, without its tags and with single spaces."""
    body = re.sub(r"<(script|head)\b.*?</\1>", " ", answer.content.decode(), flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", body)).split())


def token_of(answer: Any) -> str:
    """The token of the last form of a page."""
    found = re.findall(r'name="csrfmiddlewaretoken" value="([^"]+)"', answer.content.decode())
    return found[-1]
