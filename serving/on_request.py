"""Features that are computed on request, online: what a request has to bring for them, and their values in its vectors.

Values are typed as strictly as those of a push. A stored feature that an expression reads is null to it when it is
NOT_FOUND or OUTSIDE_MAX_AGE, as it is in a training dataset; one that is INVALID makes what reads it INVALID.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence

import polars as pl

from engine.conform.columns import Target
from engine.conform.values import typed_values
from engine.errors import InvalidInput, Problem, near_names
from engine.on_request import Computed
from engine.online.codec import StoredValue
from engine.schema import Dtype, Field
from engine.status import INVALID, NULL_VALUE, PRESENT, Status
from serving.plan import ComputedRead, Plan

Request = Mapping[str, Sequence[object]]
#: The column of one asked feature: its place in the vector, its values as stores have them, its statuses.
Placed = tuple[int, list[StoredValue], list[Status]]


def sent_values(plan: Plan, request: Request | None, rows: int) -> pl.DataFrame:
    """The request's columns, typed, one value for each of `rows` entities.

    Raises InvalidInput pointing at each column that is missing, not needed or of another length, and at each value
    that its dtype does not take.
    """
    given = request or {}
    wanted = {field.name: field for field in plan.request_inputs}
    problems = [
        Problem(
            f"/request/{name}", f"this request input is missing; a list of {field.dtype}, a value per entity, is right."
        )
        for name, field in wanted.items()
        if name not in given
    ]
    problems += [
        Problem(f"/request/{name}", "no asked feature reads this; leave it out.", near_names(name, wanted))
        for name in given
        if name not in wanted
    ]
    columns = []
    for name, field in wanted.items():
        if name in given:
            column, found = _typed(given[name], field, rows)
            columns.append(column)
            problems += found
    if problems:
        needed = ", ".join(f"{field.name} ({field.dtype})" for field in plan.request_inputs)
        raise InvalidInput(f"The asked features are computed from {needed or 'no value of the request'}.", problems)
    return pl.DataFrame(columns)


def _typed(values: Sequence[object], field: Field, rows: int) -> tuple[pl.Series, list[Problem]]:
    """A column in its dtype, and the first value of each kind that cannot be kept."""
    if len(values) != rows:
        detail = f"it has {len(values)} values; one for each of the {rows} entities is right, in their order."
        return pl.Series(field.name, [], dtype=field.dtype.polars), [Problem(f"/request/{field.name}", detail)]
    typed = typed_values(values, Target(field.name, field.name, field.dtype, "value"))
    problems = [Problem(f"/request/{field.name}/{wrong.rows[0]}", wrong.detail) for wrong in typed.violations]
    return typed.values.alias(field.name), problems


def computed_columns(
    plan: Plan, values: Sequence[Sequence[StoredValue]], statuses: Sequence[Sequence[Status]], sent: pl.DataFrame
) -> Iterator[Placed]:
    """The columns of the plan's computed features; `values` and `statuses` are the columns of what was read."""
    for one in plan.computed:
        frame, unusable = _frame(one, values, statuses, sent)
        found = one.computation.compute(frame, unusable)
        dtypes = {feature.name: feature.dtype for feature in one.computation.features}
        for name, place in one.outputs:
            stored = _as_stored(found[name], dtypes[name])
            yield place, stored, _statuses(stored, found[name].failed)


def _statuses(values: Sequence[StoredValue], failed: pl.Series | None) -> list[Status]:
    """As `Computed.statuses`, without the time that Polars takes to begin."""
    told: list[Status] = [NULL_VALUE if value is None else PRESENT for value in values]
    for row in failed.arg_true() if failed is not None else ():
        told[row] = INVALID
    return told


def _frame(
    one: ComputedRead,
    values: Sequence[Sequence[StoredValue]],
    statuses: Sequence[Sequence[Status]],
    sent: pl.DataFrame,
) -> tuple[pl.DataFrame, dict[str, pl.Series]]:
    """What the expressions of one group read, and which of it could not be read."""
    columns = [sent[field.name] for field in one.computation.request_inputs]
    unusable = {}
    for field, place in zip(one.computation.stored, one.stored_places, strict=True):
        columns.append(_series(field, values[place]))
        if INVALID in statuses[place]:
            unusable[field.name] = pl.Series([status == INVALID for status in statuses[place]])
    return pl.DataFrame(columns), unusable


def _series(field: Field, values: Sequence[StoredValue]) -> pl.Series:
    """Values as Redis has them in their dtype."""
    if field.dtype.kind == "timestamp":
        return pl.Series(field.name, values, dtype=pl.Int64).cast(field.dtype.polars)
    if field.dtype.kind == "embedding":
        format = f"<{field.dtype.dim}f"
        return pl.Series(
            field.name,
            [None if packed is None else struct.unpack(format, packed) for packed in values],  # type: ignore[arg-type]
            dtype=field.dtype.polars,
        )
    return pl.Series(field.name, values, dtype=field.dtype.polars)


def _as_stored(computed: Computed, dtype: Dtype) -> list[StoredValue]:
    """The same the other way."""
    if dtype.kind == "timestamp":
        return computed.values.cast(pl.Int64).to_list()
    values = computed.values.to_list()
    if dtype.kind == "embedding":
        return [None if floats is None else struct.pack(f"<{dtype.dim}f", *floats) for floats in values]
    return values
