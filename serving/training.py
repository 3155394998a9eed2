"""Training datasets: a spine joined with features as they were at each row's time.

`build` answers a table, `write` makes a file and its manifest, by which it can be made again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
from engine.pointintime.rule import STATUS_SUFFIX, HistoryFeature
from engine.pointintime.spine import Spine, check_spine
from engine.schema import EVENT_TIMESTAMP, Field
from engine.spark.installed import require_spark
from engine.status import NOT_FOUND
from serving import spines
from serving.manifest import GroupPart, Made, Manifest, Recipe, definition_of
from serving.names import find_service
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
    return join(
        spines.opened(spine, recipe.event_timestamp, list(keys)),
        [part.history() for part in recipe.groups],
        event_timestamp=recipe.event_timestamp,
        known_at=recipe.known_at,
        statuses=recipe.statuses,
        order=recipe.order,
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
    features = asked.make_plan()(catalog).features
    service = find_service(asked.service, catalog) if asked.service else None
    names = output_names(features, spine)
    stores.history_wanted.send(plan, groups=list(dict.fromkeys(feature.group for feature in features)))
    return Recipe(
        f"{service.name}@{service.version}" if service else "",
        tuple(feature.full_name for feature in features),
        tuple(names),
        tuple(_parts(features, names, catalog)),
        event_timestamp,
        known_at,
        statuses,
    )


def checked_spine(
    asked: Asked, spine: pa.Table | Path, *, event_timestamp: str = EVENT_TIMESTAMP, statuses: bool = False
) -> tuple[pa.Table | Path, tuple[Field, ...]]:
    """The spine as a table or a Parquet file, seen to be one that these features can be joined onto, and their keys."""
    columns = spines.columns_of(spine)
    catalog = snapshot.load()
    plan = asked.make_plan()(catalog)
    names = output_names(plan.features, columns)
    parquet = spines.opened(spine, event_timestamp, plan.keys)
    outputs = [*names, *(name + STATUS_SUFFIX for name in names if statuses)]
    check_spine(Spine.of(parquet, event_timestamp), plan.keys, outputs)
    return parquet, plan.keys


def output_names(features: Sequence[FeatureSnapshot], spine: Sequence[str]) -> list[str]:
    """What the features are called beside the columns of a spine."""
    taken = [*spine, *(feature.name for feature in features)]
    return [f"{f.group}__{f.name}" if taken.count(f.name) > 1 else f.name for f in features]


def _parts(features: Sequence[FeatureSnapshot], names: Sequence[str], catalog: Catalog) -> Iterator[GroupPart]:
    by_group: dict[str, list[HistoryFeature]] = {}
    for feature, name in zip(features, names, strict=True):
        schema_ids = catalog.groups[feature.group].schema_ids_with(feature.name)
        by_group.setdefault(feature.group, []).append(HistoryFeature(feature.name, name, feature.dtype, schema_ids))
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
            tuple(table.entries(delta_version)) if delta_version >= 0 else (),
            tuple(asked),
        )
