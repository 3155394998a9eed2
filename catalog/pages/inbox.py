"""The inbox: what a person was told of the things they follow."""

from __future__ import annotations

from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect

from catalog import follows
from catalog.access import AnyCaller
from catalog.pages.paging import Listed, cut
from catalog.pages.searching import page_number
from catalog.pages.viewing import form_page, show
from engine.errors import NotAllowed


@form_page
def inbox_page(request: HttpRequest, caller: AnyCaller) -> HttpResponse:
    if not isinstance(caller, User):
        raise NotAllowed("An inbox is a person's: log in to follow things and to be told of them.")
    if request.method == "POST":
        chosen = request.POST.getlist("id")
        follows.mark_read(
            caller, "all" if not chosen else [int(id) for id in chosen if id.isdecimal() and len(id) < 19]
        )
        return redirect("catalog-inbox")
    told = follows.inbox(caller).order_by("-notice__at", "-pk")
    total = told.count()
    number, part = cut(total, page_number(request.GET))
    context = {
        "title": "Inbox",
        "found": Listed(list(told[part]), total, number),
        "unread": follows.unread_count(caller),
        "following": follows.following(caller),
    }
    return show(request, caller, "catalog/inbox.html", context, here="catalog-inbox")
