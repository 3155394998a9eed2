"""Logging in and out of the catalog: for everybody with a login, staff or not."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.views import LoginView, LogoutView
from django.http import HttpRequest, HttpResponse

from catalog.pages.viewing import guarded


class LoginPage(LoginView):
    """The form; failed logins are counted and limited by catalog/logins.py."""

    http_method_names = ["get", "head", "post", "options"]
    template_name = "catalog/login.html"
    redirect_authenticated_user = True

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if (request.method or "").lower() not in self.http_method_names:  # also of who is logged in, and sent home
            return guarded(self.http_method_not_allowed(request))
        return guarded(super().dispatch(request, *args, **kwargs))  # type: ignore[arg-type]


class LogoutPage(LogoutView):
    next_page = "home"
