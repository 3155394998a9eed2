"""Drift: what applying the files again, as they were last applied, would change; somebody changed that elsewhere."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from django.utils import timezone

from catalog.definitions.document import Definition, Document
from catalog.definitions.exporting import written_yaml
from catalog.definitions.planning import Plan, plan_of
from catalog.definitions.reading import read_texts
from catalog.models import AppliedDefinition

_LONGEST_FILE = 255


def remember(document: Document, *, by: str = "") -> None:
    """Keep what was applied, each definition in place of what was kept of it; inside the apply's transaction."""
    now = timezone.now()
    for kind, name, text, file in _texts(document):
        AppliedDefinition.objects.update_or_create(
            kind=kind,
            name=name,
            defaults={
                "text": text,
                "sha256": hashlib.sha256(text.encode()).hexdigest(),
                "file": file[-_LONGEST_FILE:],
                "applied_by": by,
                "applied_at": now,
            },
        )


def drift() -> Plan:
    """The plan of everything that was last applied; without changes the catalog is what the files said.

    What files never named is no drift, and neither is a status that they leave to the catalog. Raises InvalidDefinition
    where applying them again would be refused: that is drift, too.
    """
    kept = AppliedDefinition.objects.all()
    return plan_of(read_texts({f"{one.kind} {one.name}": one.text for one in kept}))


def _texts(document: Document) -> Iterator[tuple[str, str, str, str]]:
    """(kind, name, text, file) of each definition; a group's features are in its text."""
    keys = {id(made): key for key in Document.model_fields for made in getattr(document, key)}
    for kind, name, made in document.each():
        if id(made) in keys:
            yield kind, name, written_yaml({keys[id(made)]: [_as_written(made)]}), made.place.file


def _as_written(made: Definition) -> object:
    """With every key that the file had, also where it is the default: an absent status means the catalog's."""
    return made.model_dump(exclude_unset=True, exclude_none=True)
