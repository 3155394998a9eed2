"""The rows of a rule that wait, as CSV: streamed from the files that the hub keeps, and harmless to a spreadsheet."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator

from django.http import HttpRequest, HttpResponse, StreamingHttpResponse

from catalog.access import READ_PII, AnyCaller, require
from catalog.pages.viewing import page
from catalog.schemas import current_schema
from engine.errors import CorruptData
from ingestion.models import QuarantinedRow, QuarantinedRule, QuarantineState
from ingestion.models.quarantine import DISCARDED, HELD, REPLAYED
from ingestion.pages.broken import payload_of, text_of
from ingestion.pages.quarantine import alike, find_record, readable
from ingestion.quarantine import payloads_of

#: A cell that begins so is computed by a spreadsheet, unless it is a plain number.
_BEGINS_A_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_OWN = ("run", "row", "broken_column", "rule", "detail")
#: What stands in no column of the group any more, as JSON.
_OTHERS = "other_columns"


@page
def rows_csv(request: HttpRequest, caller: AnyCaller, id: int) -> HttpResponse:
    record = find_record(caller, id)
    group = record.run.group
    if group.holds_personal():
        require(caller, READ_PII, group)
    waiting = alike(readable(caller), record).in_state(QuarantineState.PENDING).select_related("run__group")
    records = list(waiting.defer("samples").order_by("pk"))
    columns = current_schema(group).raw_names
    response = StreamingHttpResponse(_lines(records, columns), content_type="text/csv; charset=utf-8")
    name = "-".join(re.sub(r"\W+", "_", part, flags=re.ASCII) for part in (group.name, record.column, record.rule))
    response.headers["Content-Disposition"] = f'attachment; filename="rejected-{name}.csv"'
    response.headers["Cache-Control"] = "private, no-store"
    return response  # type: ignore[return-value]


class _Line:
    """A file that hands each line back instead of keeping it."""

    def write(self, line: str) -> str:
        return line


def _lines(records: Iterable[QuarantinedRule], columns: tuple[str, ...]) -> Iterator[str]:
    writer = csv.writer(_Line())
    yield writer.writerow([*_OWN, *map(harmless, columns), _OTHERS])
    for record in records:
        settled = QuarantinedRow.objects.filter(HELD | REPLAYED | DISCARDED, rule=record).values_list("row", flat=True)
        gone, written = set(settled), 0
        for kept in payloads_of(record.run):
            if (kept["column"], kept["rule"]) == (record.column, record.rule) and kept["row"] not in gone:
                row = payload_of(str(kept["payload"])) or {}
                own = [record.run_id, kept["row"], record.column, record.rule, harmless(str(kept["detail"]))]
                others = {name: value for name, value in row.items() if name not in columns}
                values = [_cell(row.get(name)) for name in columns]
                yield writer.writerow([*own, *values, json.dumps(others, ensure_ascii=False) if others else ""])
                written += 1
        if written < record.row_count - len(gone):  # better a download that breaks off than one that looks whole
            raise CorruptData(f"Of {record} of run {record.run_id} only {written} rows are in its quarantine file.")


def _cell(value: object) -> str:
    return "" if value is None else harmless(text_of(value))


def harmless(text: str) -> str:
    """The text so that no spreadsheet computes it: a formula begins with an apostrophe, which they show as text.

    >>> harmless("=1+1"), harmless("-5.2"), harmless("gold"), harmless("-A1")
    ("'=1+1", '-5.2', 'gold', "'-A1")
    """
    return f"'{text}" if text.startswith(_BEGINS_A_FORMULA) and not _NUMBER.fullmatch(text) else text
