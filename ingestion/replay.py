"""Rejected rows through the pipeline once more: each with its own event time and the place of its first coming."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import polars as pl

from catalog.models import Run
from engine.errors import Conflict
from engine.pipeline import ORIGIN
from engine.raw_batch import RawBatch
from engine.schema import GroupSchema
from ingestion.models import QuarantinedRow, QuarantinedRule
from ingestion.quarantine import raw_file
from ingestion.raw_rows import Record, gathered, read_records
from ingestion.sources import ROWS_PER_BATCH


@dataclass
class _Taken:
    """What a replay has taken up of one rule of a run: all rows but the settled ones, or only single ones."""

    whole: bool = False
    settled: set[int] = field(default_factory=set)
    single: dict[int, dict[str, object]] = field(default_factory=dict)

    def positions(self, numbers: list[int]) -> list[int]:
        """The places of the rows that are taken up as they are."""
        if self.whole:
            return [at for at, number in enumerate(numbers) if number not in self.settled]
        return [at for at, number in enumerate(numbers) if self.single.get(number) == {}]


@dataclass
class Rejected:
    """The supply (supply.py) of a replay: the rows that it was queued for, see settle.py."""

    run: Run
    nothing: str = "Nothing to replay: its rows were settled in another way meanwhile."
    size: int = 0
    failure_rate_limit: float = 1.0  # each row is judged by itself: of rows that were bad many may be
    taken: dict[Run, dict[tuple[str, str], _Taken]] = field(default_factory=dict)

    def claim(self) -> bool:
        """What the replay holds by its records; that others do not take them up is theirs to see."""
        self.taken = defaultdict(lambda: defaultdict(_Taken))
        for rule in QuarantinedRule.objects.filter(replay=self.run).select_related("run__group", "run__acceptance"):
            settled = set(rule.rows.values_list("row", flat=True))
            self.taken[rule.run][rule.column, rule.rule] = _Taken(whole=True, settled=settled)
        for row in QuarantinedRow.objects.filter(replay=self.run).select_related("rule__run__group"):
            self.taken[row.rule.run][row.rule.column, row.rule.rule].single[row.row] = row.values
        self._refuse_another_version()
        self.size = sum(raw_file(run).stat().st_size for run in self.taken if raw_file(run).exists())
        return bool(self.taken)

    def _refuse_another_version(self) -> None:
        for source in self.taken:
            if source.group_version != self.run.group_version:
                raise Conflict(
                    f"The rows of run {source.pk} came for version {source.group_version}, and {source.group} is at "
                    f"version {self.run.group_version} by now."
                )

    def batches(self, schema: GroupSchema, read: Callable[[int], None]) -> Iterator[RawBatch]:
        """Rows of all the runs that came in one form together, so that many small runs do not make many files."""
        return gathered(self._pieces(schema, read), at_most=ROWS_PER_BATCH)

    def _pieces(self, schema: GroupSchema, read: Callable[[int], None]) -> Iterator[RawBatch]:
        before = 0
        for source, taken in self.taken.items():
            size = raw_file(source).stat().st_size if raw_file(source).exists() else 0
            for record, share in read_records(raw_file(source), taken):
                read(before + int(size * share))
                if record:
                    yield from _pieces_of(record, source, taken[record.column, record.rule], schema)
            before += size

    def require_claim(self) -> None:
        """A replay that is under way holds its rows by that alone."""

    def give_back(self) -> None:
        """One that has failed does not hold them any more."""


def _pieces_of(record: Record, source: Run, taken: _Taken, schema: GroupSchema) -> Iterator[RawBatch]:
    batch = _with_origins(record, source)
    if positions := taken.positions(record.numbers):
        yield batch.take(positions).fitted(schema.raw_names)
    for at, number in enumerate(record.numbers):
        if values := taken.single.get(number):
            yield batch.take([at]).fitted(schema.raw_names).mended(values, schema)


def _with_origins(record: Record, source: Run) -> RawBatch:
    """The rows with the place of their first coming, which was with `source` unless their record says another."""
    batch = record.batch
    if batch.origins is not None:
        return batch
    acceptance, count = source.acceptance, len(batch)
    places = [[acceptance.pk] * count, record.numbers, [acceptance.accepted_at] * count]
    return RawBatch(batch.rows, batch.form, pl.DataFrame(dict(zip(ORIGIN, places, strict=True)), schema=ORIGIN))
