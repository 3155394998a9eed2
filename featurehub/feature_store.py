"""The feature store in process: register, push, read and deprecate from Python, without a web server.

    from featurehub.feature_store import FeatureGroup, FeatureMetadata, FeatureStore, FeatureType

A process that uses it is a process of the hub: it opens the same database and the same stores, and calls the same
functions as HTTP, the commands and the admin. Outside Django it sets Django up; in the embedded stack it also
brings the database up to date and keeps the private Redis running until the process ends.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import pandas as pd
import polars as pl
import pyarrow as pa
import yaml

from engine.errors import InvalidInput, unknown_name
from engine.schema import EVENT_TIMESTAMP
from featurehub.metadata import (
    FeatureGroup,
    FeatureMetadata,
    FeatureStatus,
    FeatureTransformation,
    FeatureType,
    FeatureValidation,
    definitions_of,
    metadata_of,
)
from featurehub.opening import open_hub

if TYPE_CHECKING:
    from catalog import models
    from serving.training import Asked

Spine: TypeAlias = "pd.DataFrame | pl.DataFrame | pa.Table | str | Path"
Output = Literal["pandas", "polars", "arrow"]

__all__ = [
    "FeatureGroup",
    "FeatureMetadata",
    "FeatureStatus",
    "FeatureStore",
    "FeatureTransformation",
    "FeatureType",
    "FeatureValidation",
]


class FeatureStore:
    """The hub, from Python.

    redis_host, redis_port: the Redis of the online store; the configured one by default. Where nothing answers at a
    loopback address, the embedded stack's private Redis is used and a line says so; elsewhere that is Unavailable.
    """

    def __init__(self, name: str = "featurehub", redis_host: str | None = None, redis_port: int | None = None) -> None:
        self.name = name
        self._registered: dict[str, FeatureGroup] = {}
        open_hub(redis_host, redis_port)

    def register_feature_group(self, group: FeatureGroup) -> bool:
        """Make the catalog say what `group` says, statuses included; True when that changed something.

        Raises InvalidDefinition listing everything that is wrong with it.
        """
        from catalog import definitions

        document = definitions_of(group)
        local = {f"{group.name}:{f.name}" for f in group.features if _is_local(f)}
        with tempfile.NamedTemporaryFile("w", suffix=".yaml", prefix=f"{group.name}-", encoding="utf-8") as file:
            yaml.safe_dump(document, file, allow_unicode=True, sort_keys=False)
            file.flush()
            plan = definitions.apply([file.name], local=local, is_remembered=False)
        self._registered[group.name] = group
        return bool(plan.changes)

    def ingest_features(self, group_name: str, entity_id: str | int, data: Mapping[str, Any]) -> None:
        """Push one row: when this returns it is in the log, and online unless Redis is down.

        `data` holds the row's columns; `timestamp` is its event time (a naive one is local time; now if absent).
        Raises InvalidRows naming each column that is wrong, UnknownName for a group that does not exist.
        """
        from ingestion.push import find_target, push

        group = find_target(group_name)
        push(group, [_row(group, entity_id, data)], by=self.name, local=self._local(group_name))

    def get_online_features(
        self,
        group_name: str,
        entity_id: str | int,
        feature_names: Sequence[str] | None = None,
        *,
        request: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """One entity's features by name, None for what is null, missing or too old; `group_name` may be an entity.

        `request` has a value for each request input of the features that are computed on request; these are named in
        `feature_names`, which by default are all that are stored. Raises EntityNotFound when there is no row of it.
        """
        from serving.lookup import reading_entity
        from serving.steps import carried_out

        wanted = ",".join(feature_names) if feature_names else None
        steps = reading_entity(group_name, _escaped(str(entity_id)), features=wanted, request=request)
        found, labels = carried_out(steps)
        return dict(zip(labels, found.python_values()[0], strict=True))

    def get_offline_features(
        self, group_name: str, start: datetime | None = None, end: datetime | None = None
    ) -> pd.DataFrame | None:
        """The group's stored rows, oldest event first: join keys, event_timestamp, features. None without rows.

        `start` and `end` bound the event timestamp, both inclusive; naive ones are local time.
        """
        from serving.history import rows_of_group

        rows = rows_of_group(group_name, start=_aware(start), end=_aware(end))
        return None if rows is None else rows.to_pandas()

    def get_historical_features(
        self,
        spine: Spine,
        features: Sequence[str] | None = None,
        *,
        feature_service: str | None = None,
        event_timestamp: str = EVENT_TIMESTAMP,
        known_at: bool = False,
        statuses: bool = False,
        output: Output | Path = "pandas",
    ) -> Any:
        """The spine with the features (or a service's) as they were at each row's time, one row out per row in.

        spine:    a pandas or Polars frame, an Arrow table, or the path of a Parquet or CSV file; with a column for
                  each request input of features that are computed on request.
        statuses: adds a column `<feature>__status` per feature: a stored null is not the same as a value too old.
        output:   "pandas", "polars" or "arrow"; or a Parquet file to write, and the answer is its manifest.
        """
        from serving import spines, training

        asked = _asked(features, feature_service)
        table = _arrow(spine)
        if isinstance(output, Path):
            recipe = training.plan(
                asked,
                spines.columns_of(table),
                event_timestamp=event_timestamp,
                known_at=known_at,
                statuses=statuses,
            )
            return training.write(recipe, table, output).as_json()
        joined = training.build(asked, table, event_timestamp=event_timestamp, known_at=known_at, statuses=statuses)
        return _as(joined, output)

    def get_latest_features(
        self,
        features: Sequence[str] | None = None,
        *,
        feature_service: str | None = None,
        as_of: datetime | None = None,
        statuses: bool = False,
        output: Output = "pandas",
    ) -> Any:
        """The newest row of every entity as of a moment (now if absent; naive ones are local time), without a spine."""
        from serving import training

        asked = _asked(features, feature_service)
        return _as(training.latest(asked, _aware(as_of) or datetime.now(UTC), statuses=statuses), output)

    def get_spine(
        self,
        group_name: str,
        labels: Sequence[str] = (),
        *,
        start: datetime | None = None,
        end: datetime | None = None,
        output: Output = "pandas",
    ) -> Any:
        """A spine of a group's own rows, some of its columns beside them as labels.

        Bounds are as in `get_offline_features`.
        """
        from serving import spines

        return _as(spines.of_group(group_name, labels=labels, start=_aware(start), end=_aware(end)), output)

    def list_features(self, entity: str | None = None, status: FeatureStatus | None = None) -> list[FeatureMetadata]:
        """The features of the groups registered through this object, all of the catalog's when there is none."""
        found = self._features()
        if entity is not None:
            found = found.filter(group__entity__name=entity)
        listed = [metadata_of(feature) for feature in found]
        return [feature for feature in listed if status in (None, feature.status)]

    def get_feature_metadata(self, feature_name: str, entity: str) -> FeatureMetadata | None:
        """What the catalog says of a feature now; None when the entity has none of that name."""
        found = self._find(feature_name, entity)
        return None if found is None else metadata_of(found)

    def deprecate_feature(
        self, feature_name: str, entity: str, reason: str = "", replaced_by: str | None = None
    ) -> None:
        """Tell readers to stop using a feature; it is served on. Raises UnknownName, Conflict."""
        from catalog.lifecycle import change_status
        from catalog.models import Feature, Status

        found = self._find(feature_name, entity)
        if found is None:
            names = Feature.objects.filter(group__entity__name=entity).values_list("name", flat=True)
            raise unknown_name(f"feature of {entity}", feature_name, names)
        replacement = self._find(replaced_by, entity) if replaced_by else None
        change_status(found, Status.DEPRECATED, by=self.name, reason=reason, replaced_by=replacement)

    def _features(self) -> Any:
        from catalog.models import Feature

        related = ("group__entity", "owner", "group__owner")
        found = Feature.objects.select_related(*related).prefetch_related("tags")
        return found.filter(group__name__in=list(self._registered)) if self._registered else found

    def _find(self, name: str, entity: str) -> models.Feature | None:
        """The feature among the registered groups first, then the only one of the entity's."""
        from catalog.api import find_feature
        from engine.errors import NotFound

        if mine := self._features().filter(name=name, group__entity__name=entity).first():
            return cast("models.Feature", mine)
        try:
            return find_feature(entity, name)
        except NotFound:
            return None

    def _local(self, group_name: str) -> dict[str, Callable[..., object]]:
        group = self._registered.get(group_name)
        features = group.features if group else []
        return {f.name: f.transformation.transformation_fn for f in features if _is_local(f)}  # type: ignore[union-attr, misc]


def _asked(features: Sequence[str] | None, feature_service: str | None) -> Asked:
    from serving.training import Asked

    if (features is None) == (feature_service is None):
        raise InvalidInput("Ask for one of features and feature_service.")
    return Asked(feature_service or "", tuple(features or ()))


def _arrow(spine: Spine) -> pa.Table | Path:
    if isinstance(spine, pd.DataFrame):
        return pa.Table.from_pandas(spine, preserve_index=False)
    if isinstance(spine, pl.DataFrame):
        return spine.to_arrow()
    return Path(spine) if isinstance(spine, str) else spine


def _as(table: pa.Table, output: Output) -> Any:
    if output == "pandas":
        return table.to_pandas()
    if output == "polars":
        return pl.from_arrow(table)
    if output == "arrow":
        return table
    raise InvalidInput(f"output is pandas, polars, arrow or a Path; got {output!r}.")


def _is_local(feature: FeatureMetadata) -> bool:
    how = feature.transformation
    return how is not None and how.transformation_fn is not None and how.sql_query is None


def _row(group: models.FeatureGroup, entity_id: str | int, data: Mapping[str, Any]) -> dict[str, Any]:
    keys = group.entity.key_fields()
    if len(keys) != 1:
        raise InvalidInput(f"{group.entity} has several join keys; push its rows with all of them.")
    row = {name: value for name, value in data.items() if name not in ("entity_id", "timestamp")}
    row[keys[0].name] = entity_id
    when = data.get("timestamp", row.get(group.event_timestamp))
    row[group.event_timestamp] = _instant(when).isoformat()
    return row


def _instant(when: object) -> datetime:
    if when is None:
        return datetime.now(UTC)
    if isinstance(when, str):
        try:
            when = datetime.fromisoformat(when)
        except ValueError as error:
            raise InvalidInput(f"timestamp {when!r} is not an ISO 8601 time.") from error
    if not isinstance(when, datetime):
        raise InvalidInput(f"timestamp is a datetime or ISO 8601 text; got {when!r}.")
    return cast(datetime, _aware(when))


def _aware(when: datetime | None) -> datetime | None:
    """The instant; a naive one is local time."""
    return None if when is None else when.astimezone(UTC)


def _escaped(entity_id: str) -> str:
    return entity_id.replace("~", "~t").replace(",", "~c").replace("/", "~s")
