"""The validation rules of a feature as fields of a form, and back to the JSON that the model keeps."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from django import forms
from unfold.widgets import (
    UnfoldAdminSelectWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
    UnfoldBooleanSwitchWidget,
)

from catalog.models import OnViolation
from engine.validation import Validation

RULES = (
    *("not_null", "unique", "min_value", "max_value", "allowed_values"),
    *("regex", "min_length", "max_length", "on_violation"),
)
_WHOLE = re.compile(r"[+-]?\d+")
_BOOLEANS = {"true": True, "false": False}


class BoundField(forms.CharField):
    """A number that stays what it was written as: `3` an int, `3.0` a float; None when empty."""

    widget = UnfoldAdminTextInputWidget

    def clean(self, value: Any) -> int | float | None:
        text = super().clean(value)
        return number(text) if text else None


def number(text: str) -> int | float:
    """The number written; raises ValidationError."""
    try:
        return int(text) if _WHOLE.fullmatch(text) else float(text)
    except ValueError:
        raise forms.ValidationError(f"{text!r} is not a number.") from None


def _boolean(text: str) -> bool:
    if text not in _BOOLEANS:
        raise forms.ValidationError(f"{text!r} is neither true nor false.")
    return _BOOLEANS[text]


#: How a line of the allowed values is read, by the dtype of the feature; text for any other.
_READ: dict[str, Callable[[str], Any]] = {"int64": number, "float64": number, "bool": _boolean}


def parse_allowed_values(text: str, dtype: str) -> list[Any] | None:
    """The values of a text area, one a line or a JSON list; None when it is empty. Raises ValidationError."""
    if not text.strip():
        return None
    if text.lstrip().startswith("["):
        try:
            return json.loads(text)
        except ValueError as error:
            raise forms.ValidationError(f"This is not a JSON list: {error}.") from error
    read = _READ.get(dtype, str)
    return [read(line.strip()) for line in text.splitlines() if line.strip()]


def allowed_values_text(values: list[Any] | None, dtype: str) -> str:
    """The text that `parse_allowed_values` reads as `values`: lines where they can hold them, else JSON."""
    if not values:
        return "" if values is None else "[]"
    lines = "\n".join(json.dumps(value) if isinstance(value, bool) else str(value) for value in values)
    try:
        reads_back = json.dumps(parse_allowed_values(lines, dtype)) == json.dumps(values)
    except forms.ValidationError:
        reads_back = False
    return lines if reads_back else json.dumps(values, ensure_ascii=False)


class RuleFields(forms.Form):
    """One field a rule; `rules` puts them together again."""

    not_null = forms.BooleanField(required=False, label="Not null", widget=UnfoldBooleanSwitchWidget)
    unique = forms.BooleanField(
        required=False, widget=UnfoldBooleanSwitchWidget, help_text="Within one run; the first row keeps the value."
    )
    min_value = BoundField(required=False, label="Smallest value", help_text="Inclusive; for int64 and float64.")
    max_value = BoundField(required=False, label="Largest value", help_text="Inclusive.")
    allowed_values = forms.CharField(
        required=False, widget=UnfoldAdminTextareaWidget(attrs={"rows": 4}), help_text="One a line; or a JSON list."
    )
    regex = forms.CharField(
        required=False,
        strip=False,
        widget=UnfoldAdminTextInputWidget,
        help_text="The whole text must match; for string.",
    )
    min_length = forms.IntegerField(
        required=False, min_value=0, label="Shortest length", widget=UnfoldAdminTextInputWidget
    )
    max_length = forms.IntegerField(
        required=False,
        min_value=0,
        label="Longest length",
        widget=UnfoldAdminTextInputWidget,
        help_text="Characters of a string, items of a list.",
    )
    on_violation = forms.ChoiceField(
        required=False,
        choices=OnViolation.choices,
        label="A row that breaks a rule",
        widget=UnfoldAdminSelectWidget,
        help_text="Quarantine: the row is kept aside. Set null: the value is taken away. Warn: it is only counted.",
    )

    @staticmethod
    def initial_rules(validation: dict[str, Any], dtype: str) -> dict[str, Any]:
        """What the fields show of rules that are stored."""
        return {**validation, "allowed_values": allowed_values_text(validation.get("allowed_values"), dtype)}

    def rules(self, stored: dict[str, Any], dtype: str) -> dict[str, Any]:
        """The rules that the form holds, without those that ask nothing; `stored` itself when it says the same."""
        given = {name: self.cleaned_data.get(name) for name in RULES}
        given["allowed_values"] = parse_allowed_values(given["allowed_values"] or "", dtype)
        # By identity: 0 equals False, and a smallest value of 0 is a rule.
        written = {name: value for name, value in given.items() if not (value is None or value is False or value == "")}
        if written.get("on_violation") == OnViolation.QUARANTINE:
            del written["on_violation"]
        return stored if _means(stored) == _means(written) else written


def _means(rules: dict[str, Any]) -> str:
    """Rules as one text: equal for rules that ask the same, and 1, 1.0 and true stay apart."""
    known = {name: value for name, value in rules.items() if name in RULES}
    return repr(Validation(**known)) + repr(sorted(rules.keys() - known.keys()))


def rules_in_words(validation: dict[str, Any]) -> str:
    """The rules on one line each, for somebody who may only look."""
    return "\n".join(f"{name.replace('_', ' ')}: {json.dumps(value)}" for name, value in validation.items()) or "none"
