"""API keys: made, rotated and revoked here; a key's text is shown on the page that answers, once, and never stored."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.safestring import SafeString
from unfold.dataclasses import UnfoldAction
from unfold.decorators import action, display
from unfold.enums import ActionVariant
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget, UnfoldAdminSelect2MultipleWidget

from catalog.access import CREATE, REGISTRY
from catalog.actions import SCOPES
from catalog.admin.confirmation import Concerned, Nothing, Question, ask, is_confirmed
from catalog.admin.label import COLOURS, labelled, with_icon
from catalog.admin.moment import DurationTextField, moment_text
from catalog.admin.recorded import RecordedAdmin
from catalog.keys import check_key, create_key, revoke_key, rotate_key
from catalog.models import ApiKey, FeatureGroup
from engine.errors import FeaturehubError

REVOKE = Question(
    title="Revoke these keys?",
    consequence="Whoever uses them is answered 401 within seconds. A revoked key cannot be brought back.",
    button="Revoke",
    variant="danger",
    of_readers=False,
)
ROTATE = Question(
    title="Give this key a new secret?",
    consequence="The next page shows the key's new text, once. The old text works too until the time below is over.",
    button="Rotate",
    variant="primary",
    of_readers=False,
)


def state_of(key: ApiKey) -> str:
    return key.state(timezone.now())


class ApiKeyForm(forms.ModelForm):
    """A key to be made; what no key can be stands above the fields."""

    scopes = forms.MultipleChoiceField(
        choices=[(scope, scope) for scope in SCOPES], widget=UnfoldAdminCheckboxSelectMultipleWidget
    )
    groups = forms.MultipleChoiceField(
        required=False,
        widget=UnfoldAdminSelect2MultipleWidget,
        help_text="The feature groups that it is limited to; none: every group, also those to come.",
    )

    class Meta:
        model = ApiKey
        fields = ["name", "scopes", "groups", "owner", "expires_at", "requests_per_second", "burst"]
        help_texts = {
            "expires_at": "Refused from then on; empty: never.",
            "requests_per_second": "On average; beyond it the key is answered 429. Empty: no limit.",
            "burst": "Requests at once; empty: those of a second.",
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "groups" in self.fields:  # not on the page of a key, where nothing is edited
            names = FeatureGroup.objects.values_list("name", flat=True)
            self.fields["groups"].choices = [(name, name) for name in names]  # type: ignore[attr-defined]

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        if not self.errors:
            try:
                check_key(**{name: cleaned[name] for name in self.Meta.fields if name != "owner"})
            except FeaturehubError as error:
                raise forms.ValidationError(str(error)) from error
        return cleaned


class RotationForm(forms.Form):
    """How long the old text works beside the new one."""

    keep_old = DurationTextField(
        required=False, initial="1d", label="The old text works for", help_text="1d, 12h, 30m; empty: it ends now."
    )


@admin.register(ApiKey)
class ApiKeyAdmin(RecordedAdmin):
    form = ApiKeyForm
    list_display = ["name", "key_id", "scope_names", "group_names", "owner", "state", "expires_at", "last_used_on"]
    list_select_related = ["owner"]
    list_filter = [("revoked_at", admin.EmptyFieldListFilter)]
    search_fields = ["name", "public_id", "owner__username"]
    autocomplete_fields = ["owner"]
    actions = ["revoke_selected"]
    actions_detail = ["rotate", "revoke"]

    def get_fieldsets(self, request: HttpRequest, obj: ApiKey | None = None) -> list[tuple[str | None, Any]]:
        if obj is None:
            return [(None, {"fields": ApiKeyForm.Meta.fields})]
        about = ["name", "key_id", "scope_names", "group_names", "owner", "requests_per_second", "burst"]
        times = ["created_at", "expires_at", "rotated_at", "old_secret_ends_at", "revoked_at", "last_used_on"]
        return [(None, {"fields": about}), ("State", {"fields": ["state_now", *times]})]

    def get_readonly_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> list[str]:
        """All of a key that is there; its history's pages ask this too."""
        sections = self.get_fieldsets(request, obj) if obj else []
        return [name for _, section in sections for name in section["fields"]]

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """What a key may do is settled when it is made: whoever holds it counts on that."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Its history is kept."""
        return False

    def has_settle_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        return self.may(request, REGISTRY, object_id)

    def get_actions_detail(self, request: HttpRequest, object_id: int) -> list[UnfoldAction]:
        """Nothing to do with a key that has ended."""
        key = self._by_key(object_id)
        return super().get_actions_detail(request, object_id) if key and state_of(key) == "valid" else []

    def save_model(self, request: HttpRequest, obj: ApiKey, form: forms.ModelForm, change: bool) -> None:
        """Made by the one function that makes keys; the page that answers shows the text."""
        self.require_each(request, CREATE, [obj])
        asked = {name: form.cleaned_data[name] for name in ApiKeyForm.Meta.fields}
        made, text = create_key(**asked, by=request.user.get_username())
        obj.pk, obj.public_id, obj._state.adding = made.pk, made.public_id, False
        request._key_text = text  # type: ignore[attr-defined]

    def response_add(self, request: HttpRequest, obj: ApiKey, post_url_continue: str | None = None) -> HttpResponse:
        return self._shown_once(request, obj, request._key_text)  # type: ignore[attr-defined]

    def _shown_once(self, request: HttpRequest, key: ApiKey, text: str, note: str = "") -> HttpResponse:
        """The only page that ever has the key's text; nobody keeps a copy of it."""
        context = {
            **self.admin_site.each_context(request),
            "title": "The key, shown once",
            "opts": self.opts,
            "key": key,
            "text": text,
            "note": note,
        }
        response = TemplateResponse(request, "admin/catalog/key_text.html", context)
        response["Cache-Control"] = "no-store"
        return response

    @action(description="Rotate", permissions=["settle"], icon="autorenew", variant=ActionVariant.PRIMARY)
    def rotate(self, request: HttpRequest, object_id: str) -> HttpResponse:
        key = self.get_object(request, unquote(object_id))
        if key is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)
        back = reverse("admin:catalog_apikey_change", args=[key.pk])
        form = RotationForm(request.POST if is_confirmed(request) else None)
        if not form.is_valid():
            return ask(self, request, ROTATE, concerned=[Concerned(key, state_of(key))], form=form, back=back)
        ends_at = timezone.now() + (form.cleaned_data["keep_old"] or timedelta(0))
        try:
            rotated, text = rotate_key(key.public_id, old_ends_at=ends_at, by=request.user.get_username())
        except FeaturehubError as error:
            self.message_user(request, str(error), messages.ERROR)
            return HttpResponseRedirect(back)
        note = f"The old text works until {moment_text(ends_at)}."
        self.log_change(request, rotated, f"Rotated. {note}")
        return self._shown_once(request, rotated, text, note)

    @action(description="Revoke", permissions=["settle"], icon="block", variant=ActionVariant.DANGER)
    def revoke(self, request: HttpRequest, object_id: str) -> HttpResponse:
        key = self.get_object(request, unquote(object_id))
        if key is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)
        return self._revoke(request, [key], back=reverse("admin:catalog_apikey_change", args=[key.pk]))

    @action(description="Revoke selected API keys", permissions=["settle"])
    def revoke_selected(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> HttpResponse:
        return self._revoke(request, list(queryset), back=request.get_full_path())

    def _revoke(self, request: HttpRequest, chosen: list[ApiKey], *, back: str) -> HttpResponse:
        self.require_each(request, REGISTRY, chosen)
        if not is_confirmed(request):
            concerned = [Concerned(key, state_of(key)) for key in chosen]
            return ask(self, request, REVOKE, concerned=concerned, form=Nothing(), back=back)
        for key in chosen:
            revoke_key(key.public_id, by=request.user.get_username())
            self.log_change(request, key, "Revoked.")
            self.message_user(request, f"{key} is revoked.", messages.SUCCESS)
        return HttpResponseRedirect(back)

    @display(description="Key")
    def key_id(self, key: ApiKey) -> str:
        return f"fh_{key.public_id}…"

    @display(description="Scopes")
    def scope_names(self, key: ApiKey) -> str:
        return ", ".join(key.scopes)

    @display(description="Groups")
    def group_names(self, key: ApiKey) -> str:
        return ", ".join(key.groups) or "every group"

    @display(description="State", label=COLOURS)
    def state(self, key: ApiKey) -> tuple[str, str]:
        return labelled(state_of(key))

    @display(description="State")
    def state_now(self, key: ApiKey) -> SafeString:
        return with_icon(state_of(key))
