"""Training datasets: a spine joined with features as they were at each row's time.

`build` answers a table, `write` makes a file and its manifest, by which it can be made again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from django.conf import settings

from catalog import snapshot, stores
from catalog.snapshot import Catalog, FeatureSnapshot
from engine.content_hash import ContentHash
from engine.errors import InvalidInput
from engine.pointintime import duckdb
from engine.pointintime.rule import (
    RESERVED_PREFIX,
    STATUS_SUFFIX,
    HistoryFeature,
    OnRequest,
    with_statuses,
)
from engine.pointintime.spine import Spine, check_spine
from engine.schema import EVENT_TIMESTAMP, Field
from engine.spark.installed import require_spark
from engine.status import NOT_FOUND
from serving import spines
from serving.manifest import GroupPart, Made, Manifest, Recipe, definition_of
from serving.names import find_service
from serving.plan import ComputedRead, Plan
from serving.vectors import MakePlan, of_features, of_service

MEMORY_LIMIT = "2GB"

Engine = Literal["duckdb", "spark"]
#: Called with the rows of each batch that was made, and with None when the join came further; see `write`.
Follow = Callable[[int | None], None]
#: A join that answers its result and the engine's name.
Join = Callable[..., tuple[Any, str]]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a dataset is made of: exactly one of a service (`name` or `name@2`) and feature names."""

    service: str = ""
    features: tuple[str, ...] = ()

    def make_plan(self) -> MakePlan:
        return of_service(self.service) if self.service else of_features(self.features)


def build(
    asked: Asked,
    spine: pa.Table | Path,
    *,
    event_timestamp: str = EVENT_TIMESTAMP,
    known_at: bool = False,
    statuses: bool = False,
) -> pa.Table:
    """The spine's rows in their order with the asked features beside them; see engine/pointintime/rule.py.

    spine: an Arrow table, or the path of a Parquet or CSV file.

    Columns are called by their bare feature name, `group__name` where that clashes with another feature or a column of
    the spine. Rows that were pushed before the call are part of the history. Raises InvalidSpine, and what a read of
    these features raises for unknown, draft and archived ones.
    """
    recipe = plan(
        asked, spines.columns_of(spine), event_timestamp=event_timestamp, known_at=known_at, statuses=statuses
    )
    return _join(recipe, spine, _on_duckdb)[0]


def latest(asked: Asked, when: datetime, *, statuses: bool = False) -> pa.Table:
    """The newest row per entity as of a moment: join keys, event_timestamp (the moment), the features; sorted by key.

    Entities of which nothing is found then (no row yet, or deleted) are left out. Raises as `build` does, and
    InvalidInput for features of several entities.
    """
    catalog = snapshot.load()
    features = asked.make_plan()(catalog).features
    if computed := [feature.full_name for feature in features if feature.on_request]:
        raise InvalidInput(f"{', '.join(computed)}: computed from values of a request, so a spine has to bring them.")
    groups = list(dict.fromkeys(feature.group for feature in features))
    stores.history_wanted.send(latest, groups=groups)
    joined = build(asked, spines.of_moment(groups, when, catalog), statuses=True)
    told = joined.schema.names[-len(features) :]
    found = pc.invert(reduce(pc.and_, [pc.equal(joined[name], NOT_FOUND) for name in told]))
    return joined.filter(found) if statuses else joined.filter(found).drop_columns(told)


def require_engine(engine: Engine) -> None:
    """Raises InvalidInput, saying what to install, for an engine that is not here: to be asked before any work."""
    if engine == "spark":
        require_spark()


def write(
    recipe: Recipe,
    spine: pa.Table | Path,
    output: Path,
    *,
    follow: Follow = lambda _: None,
    engine: Engine = "duckdb",
) -> Manifest:
    """Write the dataset of a recipe to a Parquet file, which appears whole or not at all; its manifest.

    With "spark" the join is done by this process's Spark session, which is made by Spark's own settings if there is
    none; every engine makes the same rows.

    `follow` is called with the rows of each batch that was made, and with None whenever the join came further: after
    each group, on Spark each second. What it raises ends the work. Raises as `build` does, CorruptData when a file of
    the history is not there any more, and InvalidInput for an engine that is not here.
    """
    if not output.parent.is_dir():
        raise InvalidInput(f"There is no folder {output.parent} to write {output.name} into.")
    content: ContentHash | None = None

    def follow_both(batch: pa.RecordBatch | None) -> None:
        nonlocal content
        if batch is not None:
            content = content or ContentHash(batch.schema)
            content.update(batch)
        follow(None if batch is None else batch.num_rows)

    require_engine(engine)
    join = _on_spark if engine == "spark" else _on_duckdb
    rows, made_by = _join(recipe, spine, join, output=output, follow=follow_both)
    schema = pq.read_schema(output)
    return Manifest(recipe, _made(content or ContentHash(schema), schema, recipe, rows, made_by))


def _made(content: ContentHash, schema: pa.Schema, recipe: Recipe, rows: int, made_by: str) -> Made:
    added = [*recipe.order, *(name + STATUS_SUFFIX for name in recipe.order if recipe.statuses)]
    spine = [name for name in schema.names if name not in added]
    return Made(
        rows,
        content.hexdigest(spine),
        content.hexdigest(),
        tuple((field.name, str(field.type)) for field in schema),
        {name: content.nulls(name) for name in schema.names},
        made_by,
    )


def _join(recipe: Recipe, spine: pa.Table | Path, join: Join, **how: Any) -> tuple[Any, str]:
    """The table or number of rows that an engine answers, and what it calls itself."""
    keys = dict.fromkeys(key for part in recipe.groups for key in part.keys)
    sent = dict.fromkeys(field for one in recipe.on_request for field in one.computation.request_inputs)
    return join(
        spines.opened(spine, recipe.event_timestamp, list(keys), list(sent)),
        [part.history() for part in recipe.groups],
        event_timestamp=recipe.event_timestamp,
        known_at=recipe.known_at,
        statuses=recipe.statuses,
        order=recipe.order,
        on_request=recipe.on_request,
        temp_directory=Path(settings.FEATUREHUB_HOME) / "tmp",
        **how,
    )


def _on_duckdb(*asked: Any, **how: Any) -> tuple[Any, str]:
    return duckdb.join(*asked, memory_limit=MEMORY_LIMIT, **how), duckdb.ENGINE


def _on_spark(*asked: Any, **how: Any) -> tuple[Any, str]:
    # Here, since a hub that joins on one machine has no pyspark (requirements-spark.txt).
    from engine.pointintime import spark
    from engine.spark.session import opened

    return spark.join(*asked, session=opened(), **how), spark.ENGINE


def plan(
    asked: Asked,
    spine: Sequence[str],
    *,
    event_timestamp: str = EVENT_TIMESTAMP,
    known_at: bool = False,
    statuses: bool = False,
) -> Recipe:
    """The recipe of a dataset whose spine has these columns, over what its groups hold now.

    Raises what a read of these features raises for unknown, draft and archived ones.
    """
    catalog = snapshot.load()
    online = asked.make_plan()(catalog)
    features = online.features
    service = find_service(asked.service, catalog) if asked.service else None
    names = output_names(features, spine)
    stores.history_wanted.send(plan, groups=list(dict.fromkeys(feature.group for feature in features)))
    joined = _joined(online, names, catalog)
    return Recipe(
        f"{service.name}@{service.version}" if service else "",
        tuple(feature.full_name for feature in features),
        tuple(names),
        tuple(_parts(dict.fromkeys(feature.group for feature in features), joined, catalog)),
        event_timestamp,
        known_at,
        statuses,
        tuple(_on_request(one, joined, names) for one in online.computed),
    )


def _joined(online: Plan, names: Sequence[str], catalog: Catalog) -> dict[FeatureSnapshot, str]:
    """What is taken from the groups' history and what it is called: the stored features that are asked for, and those
    that only what is computed on request reads."""
    asked = zip(online.features, names, strict=True)
    joined = {feature: name for feature, name in asked if not feature.on_request}
    for one in online.computed:
        for field in one.computation.stored:
            feature = catalog.groups[one.computation.group].features[field.name]
            joined.setdefault(feature, f"{RESERVED_PREFIX}read_{len(joined)}")
    return joined


def _on_request(one: ComputedRead, joined: Mapping[FeatureSnapshot, str], names: Sequence[str]) -> OnRequest:
    outputs = {feature.full_name: output for feature, output in joined.items()}
    computation = one.computation
    return OnRequest(
        computation,
        tuple(outputs[f"{computation.group}:{field.name}"] for field in computation.stored),
        tuple((name, names[place]) for name, place in one.outputs),
    )


def checked_spine(
    asked: Asked, spine: pa.Table | Path, *, event_timestamp: str = EVENT_TIMESTAMP, statuses: bool = False
) -> tuple[pa.Table | Path, tuple[Field, ...]]:
    """The spine as a table or a Parquet file, seen to be one that these features can be joined onto, and their keys."""
    columns = spines.columns_of(spine)
    catalog = snapshot.load()
    plan = asked.make_plan()(catalog)
    names = output_names(plan.features, columns)
    parquet = spines.opened(spine, event_timestamp, plan.keys, plan.request_inputs)
    check_spine(Spine.of(parquet, event_timestamp), plan.keys, with_statuses(names, statuses), plan.request_inputs)
    return parquet, plan.keys


def output_names(features: Sequence[FeatureSnapshot], spine: Sequence[str]) -> list[str]:
    """What the features are called beside the columns of a spine."""
    taken = [*spine, *(feature.name for feature in features)]
    return [f"{f.group}__{f.name}" if taken.count(f.name) > 1 else f.name for f in features]


def _parts(groups: Iterable[str], joined: Mapping[FeatureSnapshot, str], catalog: Catalog) -> Iterator[GroupPart]:
    """Each group as it is joined; one of which no stored feature is needed says which keys the spine has to have."""
    by_group: dict[str, list[HistoryFeature]] = {name: [] for name in groups}
    for feature, name in joined.items():
        schema_ids = catalog.groups[feature.group].schema_ids_with(feature.name)
        by_group[feature.group].append(HistoryFeature(feature.name, name, feature.dtype, schema_ids))
    for name, asked in by_group.items():
        group = catalog.groups[name]
        table = stores.offline(name, group.version)
        delta_version = table.version
        yield GroupPart(
            name,
            group.version,
            delta_version,
            definition_of(name, group.version),
            catalog.entities[group.entity],
            group.ttl,
            tuple(table.entries(delta_version)) if asked and delta_version >= 0 else (),
            tuple(asked),
        )
