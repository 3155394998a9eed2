"""The page between an action and its effect: what would happen, to what, and who is hit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from django import forms
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db import models
from django.http import HttpRequest
from django.template.response import TemplateResponse
from unfold.admin import ModelAdmin

CONFIRMED = "confirmed"


class Nothing(forms.Form):
    """The form of an action that asks nothing."""


@dataclass(frozen=True, slots=True)
class Concerned:
    """One thing that an action would change, its state now, who reads it, and who or what else is hit: a word for each
    kind, with names."""

    thing: models.Model
    state: str
    readers: Sequence[str] = ()
    others: Sequence[tuple[str, Sequence[str]]] = ()


@dataclass(frozen=True, slots=True)
class Question:
    """What a confirmation page says; `refused_if_read` warns where something has readers, `of_readers` lists them."""

    title: str
    consequence: str
    button: str
    variant: str
    refused_if_read: bool = False
    of_readers: bool = True


def is_confirmed(request: HttpRequest) -> bool:
    return request.method == "POST" and CONFIRMED in request.POST


def ask(
    admin: ModelAdmin,
    request: HttpRequest,
    question: Question,
    *,
    concerned: Iterable[Concerned],
    form: forms.Form,
    back: str,
) -> TemplateResponse:
    """The confirmation page; it posts to the same address, with what the list's action had posted."""
    concerned = list(concerned)
    context = {
        **admin.admin_site.each_context(request),
        "title": question.title,
        "opts": admin.opts,
        "object": concerned[0].thing if len(concerned) == 1 else None,
        "question": question,
        "concerned": concerned,
        "has_others": any(one.others for one in concerned),
        "would_be_refused": question.refused_if_read and any(one.readers for one in concerned),
        "form": form,
        "media": admin.media + form.media,
        "back": back,
        "action": request.POST.get("action", ""),
        "action_checkbox_name": ACTION_CHECKBOX_NAME,
        "confirmed": CONFIRMED,
    }
    request.current_app = admin.admin_site.name
    return TemplateResponse(request, "admin/catalog/confirm.html", context)
