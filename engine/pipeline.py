"""What happens to every row on its way in, batch or push: conform, transform, validate; accepted or rejected.

The same functions in the same order for ten million rows of a file, for one pushed row, and on an executor of a Spark
cluster, so that both stores and all ways in hold one result.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Self

import polars as pl

from engine.conform import Conformed
from engine.raw_batch import RawBatch
from engine.schema import (
    ACCEPTED,
    CREATED_TIMESTAMP,
    DELETED,
    ORDINAL,
    RUN,
    SCHEMA,
    TIMESTAMP_POLARS,
    GroupSchema,
)
from engine.transformations import Transformer
from engine.validation import validate
from engine.violations import Violation

ROW = "_row"


@dataclass(frozen=True, slots=True)
class Processed:
    """One batch after the pipeline.

    accepted: the computed rows, with their row number in the batch as ROW.
    rejected: every violation that keeps its rows out; a row may stand in several.
    noted:    violations of rules that keep the row: `warn` and `set_null`.
    """

    accepted: pl.DataFrame
    rejected: list[Violation]
    noted: list[Violation]


@dataclass
class Pipeline:
    """The compiled way in for one schema; `seen` spans the batches of one run, for `unique`."""

    schema: GroupSchema
    transformer: Transformer
    seen: dict[str, set[object]] = field(default_factory=dict)

    def process(self, conformed: Conformed) -> Processed:
        """Transform and validate one conformed batch."""
        frame, failed = self.transformer.apply(conformed.frame)
        validated = validate(frame, self.schema.features, seen=self.seen)
        rejected = [*conformed.violations, *failed, *validated.rejected]
        accepted = validated.frame.with_row_index(ROW)
        if rejected:
            bad = pl.concat([violation.rows for violation in rejected]).unique()
            accepted = accepted.filter(~pl.col(ROW).is_in(bad.implode()))
        return Processed(accepted, rejected, [*validated.warned, *validated.nulled])


def without_values(keys: pl.DataFrame, schema: GroupSchema) -> pl.DataFrame:
    """Conformed rows as accepted ones whose features and inputs are all null: what a tombstone holds."""
    dtypes = {column.name: column.dtype for column in schema.inputs}
    dtypes |= {feature.name: feature.dtype for feature in schema.features}
    nulls = [pl.lit(None, dtype=dtype.polars).alias(name) for name, dtype in dtypes.items()]
    return keys.with_columns(nulls).with_row_index(ROW)


@dataclass(frozen=True, slots=True)
class Place:
    """Where accepted rows stand in the version order, as expressions over their batch; see `Processed.accepted`.

    `accepted_at` is the created timestamp of the rows whose source has none.
    """

    accepted: pl.Expr
    ordinal: pl.Expr
    accepted_at: pl.Expr

    @classmethod
    def of_acceptance(cls, number: int, accepted_at: datetime, *, first_ordinal: int) -> Self:
        """Rows that come for the first time: a row's ordinal is its number in the whole run or push."""
        return cls(
            accepted=pl.lit(number, dtype=pl.Int64),
            ordinal=pl.col(ROW).cast(pl.Int64) + first_ordinal,
            accepted_at=pl.lit(accepted_at, dtype=TIMESTAMP_POLARS),
        )

    @classmethod
    def of_origins(cls, origins: pl.DataFrame) -> Self:
        """Rows that came before: each has the place of its first coming, one row of `origins` by these names."""
        return cls(**{name: pl.lit(origins[name]).gather(pl.col(ROW)) for name in ORIGIN})


#: The columns of `Place.of_origins`.
ORIGIN = {"accepted": pl.Int64(), "ordinal": pl.Int64(), "accepted_at": TIMESTAMP_POLARS}


def stamped(rows: pl.DataFrame, schema: GroupSchema, place: Place, *, run: str, deleted: bool = False) -> pl.DataFrame:
    """Accepted rows as offline rows: with their place in the version order, their schema and where they came from.

    `deleted` makes them tombstones: older rows of their entities, in version order, are dead.
    """
    stamps = {
        CREATED_TIMESTAMP: pl.col(CREATED_TIMESTAMP).fill_null(place.accepted_at),
        ACCEPTED: place.accepted,
        ORDINAL: place.ordinal,
        SCHEMA: pl.lit(schema.schema_id, dtype=pl.Int32),
        DELETED: pl.lit(deleted),
        RUN: pl.lit(run),
    }
    return rows.select(stamps[name].alias(name) if name in stamps else name for name in schema.offline.names)


@dataclass(frozen=True, slots=True)
class Computed:
    """One batch on its way to the offline table.

    offline:  the accepted rows as they are stored.
    rejected: every violation that keeps its rows out, by their positions in the batch.
    noted:    those that keep them.
    """

    offline: pl.DataFrame
    rejected: list[Violation]
    noted: list[Violation]


def compute(
    batch: RawBatch, pipeline: Pipeline, place: Place, *, run: str, now: datetime, max_skew: timedelta
) -> Computed:
    """All that happens to one batch of a run; raises InvalidRows and InvalidInput for one that cannot be computed."""
    schema = pipeline.schema
    conformed = batch.conformed(schema, now=now, max_skew=max_skew)
    if batch.is_deleted:
        processed = Processed(without_values(conformed.frame, schema), conformed.violations, [])
    else:
        processed = pipeline.process(conformed)
    offline = stamped(processed.accepted, schema, place, run=run, deleted=batch.is_deleted)
    return Computed(offline, processed.rejected, processed.noted)


@dataclass(frozen=True, slots=True)
class RejectedRows:
    """Rows that broke one rule, as they came; `numbers` counts the rows of the run, or of their batch, from 0."""

    column: str
    rule: str
    detail: str
    numbers: list[int]
    batch: RawBatch


def rejected_rows(batch: RawBatch, violations: Sequence[Violation], *, first_row: int) -> Iterator[RejectedRows]:
    """The rows of `batch` that the violations name, each under the first rule it broke."""
    for violation in first_of_each_row(violations):
        positions = violation.rows.to_list()
        numbers = [first_row + position for position in positions]
        yield RejectedRows(violation.column, violation.rule, violation.detail, numbers, batch.take(positions))


def first_of_each_row(violations: Sequence[Violation]) -> list[Violation]:
    """The violations with each row left only in the first that names it, so that every rejected row counts once."""
    taken: set[int] = set()
    firsts = []
    for violation in violations:
        rows = [row for row in violation.rows.to_list() if row not in taken]
        taken.update(rows)
        if rows:
            kept = pl.Series(violation.rows.name, rows, dtype=violation.rows.dtype)
            firsts.append(Violation(violation.column, violation.rule, violation.detail, kept))
    return firsts
