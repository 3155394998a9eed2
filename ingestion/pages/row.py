"""One rejected row in a form: what is changed in it is laid over the row, and that row is replayed alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect

from catalog.access import READ_PII, WRITE, AnyCaller, require
from catalog.models import FeatureGroup
from catalog.pages.addresses import page_of
from catalog.pages.viewing import form_page, show
from catalog.schemas import current_schema
from engine.conform.columns import targets_of
from engine.errors import FeaturehubError, InvalidRows, NotFound
from ingestion.models import QuarantinedRule
from ingestion.pages.broken import Broken, broken_of, payload_of, text_of
from ingestion.pages.quarantine import find_record, replay
from ingestion.quarantine import payloads_of
from ingestion.settle import Selection


@dataclass(frozen=True, slots=True)
class Field:
    """One column of a raw row in the form.

    was, text:        what the row has, and what the form shows.
    was_null, is_null: whether the row has nothing there, and whether the form says so.
    """

    name: str
    dtype: str
    was: str
    was_null: bool
    text: str
    is_null: bool
    is_broken: bool
    error: str = ""

    @property
    def is_long(self) -> bool:
        return len(self.text) > 80 or "\n" in self.text


@form_page
def row_page(request: HttpRequest, caller: AnyCaller, id: int, row: int) -> HttpResponse:
    record = find_record(caller, id)
    group = record.run.group
    require(caller, WRITE, group)
    if group.holds_personal():
        require(caller, READ_PII, group)
    payload = _payload(record, row)
    (broken,) = broken_of([record], caller)
    fields = _fields(group, payload, broken, request.POST if request.method == "POST" else None)
    if request.method == "POST":
        values = {field.name: _value(field) for field in fields if _is_changed(field)}
        try:
            return redirect(page_of(replay(group, Selection(run=record.run_id, row=row), caller, values=values)))
        except InvalidRows as error:
            fields = _with_errors(fields, error)
        except FeaturehubError as error:
            messages.error(request, error.detail)
    context = {
        "broken": broken,
        "record": record,
        "row": row,
        "fields": fields,
        "wrong": [field for field in fields if field.error],
        "others": sorted(payload.keys() - {field.name for field in fields}),
    }
    response = show(request, caller, "ingestion/row.html", context, here="catalog-quarantine")
    response.status_code = 422 if context["wrong"] else 200
    return response


def _payload(record: QuarantinedRule, row: int) -> dict[str, Any]:
    """The row as it was kept; raises NotFound where the rule has no such row."""
    for kept in payloads_of(record.run):
        if kept["row"] == row and (kept["column"], kept["rule"]) == (record.column, record.rule):
            return payload_of(str(kept["payload"])) or {}
    raise NotFound(f"Of run {record.run_id} there is no quarantined row {row} under this rule.")


def _fields(group: FeatureGroup, row: Mapping[str, Any], broken: Broken, sent: QueryDict | None) -> list[Field]:
    fields = []
    for target in targets_of(current_schema(group)):
        if not target.source:  # a created timestamp that no column brings
            continue
        name, value = target.source, row.get(target.source)
        was = "" if value is None else text_of(value)
        text, is_null = was, value is None
        if sent is not None:
            text = sent.get(f"value:{name}", was).replace("\r\n", "\n")
            is_null = f"null:{name}" in sent
        fields.append(Field(name, str(target.dtype), was, value is None, text, is_null, name in broken.about))
    return fields


def _is_changed(field: Field) -> bool:
    if field.is_null or field.was_null:
        return field.is_null != field.was_null
    return field.text != field.was.replace("\r\n", "\n")


def _value(field: Field) -> object:
    """What was typed as a JSON value for the column; what is none of its dtype stays text, which is then refused."""
    if field.is_null:
        return None
    if field.dtype in ("string", "timestamp"):
        return field.text if field.dtype == "string" else field.text.strip()
    try:
        return json.loads(field.text)
    except (ValueError, RecursionError):
        return field.text


def _with_errors(fields: list[Field], error: InvalidRows) -> list[Field]:
    told = {problem.pointer.removeprefix("/values/"): str(problem.detail) for problem in error.problems}
    return [replace(field, error=told.get(field.name, "")) for field in fields]
