"""Rejected rows that come again: after their rule or they themselves were mended, in their old place, and only once."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from django.db import connection

from catalog import runs, stores
from catalog.models import FeatureGroup, Run, RunKind, RunState, Status
from engine.errors import Conflict, FeaturehubError, InvalidInput, InvalidRows, NotFound
from ingestion import drain, raw_rows
from ingestion import replay as replaying
from ingestion.ingest import execute, ingest
from ingestion.materialize import materialize
from ingestion.models import QuarantinedRow, QuarantinedRule
from ingestion.push import push
from ingestion.quarantine import raw_file
from ingestion.settle import Selection, discard, queue_replay, rules_of
from tests.factories import NOON, add_feature, make_customer_group, purchase, write_csv, write_parquet
from tests.ingestion import contents

ALL = Selection()
GOOD = [purchase(f"G{n}") for n in range(20)]


@pytest.fixture
def group(sources: Path) -> FeatureGroup:
    return make_customer_group()


def mend_rule(group: FeatureGroup, feature: str, **rules: Any) -> None:
    group.features.filter(name=feature).update(validation=rules)


def ingest_with(group: FeatureGroup, sources: Path, *bad: dict[str, Any], name: str = "a.csv") -> Run:
    return ingest(group, paths=[write_csv(sources / name, [*GOOD, *bad])])


def replay(group: FeatureGroup, selection: Selection = ALL, **options: Any) -> Run:
    return execute(queue_replay(group, selection, **options))


def states(group: FeatureGroup) -> dict[tuple[str, str], tuple[str, int]]:
    """The state and the waiting rows of each column and rule, whatever the run."""
    return {(rule.column, rule.rule): (rule.state, rule.pending_rows) for rule in rules_of(group, ALL)}


def rows(group: FeatureGroup, customer: str) -> list[dict[str, Any]]:
    return [row for row in contents.offline(group) if row["customer_id"] == customer]


def online(group: FeatureGroup, customer: str) -> dict[str, Any]:
    return contents.online(group)[f"s2:{customer}"]


# -- The rule is mended.


def test_rows_of_a_csv_land_once_their_rule_is_mended_in_their_old_place(group: FeatureGroup, sources: Path) -> None:
    first = ingest_with(group, sources, purchase("C1", customer_segment="golden"), purchase("C2", total_purchases=-1))
    mend_rule(group, "customer_segment")
    run = replay(group)
    assert (run.kind, run.state, run.rows_read, run.rows_accepted, run.rows_quarantined) == (
        RunKind.REPLAY,
        RunState.SUCCEEDED,
        2,
        1,
        1,
    )
    (row,) = rows(group, "C1")
    assert (row["_accepted"], row["_ordinal"], row["_run"]) == (first.acceptance_id, 20, str(run.pk))
    assert row["event_timestamp"] == datetime(2024, 11, 1, 10, tzinfo=UTC)
    assert row["created_timestamp"] == first.acceptance.accepted_at
    assert online(group, "C1")["customer_segment"] == "golden"


def test_a_row_that_still_breaks_a_rule_goes_back_and_keeps_its_place(group: FeatureGroup, sources: Path) -> None:
    first = ingest_with(group, sources, purchase("C2", total_purchases=-1))
    second = replay(group)
    (again,) = second.quarantined.all()
    assert (again.column, again.rule, again.samples[0]["row"]) == ("total_purchases", "min_value", 0)
    assert (second.rows_accepted, second.message) == (0, "No row was accepted.")
    mend_rule(group, "total_purchases")
    replay(group)
    (row,) = rows(group, "C2")
    assert (row["_accepted"], row["_ordinal"]) == (first.acceptance_id, 20)
    assert row["created_timestamp"] == first.acceptance.accepted_at
    assert {state for state, _ in states(group).values()} == {"replayed"}


def test_a_correction_accepted_meanwhile_wins_in_both_stores(group: FeatureGroup, sources: Path) -> None:
    ingest_with(group, sources, purchase("C1", total_purchases=-1))
    push(group, [purchase("C1", total_purchases=7)])
    mend_rule(group, "total_purchases")
    replay(group)
    drain.drain(group)
    assert [row["total_purchases"] for row in rows(group, "C1")] == [-1, 7]  # in version order
    assert online(group, "C1")["total_purchases"] == 7
    contents.forget_online(group)
    group.online_cursors.all().delete()
    materialize(group, full=True)
    assert online(group, "C1")["total_purchases"] == 7


def test_a_replayed_row_wins_over_what_was_accepted_before_it(group: FeatureGroup, sources: Path) -> None:
    push(group, [purchase("C1", total_purchases=7)])
    ingest_with(group, sources, purchase("C1", total_purchases=-1))
    mend_rule(group, "total_purchases")
    replay(group)
    assert online(group, "C1")["total_purchases"] == -1


def test_a_column_that_came_later_is_null_in_a_replayed_row(group: FeatureGroup, sources: Path) -> None:
    ingest_with(group, sources, purchase("C1", total_purchases=-1))
    add_feature(group, "visits", "int64")
    mend_rule(group, "total_purchases")
    replay(group)
    assert online(group, "C1") == {
        "total_purchases": -1,
        "avg_purchase_value": 0.0,
        "customer_segment": "gold",
        "visits": None,
    }


# -- Whatever form they came in.

AT = datetime(2024, 11, 1, 10, tzinfo=UTC)
AWKWARD = {"f": "float64", "n": "int64", "l": "list<int64>", "e": "embedding(2)", "s": "string", "t": "timestamp"}


def awkward_table(**changes: pa.Array) -> pa.Table:
    """Three rows of types that neither JSON nor Parquet alone keeps; the last breaks the rule of `bad`."""
    columns = {
        "customer_id": pa.array(["C1", "C2", "C3"]).dictionary_encode(),
        "purchased_at": pa.array([AT] * 3, pa.timestamp("ns", "Europe/Berlin")),
        "f": pa.array([1.5, 2.5, float("nan")]),
        "n": pa.array([1, 2, 2**63 - 1], pa.uint64()),
        "l": pa.array([[1], [], [2**53 + 1]], pa.large_list(pa.int64())),
        "e": pa.array([[1, 2], [3, 4], [0.1, 0.2]], pa.list_(pa.float32(), 2)),
        "s": pa.array(["a", "b", '"ü\n']),
        "t": pa.array([AT] * 3, pa.timestamp("s", "UTC")),
        "bad": pa.array([1, 2, -3], pa.int8()),
    }
    return pa.table(columns | changes)


def awkward_group() -> FeatureGroup:
    group = make_customer_group("awkward", features=AWKWARD)
    add_feature(group, "bad", "int64", min_value=0)
    return group


@pytest.mark.parametrize("way", ["parquet", "arrow"])
def test_rows_of_typed_columns_come_again_exactly(group: FeatureGroup, sources: Path, way: str, settings: Any) -> None:
    settings.FEATUREHUB_FAILURE_RATE_LIMIT = 1.0
    awkward = awkward_group()
    if way == "parquet":
        ingest(awkward, paths=[write_parquet(sources / "a.parquet", awkward_table())])
    else:
        assert push(awkward, awkward_table(), on_error="quarantine").quarantined == 1
    mend_rule(awkward, "bad")
    assert replay(awkward).rows_accepted == 1
    (row,) = rows(awkward, "C3")
    assert (row["f"], row["n"], row["l"], row["s"], row["t"]) == (None, 2**63 - 1, [2**53 + 1], '"ü\n', AT)
    assert row["e"] == [pytest.approx(0.1, rel=1e-7), pytest.approx(0.2, rel=1e-7)]
    assert (row["event_timestamp"], row["bad"]) == (AT, -3)


def test_json_rows_come_again_exactly(group: FeatureGroup) -> None:
    bad = [
        purchase("C1", customer_segment='gölden "\\u0000'.replace("\\u0000", "\t"), total_spent=2.5),
        purchase("C2", total_purchases=2**70),
        purchase("C3", total_spent=float("inf")),
        purchase("C4", total_spent={"not": "a number"}),
    ]
    assert push(group, bad, on_error="quarantine").quarantined == 4
    mend_rule(group, "customer_segment")
    run = replay(group)
    assert {(rule.column, rule.rule, rule.row_count) for rule in run.quarantined.all()} == {
        ("total_purchases", "type", 1),
        ("total_spent", "type", 2),
    }
    (row,) = rows(group, "C1")
    assert (row["customer_segment"], row["total_spent"], row["_ordinal"]) == ('gölden "\t', 2.5, 0)


def test_what_python_pushed_and_json_lacks_is_not_taken_for_text_later(group: FeatureGroup) -> None:
    push(group, [purchase("C1", AT, customer_segment={"a", "set"})], on_error="quarantine")
    mend_rule(group, "customer_segment")
    (rule,) = replay(group).quarantined.all()
    assert (rule.column, rule.rule) == ("customer_segment", "type")
    replay(group, Selection(run=rule.run_id, row=0), values={"customer_segment": "gold"})
    assert [row["event_timestamp"] for row in rows(group, "C1")] == [AT]


def test_many_small_pushes_are_replayed_in_one_file(group: FeatureGroup) -> None:
    for number in range(5):
        push(group, [purchase(f"C{number}", total_purchases=-1)], on_error="quarantine")
    mend_rule(group, "total_purchases")
    assert replay(group).rows_accepted == 5
    assert len(contents.data_files(group)) == 1


def test_many_rejected_rows_come_again_in_bounded_batches(
    group: FeatureGroup, sources: Path, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.FEATUREHUB_FAILURE_RATE_LIMIT = 1.0
    many = pa.Table.from_pylist([purchase(f"C{n}", total_purchases=-1 - n) for n in range(20_000)])
    first = ingest(group, paths=[write_parquet(sources / "a.parquet", many)])
    kept = pq.ParquetFile(raw_file(first))
    assert kept.num_row_groups == math.ceil(20_000 / raw_rows.ROWS_PER_RECORD)
    monkeypatch.setattr(replaying, "ROWS_PER_BATCH", 8_192)
    mend_rule(group, "total_purchases")
    run = replay(group)
    assert (run.rows_accepted, run.bytes_read) == (20_000, run.bytes_total)
    files = [pq.read_metadata(contents.folder(group) / name).num_rows for name in contents.data_files(group)]
    assert sorted(files) == [3_616, 8_192, 8_192]
    landed = contents.offline(group)
    assert all((row["total_purchases"], row["customer_id"]) == (-1 - at, f"C{at}") for at, row in enumerate(landed))
    assert [row["_ordinal"] for row in landed] == list(range(20_000))


# -- What is kept of them (docs/formats/quarantine.md).


def test_the_files_of_a_run_are_as_their_page_says(group: FeatureGroup, sources: Path) -> None:
    bad = [purchase("C1", total_purchases=-1), purchase("C2", customer_segment="golden")]
    first = ingest_with(group, sources, *bad)
    folder = stores.quarantine_folder(group.name)
    assert {path.name for path in folder.iterdir()} == {f"{first.pk}.parquet", f"{first.pk}.raw.parquet"}
    payloads = pq.read_table(folder / f"{first.pk}.parquet")
    assert payloads.schema.names == ["column", "rule", "detail", "row", "payload"]
    raw = pq.read_table(folder / f"{first.pk}.raw.parquet").to_pylist()
    assert {(one["column"], one["rule"], one["form"], *one["row"]) for one in raw} == {
        ("total_purchases", "min_value", "text", 20),
        ("customer_segment", "allowed_values", "text", 21),
    }
    assert [(one["accepted"], one["ordinal"], one["accepted_at"]) for one in raw] == [(None, None, None)] * 2
    texts = [pa.ipc.open_stream(one["rows"]).read_all().to_pylist()[0] for one in raw]
    assert sorted(row["customer_id"] for row in texts) == ["C1", "C2"]
    again = replay(group)
    raw = pq.read_table(folder / f"{again.pk}.raw.parquet").to_pylist()
    places = {(*one["accepted"], *one["ordinal"], *one["accepted_at"]) for one in raw}
    assert places == {(first.acceptance_id, number, first.acceptance.accepted_at) for number in (20, 21)}


# -- The row is mended.


def test_a_mended_row_of_a_csv_lands_and_the_others_wait(group: FeatureGroup, sources: Path) -> None:
    bad = [purchase("C1", total_purchases="four", total_spent=10.0), purchase("C2", total_purchases="four")]
    first = ingest_with(group, sources, *bad)
    run = replay(group, Selection(run=first.pk, row=20), values={"total_purchases": 4})
    assert (run.rows_read, run.rows_accepted) == (1, 1)
    assert online(group, "C1")["avg_purchase_value"] == 2.5
    assert states(group) == {("total_purchases", "type"): ("pending", 1)}
    with pytest.raises(Conflict, match=f"row 20 of {first.pk} was taken up by run {run.pk}"):
        queue_replay(group, Selection(run=first.pk, row=20), values={"total_purchases": 5})
    replay(group, Selection(run=first.pk, row=21), values={"total_purchases": 2})
    assert states(group) == {("total_purchases", "type"): ("settled", 0)}
    with pytest.raises(Conflict, match="each row was replayed or discarded by itself"):
        queue_replay(group, ALL)
    assert len(rows(group, "C1")) == len(rows(group, "C2")) == 1


@pytest.mark.parametrize(
    "mend",
    [
        ("total_spent", 12.5, 12.5),
        ("total_spent", None, None),
        ("customer_segment", "silver", "silver"),
        ("purchased_at", NOON, datetime(2024, 11, 1, 12, tzinfo=UTC)),
        ("customer_id", "C9", "C9"),
    ],
)
@pytest.mark.parametrize("form", ["text", "typed", "json"])
def test_a_value_of_any_column_is_mended_in_any_form(
    group: FeatureGroup, sources: Path, form: str, mend: tuple[str, object, object]
) -> None:
    column, value, kept = mend
    bad = purchase("C1", total_purchases=-1)
    if form == "text":
        first, number = ingest_with(group, sources, bad), 20
    elif form == "typed":
        first, number = ingest(group, paths=[write_parquet(sources / "a.parquet", [*GOOD, bad])]), 20
    else:
        push(group, [bad], on_error="quarantine")
        first, number = Run.objects.get(), 0
    replay(group, Selection(run=first.pk, row=number), values={"total_purchases": 3, column: value})
    (row,) = [row for row in contents.offline(group) if row["total_purchases"] == 3]
    assert row["event_timestamp" if column == "purchased_at" else column] == kept
    assert (row["_accepted"], row["_ordinal"]) == (first.acceptance_id, number)


def test_values_that_their_columns_do_not_take_are_refused_by_name(group: FeatureGroup, sources: Path) -> None:
    first = ingest_with(group, sources, purchase("C1", total_purchases=-1))
    row = Selection(run=first.pk, row=20)
    with pytest.raises(InvalidRows) as refused:
        queue_replay(group, row, values={"total_purchases": "4", "total_spend": 1.0})
    assert {problem.pointer for problem in refused.value.problems} == {"/values/total_purchases", "/values/total_spend"}
    with pytest.raises(InvalidInput, match="values mend one row"):
        queue_replay(group, Selection(run=first.pk), values={"total_purchases": 4})
    with pytest.raises(InvalidInput, match="name the run"):
        queue_replay(group, Selection(row=20), values={"total_purchases": 4})
    with pytest.raises(NotFound, match="no quarantined row 3 of run"):
        queue_replay(group, Selection(run=first.pk, row=3), values={"total_purchases": 4})
    assert not Run.objects.filter(kind=RunKind.REPLAY).exists()


def test_a_mended_row_that_still_breaks_a_rule_goes_back_mended(group: FeatureGroup, sources: Path) -> None:
    first = ingest_with(group, sources, purchase("C1", total_purchases="x", customer_segment="golden"))
    run = replay(group, Selection(run=first.pk, row=20), values={"total_purchases": 4})
    assert (run.rows_accepted, run.rows_quarantined) == (0, 1)
    replay(group, Selection(run=run.pk, row=0), values={"customer_segment": "gold"})
    (row,) = rows(group, "C1")
    assert (row["total_purchases"], row["customer_segment"], row["_accepted"]) == (4, "gold", first.acceptance_id)


# -- What does not come again.


def test_discarded_rows_say_who_when_and_why_and_are_not_replayed(group: FeatureGroup, sources: Path) -> None:
    ingest_with(group, sources, purchase("C1", total_purchases=-1), purchase("C2", customer_segment="golden"))
    assert discard(group, Selection(column="total_purchases"), reason=" a test order ", by="ada") == 1
    rule = QuarantinedRule.objects.get(column="total_purchases")
    assert (rule.discarded_by, rule.discard_reason, rule.discarded_at is not None) == ("ada", "a test order", True)
    assert states(group) == {
        ("total_purchases", "min_value"): ("discarded", 0),
        ("customer_segment", "allowed_values"): ("pending", 1),
    }
    with pytest.raises(Conflict, match="discarded by ada: a test order"):
        queue_replay(group, Selection(column="total_purchases"))
    mend_rule(group, "total_purchases")
    assert replay(group).rows_read == 1
    assert rows(group, "C1") == []


def test_one_discarded_row_does_not_come_with_the_others(group: FeatureGroup, sources: Path) -> None:
    first = ingest_with(group, sources, purchase("C1", total_purchases=-1), purchase("C2", total_purchases=-1))
    assert discard(group, Selection(run=first.pk, row=20), reason="a test order", by="ada") == 1
    with pytest.raises(Conflict, match=r"row 20 .* was discarded by ada: a test order"):
        queue_replay(group, Selection(run=first.pk, row=20))
    mend_rule(group, "total_purchases")
    replay(group)
    assert (rows(group, "C1"), len(rows(group, "C2"))) == ([], 1)


@pytest.mark.parametrize("reason", ["", "  \n"])
def test_discarding_needs_a_reason(group: FeatureGroup, sources: Path, reason: str) -> None:
    ingest_with(group, sources, purchase("C1", total_purchases=-1))
    with pytest.raises(InvalidInput, match="needs a reason"):
        discard(group, ALL, reason=reason, by="ada")


def test_rows_of_a_run_that_failed_as_a_whole_are_read_again_and_not_replayed(
    group: FeatureGroup, sources: Path
) -> None:
    path = write_csv(sources / "a.csv", [purchase("C1"), purchase("C2", total_purchases=-1)])
    with pytest.raises(FeaturehubError, match="more than the limit"):
        ingest(group, paths=[path])
    assert states(group) == {("total_purchases", "min_value"): ("run_failed", 0)}
    for settle in (queue_replay, lambda *chosen: discard(*chosen, reason="old", by="ada")):
        with pytest.raises(Conflict, match="is failed, so nothing of it was kept and its rows are read again"):
            settle(group, ALL)
    mend_rule(group, "total_purchases")
    ingest(group, paths=[path])
    assert len(contents.offline(group)) == 2


def test_a_run_that_is_retried_without_data_leaves_no_rows_to_replay(group: FeatureGroup, sources: Path) -> None:
    path = write_csv(sources / "a.csv", [purchase("C1"), purchase("C2", total_purchases=-1)])
    with pytest.raises(FeaturehubError, match="more than the limit"):
        ingest(group, paths=[path])
    failed = group.runs.get()
    mend_rule(group, "total_purchases")
    ingest(group, paths=[path])
    runs.retry(failed, by="ada")
    assert execute(failed).message.startswith("No new data")
    with pytest.raises(NotFound, match="no quarantined rows"):
        queue_replay(group, ALL)


def test_rows_of_an_older_version_are_superseded(group: FeatureGroup, sources: Path) -> None:
    ingest_with(group, sources, purchase("C1", total_purchases=-1))
    FeatureGroup.objects.update(version=2)
    group.refresh_from_db()
    assert states(group) == {("total_purchases", "min_value"): ("superseded", 0)}
    with pytest.raises(Conflict, match="came for version 1 of customer_purchases, which is at version 2"):
        queue_replay(group, ALL)


def test_a_replay_that_finds_its_group_at_another_version_fails(group: FeatureGroup, sources: Path) -> None:
    ingest_with(group, sources, purchase("C1", total_purchases=-1))
    run = queue_replay(group, ALL)
    FeatureGroup.objects.update(version=2)
    with pytest.raises(Conflict, match="came for version 1"):
        execute(Run.objects.get(pk=run.pk))
    assert Run.objects.get(pk=run.pk).state == RunState.FAILED


def test_an_archived_group_takes_no_replay(group: FeatureGroup, sources: Path) -> None:
    ingest_with(group, sources, purchase("C1", total_purchases=-1))
    group.status = Status.ARCHIVED
    with pytest.raises(Conflict, match="archived"):
        queue_replay(group, ALL)


def test_a_group_without_rejected_rows_has_nothing_to_replay(group: FeatureGroup) -> None:
    with pytest.raises(NotFound, match=r"customer_purchases has no quarantined rows with column total\."):
        queue_replay(group, Selection(column="total"))


def test_rows_whose_file_is_gone_or_damaged_stay_where_they_are(group: FeatureGroup, sources: Path) -> None:
    first = ingest_with(group, sources, purchase("C1", total_purchases=-1))
    path = stores.quarantine_folder(group.name) / f"{first.pk}.raw.parquet"
    kept = path.read_bytes()
    path.unlink()
    with pytest.raises(FeaturehubError, match="cannot be read"):
        replay(group)
    path.write_bytes(kept[:60] + bytes([kept[60] ^ 1]) + kept[61:])
    mend_rule(group, "total_purchases")
    assert states(group) == {("total_purchases", "min_value"): ("pending", 1)}
    path.write_bytes(kept)
    assert replay(group).rows_accepted == 1


# -- Once.


def test_what_a_replay_holds_no_other_takes_until_it_has_ended(group: FeatureGroup, sources: Path) -> None:
    first = ingest_with(group, sources, purchase("C1", total_purchases=-1))
    mend_rule(group, "total_purchases")
    run = queue_replay(group, ALL)
    assert states(group) == {("total_purchases", "min_value"): ("replaying", 0)}
    for selection in (ALL, Selection(run=first.pk, row=20)):
        with pytest.raises(Conflict, match=f"held by run {run.pk}"):
            queue_replay(group, selection)
        with pytest.raises(Conflict, match=f"held by run {run.pk}"):
            discard(group, selection, reason="old", by="ada")
    runs.cancel(run, by="ada")
    assert states(group) == {("total_purchases", "min_value"): ("pending", 1)}
    assert replay(group).rows_accepted == 1
    runs.retry(run, by="ada")
    assert execute(run).message.startswith("Nothing to replay")
    assert len(rows(group, "C1")) == 1


def test_a_row_given_back_is_replayed_with_its_rule_and_once(group: FeatureGroup, sources: Path) -> None:
    first = ingest_with(group, sources, purchase("C1", total_purchases=-1), purchase("C2", total_purchases=-1))
    of_row = queue_replay(group, Selection(run=first.pk, row=20), values={"total_purchases": 1})
    with pytest.raises(Conflict, match=f"is being replayed by run {of_row.pk}"):
        queue_replay(group, ALL)
    runs.cancel(of_row, by="ada")
    mend_rule(group, "total_purchases")
    assert replay(group).rows_accepted == 2
    runs.retry(of_row, by="ada")
    assert execute(of_row).rows_read == 0
    assert not QuarantinedRow.objects.exists()
    assert len(rows(group, "C1")) == 1


def test_a_rule_given_back_is_not_replayed_after_one_of_its_rows_was(group: FeatureGroup, sources: Path) -> None:
    first = ingest_with(group, sources, purchase("C1", total_purchases=-1), purchase("C2", total_purchases=-1))
    of_rule = queue_replay(group, ALL)
    runs.cancel(of_rule, by="ada")
    replay(group, Selection(run=first.pk, row=20), values={"total_purchases": 1})
    runs.retry(of_rule, by="ada")
    assert execute(of_rule).rows_read == 0
    assert states(group) == {("total_purchases", "min_value"): ("pending", 1)}


def test_a_replay_whose_commit_may_still_arrive_holds_its_rows(group: FeatureGroup, sources: Path) -> None:
    ingest_with(group, sources, purchase("C1", total_purchases=-1))
    run = queue_replay(group, ALL)
    Run.objects.filter(pk=run.pk).update(state=RunState.DEAD, committing=1)
    with pytest.raises(Conflict, match="has not ended for good"):
        queue_replay(group, ALL)


@pytest.mark.django_db(transaction=True)
def test_of_parallel_replays_one_takes_the_rows(group: FeatureGroup, sources: Path) -> None:
    ingest_with(group, sources, purchase("C1", total_purchases=-1))
    mend_rule(group, "total_purchases")
    said = in_threads([lambda: str(replay(group).rows_accepted)] * 6)
    assert sorted(said) == ["1"] + ["Conflict"] * 5
    assert len(rows(group, "C1")) == 1
    assert Run.objects.filter(kind=RunKind.REPLAY).count() == 1


def in_threads(works: list[Callable[[], str]]) -> list[str]:
    """What each work said, or the name of its error, when all began at once."""
    said: list[str] = []
    gate = threading.Barrier(len(works))

    def one(work: Callable[[], str]) -> None:
        try:
            gate.wait(10)
            said.append(work())
        except FeaturehubError as error:
            said.append(type(error).__name__)
        finally:
            connection.close()

    threads = [threading.Thread(target=one, args=[work]) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return said


def test_rows_of_one_rule_are_replayed_one_by_one_also_while_another_is_held(group: FeatureGroup) -> None:
    push(group, [purchase("C1", total_purchases=-1), purchase("C2", total_purchases=-1)], on_error="quarantine")
    run = group.runs.get()
    first = queue_replay(group, Selection(run=run.pk, row=0), values={"total_purchases": 1})
    execute(queue_replay(group, Selection(run=run.pk, row=1), values={"total_purchases": 2}))
    execute(first)
    assert sorted(row["customer_id"] for row in contents.offline(group)) == ["C1", "C2"]
    with pytest.raises(Conflict, match=r"row 1 of .* was taken up by run"):
        queue_replay(group, Selection(run=run.pk, row=1))
