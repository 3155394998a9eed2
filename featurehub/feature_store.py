"""The feature store in process: register, push, read and deprecate from Python, without a web server.

    from featurehub.feature_store import FeatureGroup, FeatureMetadata, FeatureStore, FeatureType

A process that uses it is a process of the hub: it opens the same database and the same stores, and calls the same
functions as HTTP, the commands and the admin. Outside Django it sets Django up; in the embedded stack it also
brings the database up to date and keeps the private Redis running until the process ends.
"""

from __future__ import annotations

import atexit
import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, cast

import pandas as pd
import pyarrow as pa
import yaml

from engine.errors import InvalidInput, Unavailable, unknown_name
from engine.schema import EVENT_TIMESTAMP
from featurehub.environment import is_loopback

if TYPE_CHECKING:
    from catalog import models

_DEFAULT_REDIS_PORT = 6379


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


class FeatureStore:
    """The hub, from Python.

    redis_host, redis_port: the Redis of the online store; the configured one by default. Where nothing answers at a
    loopback address, the embedded stack's private Redis is used and a line says so; elsewhere that is Unavailable.
    """

    def __init__(self, name: str = "featurehub", redis_host: str | None = None, redis_port: int | None = None) -> None:
        self.name = name
        self._registered: dict[str, FeatureGroup] = {}
        _open(redis_host, redis_port)

    def register_feature_group(self, group: FeatureGroup) -> bool:
        """Make the catalog say what `group` says, statuses included; True when that changed something.

        Raises InvalidDefinition listing everything that is wrong with it.
        """
        from catalog import definitions

        document = _definitions(group)
        local = {f"{group.name}:{f.name}" for f in group.features if _is_local(f)}
        with tempfile.NamedTemporaryFile("w", suffix=".yaml", prefix=f"{group.name}-", encoding="utf-8") as file:
            yaml.safe_dump(document, file, allow_unicode=True, sort_keys=False)
            file.flush()
            plan = definitions.apply([file.name], local=local)
        self._registered[group.name] = group
        return bool(plan.changes)

    def ingest_features(self, group_name: str, entity_id: str | int, data: Mapping[str, Any]) -> None:
        """Push one row: when this returns it is in the log, and online unless Redis is down.

        `data` holds the row's columns; `timestamp` is its event time (a naive one is local time; now if absent).
        Raises InvalidRows naming each column that is wrong, UnknownName for a group that does not exist.
        """
        from ingestion.push import find_group, push

        group = find_group(group_name)
        push(group, [_row(group, entity_id, data)], by=self.name, local=self._local(group_name))

    def get_online_features(
        self, group_name: str, entity_id: str | int, feature_names: Sequence[str] | None = None
    ) -> dict[str, Any]:
        """One entity's features by name, None for what is null, missing or too old; `group_name` may be an entity.

        Raises EntityNotFound when there is no row of it.
        """
        from serving.lookup import read_entity

        wanted = ",".join(feature_names) if feature_names else None
        found, labels = read_entity(group_name, _escaped(str(entity_id)), features=wanted)
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
        spine: pd.DataFrame | pa.Table,
        features: Sequence[str] | None = None,
        *,
        feature_service: str | None = None,
        event_timestamp: str = EVENT_TIMESTAMP,
        known_at: bool = False,
    ) -> pd.DataFrame:
        """The spine with the features (or a service's) as they were at each row's time, one row out per row in."""
        from serving.training import Asked, build

        if (features is None) == (feature_service is None):
            raise InvalidInput("Ask for one of features and feature_service.")
        asked = Asked(feature_service or "", tuple(features or ()))
        table = pa.Table.from_pandas(spine, preserve_index=False) if isinstance(spine, pd.DataFrame) else spine
        joined = build(asked, table, event_timestamp=event_timestamp, known_at=known_at)
        return cast(pa.Table, joined).to_pandas()

    def list_features(self, entity: str | None = None, status: FeatureStatus | None = None) -> list[FeatureMetadata]:
        """The features of the groups registered through this object, all of the catalog's when there is none."""
        found = self._features()
        if entity is not None:
            found = found.filter(group__entity__name=entity)
        listed = [_metadata(feature) for feature in found]
        return [feature for feature in listed if status in (None, feature.status)]

    def get_feature_metadata(self, feature_name: str, entity: str) -> FeatureMetadata | None:
        """What the catalog says of a feature now; None when the entity has none of that name."""
        found = self._find(feature_name, entity)
        return None if found is None else _metadata(found)

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


def _is_local(feature: FeatureMetadata) -> bool:
    how = feature.transformation
    return how is not None and how.transformation_fn is not None and how.sql_query is None


def _open(redis_host: str | None, redis_port: int | None) -> None:
    """Set Django up if nobody did, choose the Redis, and have the online store filled."""
    import django
    from django.apps import apps
    from django.conf import settings

    if not apps.ready:
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "featurehub.settings")
        django.setup()
    if settings.EMBEDDED:
        _open_embedded(redis_host, redis_port)
    elif redis_host is not None:
        _use_redis(redis_host, redis_port or _DEFAULT_REDIS_PORT)
    from ingestion.materialize import ensure_warm

    ensure_warm()


def _open_embedded(redis_host: str | None, redis_port: int | None) -> None:
    from featurehub import preparation

    preparation.bring_database_up_to_date()
    if redis_host is not None:
        port = redis_port or _DEFAULT_REDIS_PORT
        try:
            _use_redis(redis_host, port)
            return
        except Unavailable:
            if not is_loopback(redis_host):
                raise
            print(f"No Redis answers at {redis_host}:{port}; using the embedded stack's own.")
    _keep_private_redis()


def _use_redis(host: str, port: int) -> None:
    """Make the Redis at this address the online store of this process; raises Unavailable when none answers."""
    from django.conf import settings

    from catalog import stores
    from engine.online.store import OnlineStore

    url = f"redis://{f'[{host}]' if ':' in host else host}:{port}/0"
    OnlineStore(url, settings.FEATUREHUB_KEY_PREFIX).ping()
    settings.ONLINE_REDIS_URL = url
    stores.online.cache_clear()


_held = ExitStack()
atexit.register(_held.close)


def _keep_private_redis() -> None:
    """Have the private Redis run until this process ends; a second FeatureStore shares the hold of the first."""
    from featurehub import embedded

    if not _held._exit_callbacks:  # type: ignore[attr-defined]
        _held.enter_context(embedded.redis())


def _definitions(group: FeatureGroup) -> dict[str, Any]:
    """A group as the document of a definitions file."""
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


def _metadata(feature: models.Feature) -> FeatureMetadata:
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
