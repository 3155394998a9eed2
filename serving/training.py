"""Training datasets: a spine joined with features as they were at each row's time.

`build` answers a table, `write` makes a file and its manifest, by which it can be made again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from django.conf import settings
from pyarrow import csv

from catalog import snapshot, stores
from catalog.snapshot import Catalog, FeatureSnapshot
from engine.content_hash import ContentHash
from engine.errors import InvalidInput, InvalidSpine, Problem
from engine.pointintime import duckdb
from engine.pointintime.rule import STATUS_SUFFIX, HistoryFeature
from engine.pointintime.spine import Spine, check_spine
from engine.schema import EVENT_TIMESTAMP, TIMESTAMP_ARROW, Field
from serving.manifest import GroupPart, Made, Manifest, Recipe, definition_of
from serving.names import find_service
from serving.vectors import MakePlan, of_features, of_service

MEMORY_LIMIT = "2GB"
_OFFSET = r"(?i)(z|[+-]\d\d:\d\d)$"


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
    recipe = plan(asked, spine_columns(spine), event_timestamp=event_timestamp, known_at=known_at, statuses=statuses)
    return _join(recipe, spine)


def write(
    recipe: Recipe, spine: pa.Table | Path, output: Path, *, follow: Callable[[int | None], None] = lambda _: None
) -> Manifest:
    """Write the dataset of a recipe to a Parquet file, which appears whole or not at all; its manifest.

    `follow` is called with the rows of each batch that was made, and with None after each group was joined; what it
    raises ends the work. Raises as `build` does, and CorruptData when a file of the history is not there any more.
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

    rows = _join(recipe, spine, output=output, follow=follow_both)
    schema = pq.read_schema(output)
    return Manifest(recipe, _made(content or ContentHash(schema), schema, recipe, rows))


def _made(content: ContentHash, schema: pa.Schema, recipe: Recipe, rows: int) -> Made:
    added = [*recipe.order, *(name + STATUS_SUFFIX for name in recipe.order if recipe.statuses)]
    spine = [name for name in schema.names if name not in added]
    return Made(
        rows,
        content.hexdigest(spine),
        content.hexdigest(),
        tuple((field.name, str(field.type)) for field in schema),
        {name: content.nulls(name) for name in schema.names},
        duckdb.ENGINE,
    )


def _join(recipe: Recipe, spine: pa.Table | Path, **how: Any) -> Any:
    keys = dict.fromkeys(key for part in recipe.groups for key in part.keys)
    return duckdb.join(
        _as_parquet_or_table(spine, recipe.event_timestamp, list(keys)),
        [part.history() for part in recipe.groups],
        event_timestamp=recipe.event_timestamp,
        known_at=recipe.known_at,
        statuses=recipe.statuses,
        order=recipe.order,
        memory_limit=MEMORY_LIMIT,
        temp_directory=Path(settings.FEATUREHUB_HOME) / "tmp",
        **how,
    )


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
) -> pa.Table | Path:
    """The spine as a table or a Parquet file, seen to be one that these features can be joined onto; see `build`."""
    columns = spine_columns(spine)
    catalog = snapshot.load()
    plan = asked.make_plan()(catalog)
    names = output_names(plan.features, columns)
    parquet = _as_parquet_or_table(spine, event_timestamp, plan.keys)
    outputs = [*names, *(name + STATUS_SUFFIX for name in names if statuses)]
    check_spine(Spine.of(parquet, event_timestamp), plan.keys, outputs)
    return parquet


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


def spine_columns(spine: pa.Table | Path) -> list[str]:
    """The column names of a spine; raises InvalidSpine for a file that is neither Parquet nor CSV, or unreadable."""
    if isinstance(spine, pa.Table):
        return list(spine.column_names)
    try:
        if spine.suffix.lower() == ".parquet":
            return list(pq.read_schema(spine).names)
        if spine.suffix.lower() == ".csv":
            with csv.open_csv(spine) as reader:
                return list(reader.schema.names)
    except (pa.ArrowException, OSError) as error:
        raise InvalidSpine(f"The spine {spine} cannot be read: {error}") from error
    raise InvalidSpine(f"The spine {spine} is neither a .parquet nor a .csv file.")


def _as_parquet_or_table(spine: pa.Table | Path, event_timestamp: str, keys: Sequence[Field]) -> pa.Table | Path:
    """A CSV spine as a table: join keys in their types (`00002` may be a text), its time in UTC, the rest inferred."""
    if isinstance(spine, pa.Table) or spine.suffix.lower() == ".parquet":
        return spine
    types = {key.name: key.dtype.arrow for key in keys} | {event_timestamp: pa.string()}
    try:
        table = csv.read_csv(spine, convert_options=csv.ConvertOptions(column_types=types))
    except (pa.ArrowException, OSError) as error:
        raise InvalidSpine(f"The spine {spine} cannot be read: {error}") from error
    place = table.schema.get_field_index(event_timestamp)
    if place < 0:  # missing or twice: the join says so
        return table
    return table.set_column(place, event_timestamp, _instants(table.column(place), event_timestamp))


def _instants(texts: pa.ChunkedArray, column: str) -> pa.ChunkedArray:
    """RFC 3339 texts as instants; raises InvalidSpine naming the first naive time, or a text that is no time."""
    naive = pc.index(pc.match_substring_regex(texts, _OFFSET), False).as_py()
    if naive >= 0:
        detail = (
            f"row {naive}: {texts[naive].as_py()!r} has no offset; write the instant, such as 2026-11-01T10:00:00Z."
        )
        raise InvalidSpine("The spine cannot be joined.", [Problem(f"/spine/{column}", detail)])
    try:
        return pc.utf8_upper(texts).cast(TIMESTAMP_ARROW)
    except pa.ArrowInvalid as error:
        raise InvalidSpine("The spine cannot be joined.", [Problem(f"/spine/{column}", str(error))]) from error
