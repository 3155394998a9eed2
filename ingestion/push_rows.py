"""The rows of a push: computed from what was sent, or a tombstone; and as the log keeps them, one Arrow stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias

import polars as pl
import pyarrow as pa
from django.utils import timezone

from catalog.schemas import Local, transformer
from catalog.writable import WritableGroup
from engine.conform import Conformed, conform_rows, conform_table
from engine.errors import InvalidRows, Problem
from engine.pipeline import Pipeline, without_values
from engine.raw_batch import RawBatch
from engine.schema import GroupSchema
from engine.violations import Violation
from ingestion.clock import max_clock_skew
from ingestion.models import PushBatch

#: Problems named in one refusal; the rest are counted.
NAMED_PROBLEMS = 20

Rows: TypeAlias = Sequence[Mapping[str, object]] | pa.Table


@dataclass(frozen=True, slots=True)
class Computed:
    """What a push comes to under one schema: the rows that are kept, what keeps the others out, and both as sent."""

    accepted: pl.DataFrame
    rejected: list[Violation] = field(default_factory=list)
    sent: Rows = ()
    deleted: bool = False

    @property
    def rejected_count(self) -> int:
        return len(self.sent) - self.accepted.height if self.rejected else 0

    def raw(self) -> RawBatch:
        """The rows as they were sent, for quarantine."""
        return RawBatch(self.sent, "typed" if isinstance(self.sent, pa.Table) else "json")


def compute(
    rows: Rows,
    target: WritableGroup,
    *,
    local: Local | None = None,
    default_event_timestamp: datetime | None = None,
) -> Computed:
    """The rows through the pipeline; raises InvalidRows for columns that the group does not have."""
    schema, now, max_skew = target.schema, timezone.now(), max_clock_skew()
    if isinstance(rows, pa.Table):
        conformed = conform_table(rows, schema, now=now, max_skew=max_skew)
    else:
        conformed = conform_rows(
            rows, schema, now=now, max_skew=max_skew, default_event_timestamp=default_event_timestamp
        )
    compiled = transformer(schema, local) if local else target.transformer
    processed = Pipeline(schema, compiled).process(conformed)
    return Computed(processed.accepted, processed.rejected, rows)


def compute_tombstone(row: Mapping[str, object], schema: GroupSchema) -> Computed:
    """One row, of join keys and an event time, as the tombstone of its entity; raises InvalidRows, as a push does."""
    conformed: Conformed = conform_rows([row], schema, now=timezone.now(), max_skew=max_clock_skew())
    computed = Computed(without_values(conformed.frame, schema), conformed.violations, [row], deleted=True)
    require_all(computed, schema)
    return computed


def require_all(computed: Computed, schema: GroupSchema) -> None:
    """Raises InvalidRows naming row and column of what is wrong, when any row is rejected."""
    if computed.rejected:
        raise InvalidRows(
            f"{schema.group} takes none of the {len(computed.sent)} rows: some break its types or rules.",
            _problems(computed.rejected)[:NAMED_PROBLEMS],
        )


def _problems(violations: Sequence[Violation]) -> list[Problem]:
    """One problem per row and column: the first, since what follows on one cell follows from it."""
    found: dict[str, Problem] = {}
    for violation in violations:
        for row in violation.rows.to_list():
            pointer = f"/rows/{row}/{violation.column}"
            found.setdefault(pointer, Problem(pointer, f"{violation.rule}: {violation.detail}"))
    return list(found.values())


def to_bytes(rows: pl.DataFrame, schema: GroupSchema) -> bytes:
    """Offline rows as an Arrow IPC stream with exactly the types of the offline table."""
    table = rows.to_arrow().cast(schema.offline)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def rows_of(batch: PushBatch) -> pl.DataFrame:
    """The rows of a logged push."""
    frame = pl.from_arrow(pa.ipc.open_stream(bytes(batch.rows)).read_all())
    assert isinstance(frame, pl.DataFrame)  # noqa: S101  what Polars makes of a table
    return frame
