"""The pages of rejected rows: by rule and in words, replayed, mended, discarded and exported, by whom it is granted."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from kombu.exceptions import OperationalError

from catalog.access import create_key
from catalog.models import Acceptance, FeatureGroup, Role, Run, RunKind, RunState, Tag
from catalog.pages.viewing import POLICY
from engine.errors import CorruptData
from ingestion.ingest import execute, ingest
from ingestion.models import QuarantinedRow, QuarantinedRule
from ingestion.pages.broken import rows_of, words_of
from ingestion.pages.export import harmless
from ingestion.quarantine import payload_file
from ingestion.settle import Selection, discard, queue_replay
from ingestion.tasks import ingest_run
from tests.factories import make_customer_group, purchase, write_csv, write_parquet
from tests.ingestion import contents
from tests.ingestion.pages import browser_of, text_of, token_of

QUARANTINE = "/catalog/quarantine/"
REPLAY, DISCARD = f"{QUARANTINE}replay/", f"{QUARANTINE}discard/"
HTMX = {"HX-Request": "true"}
SCRIPT = "<script>alert(1)</script>"
GOOD = [purchase(f"G{n}") for n in range(60)]
NEGATIVE = [purchase("C1", total_purchases=-1), purchase("C2", total_purchases=-2)]
UNKNOWN = purchase("C3", customer_segment="golden")


@pytest.fixture
def group(sources: Path) -> FeatureGroup:
    return make_customer_group()


@pytest.fixture
def other(group: FeatureGroup) -> FeatureGroup:
    return make_customer_group("support", features={"tickets": "int64"})


@pytest.fixture
def first(group: FeatureGroup, sources: Path) -> Run:
    """A run with rejected rows: 60 and 61 have a negative number of purchases, 62 an unknown segment."""
    return ingest(group, paths=[write_csv(sources / "a.csv", [*GOOD, *NEGATIVE, UNKNOWN])])


@pytest.fixture
def second(group: FeatureGroup, sources: Path, first: Run) -> Run:
    """A later run with one more negative row, its number 60."""
    return ingest(group, paths=[write_csv(sources / "b.csv", [*GOOD, purchase("C4", total_purchases=-4)])])


@pytest.fixture
def viewer(group: FeatureGroup) -> Client:
    return browser_of("vera", (group, Role.VIEWER))


@pytest.fixture
def editor(group: FeatureGroup) -> Client:
    return browser_of("ed", (group, Role.EDITOR), is_staff=True)


def record_of(run: Run, column: str = "total_purchases") -> QuarantinedRule:
    return QuarantinedRule.objects.get(run=run, column=column)


def page_of(record: QuarantinedRule) -> str:
    return reverse("catalog-quarantine-rule", args=[record.pk])


def row_page(record: QuarantinedRule, row: int) -> str:
    return reverse("catalog-quarantine-row", args=[record.pk, row])


def tag_personal(group: FeatureGroup) -> None:
    group.tags.add(Tag.objects.get_or_create(name="pii")[0])


def states() -> dict[tuple[str, str], str]:
    """The state of every record by its run's first letters and its column."""
    return {(str(r.run_id), r.column): r.state for r in QuarantinedRule.objects.with_state()}


def make_records(group: FeatureGroup, count: int, *, rules: int = 1) -> None:
    """So many runs with a record of each of so many rules."""
    for number in range(count):
        run = Run.objects.create(
            group=group, group_version=1, state=RunState.SUCCEEDED, acceptance=Acceptance.take(), kind=RunKind.INGEST
        )
        for rule in range(rules):
            QuarantinedRule.objects.create(
                run=run,
                column="total_purchases",
                rule=f"rule_{rule}",
                detail=f"is wrong {number}",
                row_count=1,
                samples=[{"row": 0, "payload": json.dumps({"customer_id": "C1", "total_purchases": -1})}],
            )


# -- The list


def test_without_rejected_rows_the_page_says_what_would_be_there(group: FeatureGroup, viewer: Client) -> None:
    said = text_of(viewer.get(QUARANTINE))
    assert "No rejected row waits." in said
    assert "Show what was settled" in said
    assert "No row was ever rejected." in text_of(viewer.get(f"{QUARANTINE}?state=any"))
    assert "Nothing matches." in text_of(viewer.get(f"{QUARANTINE}?state=discarded&group=customer_purchases"))


def test_rows_of_all_runs_are_put_together_by_rule_in_words(second: Run, viewer: Client) -> None:
    said = text_of(viewer.get(QUARANTINE))
    assert "2 broken rules" in said
    assert "total_purchases at least 0 hourglass_empty 3 rows wait" in said
    assert "customer_segment one of 'bronze', 'silver', 'gold', 'platinum' hourglass_empty 1 row waits" in said
    assert "total_purchases is below the minimum 0. 3 rows of 2 runs" in said
    assert "It asks now: Never null. At least 0." in said
    assert said.index("at least 0") < said.index("one of 'bronze'")


def test_the_rules_column_stands_first_and_is_marked_by_a_word(second: Run, viewer: Client) -> None:
    page = viewer.get(QUARANTINE).content.decode()
    said = text_of(viewer.get(QUARANTINE))
    assert "Row total_purchases error the rule's column customer_id purchased_at total_spent customer_segment" in said
    assert '<td class="is-broken mono">-4</td>' in page


def test_filters_of_the_address_narrow_the_list(first: Run, viewer: Client) -> None:
    for query, found in {
        "group=customer_purchases": True,
        "group=support": False,
        "state=pending": True,
        "state=replayed": False,
        "state=any": True,
    }.items():
        said = text_of(viewer.get(f"{QUARANTINE}?{query}"))
        assert ("total_purchases at least 0" in said) is found, query
        assert ("Nothing matches." in said) is not found, query


def test_a_run_leads_to_its_own_rows(first: Run, second: Run, viewer: Client) -> None:
    said = text_of(viewer.get(f"{QUARANTINE}?run={second.pk}"))
    assert "1 row waits" in said
    assert "customer_segment one of" not in said


def test_odd_filters_never_break_the_page(first: Run, viewer: Client) -> None:
    for query in (
        *("state=nonsense", "group=%00", "run=1", "run=%00", "page=0", "page=-1", "page=99999999999999999999"),
        *("group=" + "x" * 5000, "state=open&state=any", "page=9999", "%ff=%fe"),
    ):
        assert viewer.get(f"{QUARANTINE}?{query}").status_code == 200, query
        assert viewer.get(f"{page_of(record_of(first))}?{query}").status_code == 200, query


def test_the_number_of_queries_depends_neither_on_rules_nor_on_runs(group: FeatureGroup, viewer: Client) -> None:
    def asked() -> list[int]:
        record = QuarantinedRule.objects.latest("pk")
        counts = []
        for path in (QUARANTINE, page_of(record)):
            with CaptureQueriesContext(connection) as queries:
                assert viewer.get(path).status_code == 200
            counts.append(len(queries))
        with CaptureQueriesContext(connection) as queries:
            viewer.get(reverse("catalog-group-quarantine", args=[group.name]), headers=HTMX)
        return [*counts, len(queries)]

    make_records(group, 5, rules=5)
    few = asked()
    make_records(group, 20, rules=20)
    make_records(group, 75)
    assert asked() == few


def test_strings_of_others_show_as_text(group: FeatureGroup, sources: Path, editor: Client) -> None:
    run = ingest(group, paths=[write_csv(sources / "x.csv", [*GOOD, purchase(SCRIPT, customer_segment=SCRIPT)])])
    record = record_of(run, "customer_segment")
    samples = [*record.samples, {"row": 61, "payload": json.dumps({SCRIPT: SCRIPT})}, {"row": 62, "payload": SCRIPT}]
    QuarantinedRule.objects.filter(pk=record.pk).update(detail=SCRIPT, rule=SCRIPT, samples=samples)
    pages = [QUARANTINE, page_of(record), f"/catalog/runs/{run.pk}/"]
    for answer in [*(editor.get(path) for path in pages), editor.post(DISCARD, {"rule": record.pk})]:
        assert answer.status_code == 200
        assert SCRIPT.encode() not in answer.content
        assert SCRIPT in text_of(answer)
        assert answer["Content-Security-Policy"] == POLICY


# -- Who sees and does what


def test_what_is_out_of_reach_is_not_there(first: Run, other: FeatureGroup) -> None:
    record, stranger = record_of(first), browser_of("sue", (other, Role.OWNER))
    assert "total_purchases" not in text_of(stranger.get(f"{QUARANTINE}?state=any"))
    csv_path = reverse("catalog-quarantine-csv", args=[record.pk])
    for path in (page_of(record), row_page(record, 60), csv_path, f"/catalog/groups/{first.group.name}/quarantine/"):
        assert stranger.get(path, headers=HTMX).status_code == 404, path
    for path in (REPLAY, DISCARD):
        assert stranger.post(path, {"rule": record.pk, "reason": "mine"}).status_code == 404
    assert stranger.post(row_page(record, 60)).status_code == 404
    key = create_key(name="k", scopes=["read"], groups=["support"])[1]
    assert Client(headers={"Authorization": f"Bearer {key}"}).get(page_of(record)).status_code == 404
    assert Run.objects.count() == 1


def test_readers_see_rows_and_settle_none(first: Run, viewer: Client, editor: Client) -> None:
    record = record_of(first)
    for path in (QUARANTINE, page_of(record)):
        assert DISCARD not in viewer.get(path).content.decode()
        assert DISCARD in editor.get(path).content.decode()
    for path in (REPLAY, DISCARD):
        assert viewer.post(path, {"chosen": record.pk, "reason": "no"}).status_code == 403
    assert viewer.get(row_page(record, 60)).status_code == 403
    assert viewer.post(row_page(record, 60)).status_code == 403
    assert set(states().values()) == {"pending"}
    assert Run.objects.count() == 1


def test_the_rule_is_mended_in_the_admin_by_who_may(first: Run, viewer: Client, editor: Client) -> None:
    feature = first.group.features.get(name="total_purchases")
    mend = reverse("admin:catalog_feature_change", args=[feature.pk])
    assert mend in editor.get(QUARANTINE).content.decode()
    assert mend not in viewer.get(QUARANTINE).content.decode()
    assert editor.get(mend).status_code == 200


def test_rows_about_persons_are_shown_to_who_may_read_such(first: Run, editor: Client) -> None:
    tag_personal(first.group)
    record = record_of(first)
    owner = browser_of("olga", (first.group, Role.OWNER))
    for path in (QUARANTINE, page_of(record), f"/catalog/runs/{first.pk}/"):
        hidden, shown = text_of(editor.get(path)), text_of(owner.get(path))
        assert "needs the right pii:read" in hidden, path
        assert "C1" not in hidden.split()
        assert "C1" in shown.split()
    csv_path = reverse("catalog-quarantine-csv", args=[record.pk])
    assert csv_path not in editor.get(QUARANTINE).content.decode()
    for path in (csv_path, row_page(record, 60)):
        assert editor.get(path).status_code == 403
        assert owner.get(path).status_code == 200
    assert editor.post(row_page(record, 60), {"value:total_purchases": "1"}).status_code == 403


def test_a_post_without_its_token_is_refused(first: Run) -> None:
    browser = browser_of("eve", (first.group, Role.EDITOR), csrf=True)
    record = record_of(first)
    for path in (REPLAY, DISCARD, row_page(record, 60)):
        assert browser.post(path, {"rule": record.pk, "reason": "no"}).status_code == 403
    assert set(states().values()) == {"pending"}
    token = token_of(browser.get(QUARANTINE))
    sent = {"rule": record.pk, "reason": "not wanted", "csrfmiddlewaretoken": token}
    assert browser.post(DISCARD, sent).status_code == 302
    assert states()[str(first.pk), "total_purchases"] == "discarded"


# -- Replay and discard


def mend_rules(group: FeatureGroup) -> None:
    group.features.update(validation={})


def customers(group: FeatureGroup) -> set[str]:
    return {row["customer_id"] for row in contents.offline(group)} - {row["customer_id"] for row in GOOD}


def test_the_rows_of_a_rule_of_all_runs_are_replayed_by_one_run(first: Run, second: Run, editor: Client) -> None:
    answer = editor.post(REPLAY, {"rule": record_of(second).pk})
    run = Run.objects.get(kind=RunKind.REPLAY)
    assert (answer.status_code, answer["Location"]) == (302, f"/catalog/runs/{run.pk}/")
    assert run.requested_by == "ed"
    assert "3 being replayed" in text_of(editor.get(QUARANTINE))
    assert f"/catalog/runs/{run.pk}/" in editor.get(page_of(record_of(first))).content.decode()
    mend_rules(first.group)
    execute(run)
    assert customers(first.group) == {"C1", "C2", "C4"}
    said = text_of(editor.get(page_of(record_of(first))))
    assert "Replayed by the run of" in said
    assert DISCARD not in editor.get(page_of(record_of(first))).content.decode()


def test_several_rules_are_replayed_together(first: Run, editor: Client) -> None:
    chosen = [record_of(first).pk, record_of(first, "customer_segment").pk]
    editor.post(REPLAY, {"chosen": chosen})
    mend_rules(first.group)
    execute(Run.objects.get(kind=RunKind.REPLAY))
    assert customers(first.group) == {"C1", "C2", "C3"}


def test_the_rows_of_one_run_alone_are_discarded(first: Run, second: Run, editor: Client) -> None:
    asked = editor.post(DISCARD, {"record": record_of(second).pk})
    assert "Discard 1 row?" in text_of(asked)
    assert states()[str(second.pk), "total_purchases"] == "pending"
    told = editor.post(DISCARD, {"record": record_of(second).pk, "reason": f"Wrong {SCRIPT}"}, follow=True)
    assert "Discarded: 1 row of customer_purchases." in text_of(told)
    assert states()[str(second.pk), "total_purchases"] == "discarded"
    assert states()[str(first.pk), "total_purchases"] == "pending"
    page = editor.get(page_of(record_of(first)))
    assert f"Discarded by ed now: Wrong {SCRIPT}".replace("now", "")[:16] in text_of(page)
    assert SCRIPT.encode() not in page.content


def test_discarding_asks_for_a_reason_again(first: Run, editor: Client) -> None:
    for reason in ("", "  ", "a\0b"):
        answer = editor.post(DISCARD, {"chosen": record_of(first).pk, "reason": reason})
        assert answer.status_code == 422
        page = answer.content.decode()
        assert 'aria-describedby="reason-hint reason-error" aria-invalid="true"' in page
        assert f'<input type="hidden" name="chosen" value="{record_of(first).pk}">' in page
    assert set(states().values()) == {"pending"}


def test_nothing_ticked_is_said_and_nothing_done(first: Run, editor: Client) -> None:
    for path in (REPLAY, DISCARD):
        assert editor.get(path, {"rule": record_of(first).pk})["Location"] == QUARANTINE
        assert "No rule is ticked" in text_of(editor.post(path, follow=True))
    assert set(states().values()) == {"pending"}


def test_an_odd_choice_is_refused(first: Run, editor: Client) -> None:
    for id in ("x", "-1", "1" * 30, "\u0663", "", "9" * 18):
        for path in (REPLAY, DISCARD):
            assert editor.post(path, {"chosen": id, "reason": "r"}).status_code in (400, 404), id
    assert editor.post(REPLAY, {"chosen": list(range(200))}).status_code == 400
    assert set(states().values()) == {"pending"}


def test_what_was_settled_meanwhile_is_said(first: Run, editor: Client) -> None:
    record = record_of(first)
    discard(first.group, Selection(ids=(record.pk,)), reason="gone", by="ana")
    assert "Nothing of it waits any more." in text_of(editor.post(REPLAY, {"rule": record.pk}, follow=True))
    assert "Nothing of it waits any more." in text_of(editor.post(DISCARD, {"rule": record.pk}, follow=True))
    assert "discarded by ana: gone" in text_of(editor.post(REPLAY, {"record": record.pk}, follow=True))


@pytest.mark.django_db(transaction=True)
def test_a_broker_that_is_down_is_said(first: Run, editor: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: str) -> None:
        raise OperationalError("nobody there")

    monkeypatch.setattr(ingest_run, "delay", broken)
    said = text_of(editor.post(REPLAY, {"rule": record_of(first).pk}, follow=True))
    assert "The broker does not take tasks now" in said
    assert states()[str(first.pk), "total_purchases"] == "pending"


# -- One row


def test_a_row_is_replayed_with_values_laid_over_it(first: Run, editor: Client) -> None:
    record = record_of(first)
    said = text_of(editor.get(row_page(record, 60)))
    assert "total_purchases is below the minimum 0." in said
    sent = {"value:total_purchases": "7", "value:customer_id": "C1", "value:total_spent": "100.0"}
    answer = editor.post(row_page(record, 60), sent)
    run = Run.objects.get(kind=RunKind.REPLAY)
    assert (answer.status_code, answer["Location"]) == (302, f"/catalog/runs/{run.pk}/")
    assert QuarantinedRow.objects.get().values == {"total_purchases": 7}
    execute(run)
    assert {row["customer_id"]: row["total_purchases"] for row in contents.offline(first.group)}["C1"] == 7
    assert "Row 60: Replayed by" in text_of(editor.get(page_of(record)))
    assert "was taken up by run" in text_of(editor.post(row_page(record, 60), sent))


def test_a_value_is_taken_away_by_its_own_box(group: FeatureGroup, sources: Path, editor: Client) -> None:
    run = ingest(group, paths=[write_csv(sources / "a.csv", [*GOOD, UNKNOWN])])
    record = record_of(run, "customer_segment")
    editor.post(row_page(record, 60), {"value:customer_segment": "golden", "null:customer_segment": "on"})
    assert QuarantinedRow.objects.get().values == {"customer_segment": None}


def test_values_that_a_column_does_not_take_are_told_at_their_field(first: Run, editor: Client) -> None:
    answer = editor.post(row_page(record_of(first), 60), {"value:total_purchases": "many", "value:total_spent": "NaN"})
    assert answer.status_code == 422
    page, said = answer.content.decode(), text_of(answer)
    assert 'id="error-total_purchases"' in page
    assert 'value="many"' in page
    assert "type: is a string; int64 takes a whole number" in said
    assert "type: is NaN or infinite" in said
    assert not QuarantinedRow.objects.exists()


def test_a_typed_row_keeps_the_types_of_its_columns(group: FeatureGroup, sources: Path, editor: Client) -> None:
    run = ingest(group, paths=[write_parquet(sources / "a.parquet", [*GOOD, NEGATIVE[0]])])
    record = record_of(run)
    assert 'value="100.0"' in editor.get(row_page(record, 60)).content.decode()
    editor.post(row_page(record, 60), {"value:total_purchases": "5", "value:total_spent": "2"})
    execute(Run.objects.get(kind=RunKind.REPLAY))
    (row,) = (row for row in contents.offline(group) if row["customer_id"] == "C1")
    assert (row["total_purchases"], row["total_spent"]) == (5, 2.0)


def test_a_row_that_is_not_of_the_rule_is_not_found(first: Run, editor: Client) -> None:
    record = record_of(first)
    for row in (0, 62, 2**70):
        assert editor.get(row_page(record, row)).status_code == 404
    assert editor.get(f"{QUARANTINE}{2**70}/").status_code == 404


# -- The export


def exported(browser: Client, record: QuarantinedRule) -> list[list[str]]:
    answer: Any = browser.get(reverse("catalog-quarantine-csv", args=[record.pk]))
    assert answer.status_code == 200
    assert answer["Content-Type"] == "text/csv; charset=utf-8"
    return list(csv.reader(io.StringIO(b"".join(answer.streaming_content).decode())))


def test_rows_that_wait_are_exported_of_all_runs(first: Run, second: Run, viewer: Client) -> None:
    header, *rows = exported(viewer, record_of(second))
    assert header[:7] == ["run", "row", "broken_column", "rule", "detail", "customer_id", "purchased_at"]
    at = header.index("total_purchases")
    assert [(row[0], row[1], row[5], row[at]) for row in rows] == [
        (str(first.pk), "60", "C1", "-1"),
        (str(first.pk), "61", "C2", "-2"),
        (str(second.pk), "60", "C4", "-4"),
    ]
    discard(first.group, Selection(run=first.pk, row=60), reason="no", by="ana")
    queue_replay(first.group, Selection(ids=(record_of(second).pk,)))
    assert [row[5] for row in exported(viewer, record_of(first))[1:]] == ["C2"]


def test_formulas_are_exported_as_text(group: FeatureGroup, sources: Path, viewer: Client) -> None:
    bad = [purchase(name, customer_segment="golden") for name in ("=1+1", "+A1", "-A1", "@SUM(A1)", "C9")]
    run = ingest(group, paths=[write_csv(sources / "a.csv", [*GOOD, *bad])])
    rows = exported(viewer, record_of(run, "customer_segment"))[1:]
    assert [row[5] for row in rows] == ["'=1+1", "'+A1", "'-A1", "'@SUM(A1)", "C9"]
    assert [harmless(text) for text in ("\t=1", "-5", "+5e3", "-5+1", "")] == ["'\t=1", "-5", "+5e3", "'-5+1", ""]


def test_an_export_that_is_not_whole_breaks_off(first: Run, viewer: Client) -> None:
    payload_file(first).unlink()
    answer: Any = viewer.get(reverse("catalog-quarantine-csv", args=[record_of(first).pk]))
    with pytest.raises(CorruptData, match="only 0 rows"):
        list(answer.streaming_content)


# -- The part of a group's page, and the words


def test_a_groups_page_tells_of_its_rules(second: Run, viewer: Client) -> None:
    part = reverse("catalog-group-quarantine", args=[second.group.name])
    said = text_of(viewer.get(part, headers=HTMX))
    assert "total_purchases at least 0 hourglass_empty 3 rows wait" in said
    answer = viewer.get(part)
    assert (answer.status_code, answer["Location"]) == (302, f"{QUARANTINE}?group=customer_purchases")
    discard(second.group, Selection(), reason="no", by="ana")
    assert "No rejected row waits." in text_of(viewer.get(part, headers=HTMX))


@pytest.mark.parametrize(
    ("rule", "detail", "words"),
    [
        ("max_value", "is above the maximum 5", "at most 5"),
        ("unique", "stands in an earlier row of this run", "unique within a run"),
        ("length", "has fewer than 3 characters", "no shorter than 3 characters"),
        ("length", "has 0 characters, not 3 to 5", "of a length within its bounds"),
        ("missing", "is missing; every row needs one", "present in every row"),
        ("transformation", "overflows", "computed without a lost value"),
    ],
)
def test_rules_are_said_in_words(rule: str, detail: str, words: str) -> None:
    assert words_of(rule, detail) == words


def test_a_computed_column_is_marked_where_it_comes_from(group: FeatureGroup, sources: Path, viewer: Client) -> None:
    group.features.filter(name="avg_purchase_value").update(validation={"max_value": 20})
    run = ingest(
        group,
        paths=[write_csv(sources / "a.csv", [purchase(f"G{n}", total_spent=4) for n in range(30)] + [purchase("C1")])],
    )
    said = text_of(viewer.get(page_of(record_of(run, "avg_purchase_value"))))
    assert "avg_purchase_value at most 20" in said
    assert "Row total_purchases error the rule's column total_spent error the rule's column customer_id" in said


def test_a_payload_that_was_cut_stays_text() -> None:
    rows = rows_of([{"row": 3, "payload": '{"a": "xxx'}, {"row": 4, "payload": '{"a": null, "b": [1]}'}], ["c"])
    assert rows.others == [(3, '{"a": "xxx')]
    assert rows.columns == [("c", True), ("a", False), ("b", False)]
    assert [(cell.text, cell.is_absent) for cell in rows.rows[0][1]] == [("null", True), ("null", True), ("[1]", False)]
