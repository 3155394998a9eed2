"""Definitions in words: what a rule asks, how a value is computed."""

from __future__ import annotations

from typing import Any

from catalog.models import Feature, OnViolation
from catalog.pages.lineage import reads_of
from engine.validation import Validation

_ON_VIOLATION = {
    OnViolation.QUARANTINE: "The row is quarantined.",
    OnViolation.SET_NULL: "The value is taken away, and null is stored.",
    OnViolation.WARN: "The row is kept, and the run counts it.",
}


def rules_of(feature: Feature) -> list[str]:
    """What the feature's validation asks, a sentence each; empty when it asks nothing."""
    # By identity: 0 equals False, and a smallest value of 0 is a rule.
    asked = {name: value for name, value in feature.validation.items() if value is not None and value is not False}
    return [_SENTENCES[name](value) for name, value in asked.items() if name in _SENTENCES]


def on_violation(feature: Feature) -> str:
    """What becomes of a row that breaks a rule."""
    return _ON_VIOLATION[OnViolation(feature.validation.get("on_violation") or Validation().on_violation)]


_SENTENCES: dict[str, Any] = {
    "not_null": lambda _: "Never null.",
    "unique": lambda _: "Unique within a run.",
    "min_value": lambda value: f"At least {value}.",
    "max_value": lambda value: f"At most {value}.",
    "allowed_values": lambda values: f"One of {', '.join(map(str, values))}." if values else "No value is allowed.",
    "regex": lambda pattern: f"Matches {pattern} as a whole.",
    "min_length": lambda length: f"Length at least {length}.",
    "max_length": lambda length: f"Length at most {length}.",
}


def computed_by(feature: Feature) -> str:
    """How a value comes about, in a few words."""
    if feature.expression:
        return "SQL expression"
    if feature.function:
        return "Python function, called once a row" if feature.rowwise else "Python function, called once a batch"
    if feature.local:
        return "Python object of the process that registered it; the server cannot ingest it"
    return "The source's column, as it is"


def reads_in_order(feature: Feature) -> list[str]:
    return sorted(reads_of(feature))
