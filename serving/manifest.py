"""What a training dataset was made of: enough to make it again, bit for bit, whatever has been ingested since.

A manifest names each file of the history by its SHA-256 and not only the table's version: logs of old versions are
cleaned away after a day. It is JSON, described in docs/formats/dataset.md.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self

from catalog import stores
from catalog.models import StoredSchema
from engine.errors import InvalidInput
from engine.offline.log import LoggedFile
from engine.on_request import Computation
from engine.pointintime.rule import GroupHistory, HistoryFeature, OnRequest
from engine.schema import Dtype, FeatureColumn, Field, Transformation

#: Of a manifest with features that are computed on request; without them it is written as the format before.
FORMAT, FORMAT_BEFORE = 2, 1
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class GroupPart:
    """One group as it is joined: its version, the Delta version of its table, the files, and what is taken from them.

    definition: SHA-256 of the schemas that its rows were written under (see `definition_of`).
    """

    group: str
    version: int
    delta_version: int
    definition: str
    keys: tuple[Field, ...]
    ttl: timedelta | None
    files: tuple[LoggedFile, ...]
    features: tuple[HistoryFeature, ...]

    def history(self) -> GroupHistory:
        """The same for an engine. Raises CorruptData naming a file that is not as it was committed."""
        table = stores.offline(self.group, self.version)
        return GroupHistory(self.group, tuple(table.whole(self.files)), self.keys, self.ttl, self.features)

    def as_json(self) -> dict[str, Any]:
        return {
            "group": self.group,
            "version": self.version,
            "delta_version": self.delta_version,
            "definition_sha256": self.definition,
            "join_keys": [[key.name, str(key.dtype)] for key in self.keys],
            "ttl_us": None if self.ttl is None else self.ttl // _MICROSECOND,
            "files": [
                {"name": file.name, "size": file.size, "rows": file.rows, "sha256": file.sha256} for file in self.files
            ],
            "features": [
                {
                    "name": feature.name,
                    "output": feature.output,
                    "dtype": str(feature.dtype),
                    "schema_ids": None if feature.schema_ids is None else sorted(feature.schema_ids),
                }
                for feature in self.features
            ],
        }

    @classmethod
    def from_json(cls, made: Mapping[str, Any]) -> Self:
        return cls(
            made["group"],
            made["version"],
            made["delta_version"],
            made["definition_sha256"],
            tuple(Field(name, Dtype.parse(dtype)) for name, dtype in made["join_keys"]),
            None if made["ttl_us"] is None else made["ttl_us"] * _MICROSECOND,
            tuple(LoggedFile(f["name"], f["size"], f["rows"], f["sha256"]) for f in made["files"]),
            tuple(
                HistoryFeature(
                    f["name"],
                    f["output"],
                    Dtype.parse(f["dtype"]),
                    None if f["schema_ids"] is None else frozenset(f["schema_ids"]),
                )
                for f in made["features"]
            ),
        )


@dataclass(frozen=True, slots=True)
class Recipe:
    """A dataset before it is made: `order` is the features' output names in the order of the result.

    on_request: those of them that are computed from the others and the spine, with their definitions.
    """

    service: str
    features: tuple[str, ...]
    order: tuple[str, ...]
    groups: tuple[GroupPart, ...]
    event_timestamp: str
    known_at: bool
    statuses: bool
    on_request: tuple[OnRequest, ...] = ()


@dataclass(frozen=True, slots=True)
class Made:
    """What came of it: the hashes are over logical rows (engine/content_hash.py), `nulls` counts them per column."""

    rows: int
    spine_sha256: str
    sha256: str
    columns: tuple[tuple[str, str], ...]
    nulls: dict[str, int]
    engine: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """A recipe and what came of it."""

    recipe: Recipe
    made: Made

    def as_json(self) -> dict[str, Any]:
        recipe, made = self.recipe, self.made
        return {
            "format": FORMAT if recipe.on_request else FORMAT_BEFORE,
            "feature_service": recipe.service or None,
            "features": list(recipe.features),
            "outputs": list(recipe.order),
            "event_timestamp": recipe.event_timestamp,
            "known_at": recipe.known_at,
            "statuses": recipe.statuses,
            "groups": [part.as_json() for part in recipe.groups],
            **({"on_request": [_computed_as_json(one) for one in recipe.on_request]} if recipe.on_request else {}),
            "spine": {"rows": made.rows, "sha256": made.spine_sha256},
            "result": {
                "rows": made.rows,
                "sha256": made.sha256,
                "columns": [list(column) for column in made.columns],
                "nulls": made.nulls,
            },
            "engine": made.engine,
        }

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Self:
        """Raises InvalidInput for what is no manifest, or one of a newer format."""
        try:
            if said["format"] not in (FORMAT, FORMAT_BEFORE):
                raise InvalidInput(
                    f"The manifest has format {said['format']!r}; this version reads {FORMAT_BEFORE} and {FORMAT}."
                )
            recipe = Recipe(
                said["feature_service"] or "",
                tuple(said["features"]),
                tuple(said["outputs"]),
                tuple(GroupPart.from_json(part) for part in said["groups"]),
                said["event_timestamp"],
                said["known_at"],
                said["statuses"],
                tuple(_computed_from_json(one) for one in said.get("on_request", ())),
            )
            result = said["result"]
            columns = tuple((name, kind) for name, kind in result["columns"])
            made = Made(
                result["rows"], said["spine"]["sha256"], result["sha256"], columns, result["nulls"], said["engine"]
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInput(f"This is no manifest of a training dataset: {error!r}.") from error
        return cls(recipe, made)


def _computed_as_json(one: OnRequest) -> dict[str, Any]:
    outputs, computation = dict(one.outputs), one.computation
    return {
        "group": computation.group,
        "request_inputs": [[field.name, str(field.dtype)] for field in computation.request_inputs],
        "reads": [
            {"name": field.name, "dtype": str(field.dtype), "joined_as": joined}
            for field, joined in zip(computation.stored, one.stored, strict=True)
        ],
        "features": [
            {
                "name": feature.name,
                "dtype": str(feature.dtype),
                "expression": feature.transformation.expression if feature.transformation else "",
                "output": outputs.get(feature.name),
            }
            for feature in computation.features
        ],
    }


def _computed_from_json(made: Mapping[str, Any]) -> OnRequest:
    computation = Computation(
        made["group"],
        tuple(Field(name, Dtype.parse(dtype)) for name, dtype in made["request_inputs"]),
        tuple(Field(read["name"], Dtype.parse(read["dtype"])) for read in made["reads"]),
        tuple(
            FeatureColumn(f["name"], Dtype.parse(f["dtype"]), Transformation(f["expression"])) for f in made["features"]
        ),
    )
    outputs = tuple((f["name"], f["output"]) for f in made["features"] if f["output"] is not None)
    return OnRequest(computation, tuple(read["joined_as"] for read in made["reads"]), outputs)


def definition_of(group: str, version: int) -> str:
    """SHA-256 of the schemas that rows of a group version were written under: what its values mean."""
    stored = StoredSchema.objects.filter(group__name=group, version=version).order_by("number")
    schemas = [[number, columns] for number, columns in stored.values_list("number", "columns")]
    return hashlib.sha256(json.dumps(schemas, sort_keys=True).encode()).hexdigest()


def differences(old: Manifest, new: Manifest) -> Sequence[str]:
    """In what two manifests of one recipe differ, in words; none when the datasets hold the same rows."""
    pairs = {
        "the spine's rows": (old.made.spine_sha256, new.made.spine_sha256),
        "the columns": (old.made.columns, new.made.columns),
        "the result's rows": (old.made.sha256, new.made.sha256),
    }
    return [f"{what}: {before} before, {now} now" for what, (before, now) in pairs.items() if before != now]
