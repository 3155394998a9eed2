"""What a name in the catalog may look like, and the field and the constraint that hold it."""

from __future__ import annotations

from django.core.validators import RegexValidator
from django.db import models
from django.db.models import Q

from engine.schema import RESERVED_NAMES

NAME_LENGTH = 63
NAME_PATTERN = r"^[a-z][a-z0-9_]{0,62}$"
NAME_RULE = "a lower-case letter, then up to 62 lower-case letters, digits or underscores"

validate_name = RegexValidator(NAME_PATTERN.replace("$", r"\Z"), f"A name is {NAME_RULE}.")


def name_field(**options: object) -> models.CharField[str, str]:
    return models.CharField(max_length=NAME_LENGTH, validators=[validate_name], **options)  # type: ignore[arg-type]


def name_constraint(model: str) -> models.CheckConstraint:
    return models.CheckConstraint(condition=Q(name__regex=NAME_PATTERN), name=f"{model}_name_is_valid")


def column_constraint(model: str) -> models.CheckConstraint:
    """A column may not take a name that every stored row has already."""
    return models.CheckConstraint(condition=~Q(name__in=sorted(RESERVED_NAMES)), name=f"{model}_name_is_free")
