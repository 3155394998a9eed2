"""Rows of an inline whose order counts and whose positions are unique in the database."""

from __future__ import annotations

from typing import Any

from django.db import models, transaction
from django.db.models import F
from django.forms import ModelForm
from unfold.forms import PaginationInlineFormSet

#: Beyond any position in use, and twice it still is a small integer.
_ASIDE = 10_000


class PositionedForm(ModelForm):
    """A row that its formset numbers: only there is it known what positions the others will have."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "position" in self.fields:
            self.fields["position"].required = False

    def _get_validation_exclusions(self) -> set[str]:
        return {*super()._get_validation_exclusions(), "position"}  # type: ignore[misc]  # the stubs lack it


class PositionedFormSet(PaginationInlineFormSet):
    """Numbers its rows 0, 1, 2... in the order shown, without two of them ever meeting at one position."""

    def clean(self) -> None:
        super().clean()
        for position, form in enumerate(sorted(filter(self._is_kept, self.forms), key=self._place)):
            form.instance.position = position

    def save(self, commit: bool = True) -> list[models.Model]:
        with transaction.atomic():
            moved = [form for form in self.initial_forms if not self._stays(form)]
            # A queryset's update stays out of the history, which is right: nobody is to see these positions.
            rows = self.model.objects.filter(pk__in=[form.instance.pk for form in moved])
            rows.update(position=F("position") + _ASIDE)
            saved = super().save(commit)
            for form in moved:
                if self._is_kept(form) and not form.has_changed():
                    form.instance.save()
            return saved

    def _is_kept(self, form: ModelForm) -> bool:
        if not hasattr(form, "cleaned_data") or self._is_deleted(form):
            return False
        return bool(form.instance.pk) or form.has_changed()

    def _is_deleted(self, form: ModelForm) -> bool:
        return bool(self.can_delete and self._should_delete_form(form))

    def _stays(self, form: ModelForm) -> bool:
        return self._is_kept(form) and form.instance.position == form.initial.get("position")

    def _place(self, form: ModelForm) -> int:
        given = form.cleaned_data.get("position")
        # A new row comes last, unless somebody gave it a place.
        return _ASIDE if given is None or not (form.instance.pk or "position" in form.changed_data) else given
