"""Durations in the admin's forms."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django import forms
from unfold.widgets import UnfoldAdminTextInputWidget

from catalog.moments import duration_text, moment_text, parse_duration_text

__all__ = ["DurationTextField", "duration_text", "moment_text"]


class DurationTextField(forms.DurationField):
    """A duration that people write as `90d`."""

    widget = UnfoldAdminTextInputWidget
    default_error_messages = {
        "invalid": "Write a duration as <number>d, h, m or s: 90d, 12h, 30m, 45s; at most 36500d."
    }

    def prepare_value(self, value: Any) -> Any:
        return duration_text(value) if isinstance(value, timedelta) else value

    def to_python(self, value: Any) -> timedelta | None:
        if value in self.empty_values or isinstance(value, timedelta):
            return value or None
        duration = parse_duration_text(str(value))
        if duration is None:
            raise forms.ValidationError(self.error_messages["invalid"], code="invalid")
        return duration
