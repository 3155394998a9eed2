"""Spines that people have: Arrow tables, Parquet and CSV files, rows of a JSON body; or none, but a moment or a group.

A spine of a moment has every entity that a group has rows of; one of a group has that group's own rows, its labels
beside them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import csv

from catalog import stores
from catalog.snapshot import Catalog
from engine.arrow_errors import without_values
from engine.conform import conform_column
from engine.conform.columns import Target
from engine.conform.values import typed_values
from engine.errors import InvalidInput, InvalidSpine, Problem
from engine.offline.table import read_file
from engine.schema import EVENT_TIMESTAMP, TIMESTAMP_ARROW, Dtype, Field
from serving.history import rows_of_group

_OFFSET = r"(?i)(z|[+-]\d\d:\d\d)$"
_REFUSED = "The spine cannot be joined."


def columns_of(spine: pa.Table | Path) -> list[str]:
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
        raise InvalidSpine(f"The spine {spine} cannot be read: {without_values(str(error))}") from error
    raise InvalidSpine(f"The spine {spine} is neither a .parquet nor a .csv file.")


def opened(
    spine: pa.Table | Path, event_timestamp: str, keys: Sequence[Field], request_inputs: Sequence[Field] = ()
) -> pa.Table | Path:
    """A table or a Parquet file as it is; a CSV as a table: join keys and request inputs in their types (`00002` may be
    a text), its time in UTC, the rest inferred. Raises InvalidSpine."""
    if isinstance(spine, pa.Table) or spine.suffix.lower() == ".parquet":
        return spine
    types = {field.name: pa.string() for field in request_inputs}
    types |= {key.name: key.dtype.arrow for key in keys} | {event_timestamp: pa.string()}
    try:
        table = csv.read_csv(spine, convert_options=csv.ConvertOptions(column_types=types))
    except (pa.ArrowException, OSError) as error:
        raise InvalidSpine(f"The spine {spine} cannot be read: {without_values(str(error))}") from error
    for field in request_inputs:
        place = table.schema.get_field_index(field.name)
        if place >= 0 and types[field.name] == pa.string() and field.name != event_timestamp:
            table = table.set_column(place, field.name, _read_text(table.column(place), field))
    place = table.schema.get_field_index(event_timestamp)
    if place < 0:  # missing or twice: the join says so
        return table
    return table.set_column(place, event_timestamp, _instants(table.column(place), event_timestamp))


def _read_text(texts: pa.ChunkedArray, field: Field) -> pa.ChunkedArray:
    """A request input as a CSV has it; raises InvalidSpine naming the first row that it does not take.

    An empty field is null, also for a text: as `""` no CSV tells it apart.
    """
    typed = conform_column(pc.if_else(pc.equal(texts, ""), None, texts), field, text=True)
    if typed.violations:
        first = [(broken.rows[0], broken.detail) for broken in typed.violations]
        raise InvalidSpine(
            _REFUSED, [Problem(f"/spine/{field.name}", f"row {row}: the value {detail}.") for row, detail in first]
        )
    return typed.values.to_arrow().cast(field.dtype.arrow)


def _instants(texts: pa.ChunkedArray, column: str) -> pa.ChunkedArray:
    """RFC 3339 texts as instants; raises InvalidSpine naming the first naive time, or a text that is no time."""
    naive = pc.index(pc.match_substring_regex(texts, _OFFSET), False).as_py()
    if naive >= 0:
        detail = f"row {naive}: the time has no offset; write the instant, such as 2026-11-01T10:00:00Z."
        raise InvalidSpine(_REFUSED, [Problem(f"/spine/{column}", detail)])
    try:
        return pc.utf8_upper(texts).cast(TIMESTAMP_ARROW)
    except pa.ArrowInvalid as error:
        raise InvalidSpine(_REFUSED, [Problem(f"/spine/{column}", "a text is no such time.")]) from error


def of_rows(
    rows: Sequence[Any], *, event_timestamp: str, keys: Sequence[Field], request_inputs: Sequence[Field] = ()
) -> pa.Table:
    """The objects of a JSON body as a table: keys, times and request inputs strictly in their types, the rest as Arrow
    infers.

    A name that a row lacks is null there. Raises InvalidSpine naming the column and the first row of each problem.
    """
    wrong = next((at for at, row in enumerate(rows) if not isinstance(row, Mapping)), None)
    if wrong is not None:
        raise InvalidSpine(_REFUSED, [Problem(f"/spine/{wrong}", "a row is an object.")])
    names = dict.fromkeys(name for row in rows for name in row)
    strict: dict[str, tuple[Dtype, Literal["key", "event", "value"]]] = {}
    strict |= {field.name: (field.dtype, "value") for field in request_inputs}
    strict |= {key.name: (key.dtype, "key") for key in keys}
    strict[event_timestamp] = (Dtype("timestamp"), "event")
    columns: dict[str, Any] = {}
    problems: list[Problem] = []
    for name in names:
        values = [row.get(name) for row in rows]
        if name in strict:
            dtype, role = strict[name]
            typed = typed_values(values, Target(name, name, dtype, role))
            columns[name] = typed.values.to_arrow().cast(dtype.arrow)
            problems += [
                Problem(f"/spine/{name}", f"row {broken.rows[0]}: {broken.detail}") for broken in typed.violations
            ]
        else:
            try:
                columns[name] = pa.array(values)
            except (pa.ArrowException, TypeError, OverflowError):
                problems.append(Problem(f"/spine/{name}", "its values are not of one type."))
    if problems:
        raise InvalidSpine(_REFUSED, problems)
    return pa.table(columns)


def of_moment(groups: Sequence[str], when: datetime, catalog: Catalog) -> pa.Table:
    """Every entity that one of the groups has rows of by then, sorted by its keys, at that moment.

    Raises InvalidInput when the groups are not of one entity: whose moments these would be is not known then.
    """
    entities = sorted({catalog.groups[name].entity for name in groups})
    if len(entities) != 1:
        raise InvalidInput(
            f"The features are of several entities ({', '.join(entities)}); give a spine with their keys."
        )
    keys = catalog.entities[entities[0]]
    found = pl.DataFrame(schema={key.name: key.dtype.polars for key in keys})
    for name in groups:
        for path in stores.offline(name, catalog.groups[name].version).files():
            found = pl.concat([found, _keys_by(path, found.columns, when)]).unique()
    rows = found.sort(found.columns)
    return _table(rows.with_columns(pl.lit(when).dt.cast_time_unit("us").alias(EVENT_TIMESTAMP)))


def _keys_by(path: str, keys: Sequence[str], when: datetime) -> pl.DataFrame:
    """The entities that a file has rows of by then, each once."""
    batches = (pl.DataFrame(batch) for batch in read_file(path, [*keys, EVENT_TIMESTAMP]))
    return pl.concat(batch.filter(pl.col(EVENT_TIMESTAMP) <= when).select(keys).unique() for batch in batches).unique()


def of_group(
    name: str, *, labels: Sequence[str] = (), start: datetime | None = None, end: datetime | None = None
) -> pa.Table:
    """A group's own rows between two event times (inclusive) in version order: keys, event_timestamp, then the labels.

    A label is a feature or an input of the group. Deleted rows are left out. Raises UnknownName with near names, and
    InvalidSpine for a group without rows.
    """
    rows = rows_of_group(name, start=start, end=end, columns=labels)
    if rows is None:
        raise InvalidSpine(f"{name} has no rows, so there is no spine of them.")
    return _table(rows)


def _table(rows: pl.DataFrame) -> pa.Table:
    """The rows with texts as the stores have them: Polars writes large ones."""
    table = rows.to_arrow()
    kinds = [pa.field(f.name, pa.string() if f.type == pa.large_string() else f.type) for f in table.schema]
    return table.cast(pa.schema(kinds))
