"""Features and groups as a Python program writes them down, and the definitions file that says the same."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Any

from engine.errors import InvalidInput

if TYPE_CHECKING:
    from catalog import models


class FeatureType(Enum):
    """What a value means to people."""

    NUMERICAL = "numerical"
    CATEGORICAL = "categorical"
    BOOLEAN = "boolean"
    TIMESTAMP = "timestamp"
    TEXT = "text"
    EMBEDDING = "embedding"


class FeatureStatus(Enum):
    DRAFT = "draft"
    ACTIVE = "active"
    DEPRECATED = "deprecated"
    ARCHIVED = "archived"


_DTYPES = {
    FeatureType.NUMERICAL: "float64",
    FeatureType.CATEGORICAL: "string",
    FeatureType.BOOLEAN: "bool",
    FeatureType.TIMESTAMP: "timestamp",
    FeatureType.TEXT: "string",
}


@dataclass
class FeatureTransformation:
    """How a feature is computed: `sql_query` is an expression that every process of the hub can compute.

    `transformation_fn` takes a dict with the given columns of one row; it runs only in the process that holds it.
    `source_features` names what it reads; a name that is no feature of the group becomes an input (float64).
    """

    name: str
    description: str
    source_features: list[str]
    transformation_fn: Callable[[dict[str, Any]], Any] | None = None
    sql_query: str | None = None


@dataclass
class FeatureValidation:
    """Rules that a pushed value must satisfy; a value that breaks one is refused. Bounds are inclusive."""

    min_value: float | None = None
    max_value: float | None = None
    allowed_values: list[Any] | None = None
    not_null: bool = True
    unique: bool = False


@dataclass
class FeatureMetadata:
    """One feature. Without a `dtype` its type decides: numerical is float64; an embedding needs one.

    `owner` is an owner's name, or an e-mail address by which an owner is found or made. `version` is kept as given and
    has no effect: groups have versions.
    """

    name: str
    description: str
    feature_type: FeatureType
    entity: str
    owner: str = ""
    tags: list[str] = field(default_factory=list)
    created_at: datetime | None = None
    updated_at: datetime | None = None
    status: FeatureStatus = FeatureStatus.DRAFT
    version: str = "1.0.0"
    transformation: FeatureTransformation | None = None
    validation: FeatureValidation | None = None
    dtype: str = ""

    def __post_init__(self) -> None:
        self.dtype = self.dtype or _DTYPES.get(self.feature_type, "")
        if not self.dtype:
            raise InvalidInput(f"{self.name} is an embedding: it needs a dtype, such as embedding(64).")


@dataclass
class FeatureGroup:
    """Features of one entity that are pushed together. A new entity gets the join key `<entity>_id`, a string."""

    name: str
    entity: str
    description: str = ""
    features: list[FeatureMetadata] = field(default_factory=list)
    created_at: datetime | None = None

    def add_feature(self, feature: FeatureMetadata) -> None:
        if feature.entity != self.entity:
            raise InvalidInput(f"{feature.name} describes {feature.entity}; the group {self.name} is of {self.entity}.")
        self.features.append(feature)


def metadata_of(feature: models.Feature) -> FeatureMetadata:
    """What the catalog says of a feature."""
    owner = feature.owner or feature.group.owner
    return FeatureMetadata(
        name=feature.name,
        description=feature.description,
        feature_type=FeatureType(feature.type),
        entity=feature.group.entity.name,
        owner=(owner.email or owner.name) if owner else "",
        tags=[tag.name for tag in feature.tags.all()],
        created_at=feature.created_at,
        updated_at=feature.updated_at,
        status=FeatureStatus(str(feature.effective_status)),
        version=str(feature.group.version),
        dtype=feature.dtype,
    )


def definitions_of(group: FeatureGroup) -> dict[str, Any]:
    """A group as the document of a definitions file, with the owners and the entity that it needs."""
    from catalog.models import Entity

    owners = {feature.owner: _owner(feature.owner) for feature in group.features if feature.owner}
    document: dict[str, Any] = {
        "owners": [{"name": name, "email": mail} for mail, (name, is_new) in owners.items() if is_new],
        "feature_groups": [_group_definition(group, {given: name for given, (name, _) in owners.items()})],
    }
    if not Entity.objects.filter(name=group.entity).exists():
        keys = [{"name": f"{group.entity}_id", "dtype": "string"}]
        document["entities"] = [{"name": group.entity, "join_keys": keys}]
    return {key: value for key, value in document.items() if value}


def _owner(given: str) -> tuple[str, bool]:
    """The name of the owner meant by a name or an e-mail address, and whether it is to be made."""
    from catalog.models import Owner

    if "@" not in given:
        return given, False
    if known := Owner.objects.filter(email=given).first():
        return known.name, False
    name = re.sub(r"[^a-z0-9]+", "_", given.partition("@")[0].lower()).strip("_")
    name = name if name[:1].isalpha() else f"owner_{name}"
    taken = set(Owner.objects.filter(name__startswith=name).values_list("name", flat=True))
    free = next(n for n in [name, *(f"{name}_{number}" for number in range(2, 10_000))] if n not in taken)
    return free, True


def _group_definition(group: FeatureGroup, owners: Mapping[str, str]) -> dict[str, Any]:
    names = {feature.name for feature in group.features}
    read = [n for f in group.features if f.transformation for n in f.transformation.source_features if n not in names]
    return {
        "name": group.name,
        "entity": group.entity,
        "description": group.description,
        "status": "active",
        "inputs": [{"name": name, "dtype": "float64"} for name in dict.fromkeys(read)],
        "features": [_feature_definition(feature, owners) for feature in group.features],
    }


def _feature_definition(feature: FeatureMetadata, owners: Mapping[str, str]) -> dict[str, Any]:
    definition = {
        "name": feature.name,
        "description": feature.description,
        "dtype": feature.dtype,
        "type": feature.feature_type.value,
        "status": feature.status.value,
        "tags": feature.tags,
        "validation": _rules(feature.validation or FeatureValidation()),
    }
    if feature.owner:
        definition["owner"] = owners[feature.owner]
    if how := feature.transformation:
        definition["transformation"] = {"expression": how.sql_query} if how.sql_query else {"local": how.name}
    return definition


def _rules(validation: FeatureValidation) -> dict[str, Any]:
    given = {name: getattr(validation, name) for name in FeatureValidation.__dataclass_fields__}
    return {name: value for name, value in given.items() if value not in (None, False)}
