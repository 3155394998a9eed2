"""Reading statistics: the latest, what they are compared with, null rates; and how long they are kept."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from catalog.models import Feature, FeatureGroup, FeatureStatistics, Run, RunState, Tag
from catalog.statistics import (
    KEPT,
    MOVED,
    baseline,
    baselines,
    compare_new,
    described,
    forget_old,
    latest,
    moved,
    moved_features,
    null_rates,
)
from engine import statistics as engine
from engine.schema import Dtype
from tests.factories import make_customer_group

pytestmark = [pytest.mark.django_db, pytest.mark.database]

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def group() -> FeatureGroup:
    return make_customer_group(features={"amount": "float64", "visits": "int64", "seen": "timestamp", "note": "string"})


def record(
    feature: Feature, values: Sequence[Any], at: datetime, *, day: bool = False, **fields: Any
) -> FeatureStatistics:
    """Statistics of some values, as of a run that has succeeded or of pushes."""
    run = None
    if not day:
        run = Run.queue(feature.group)
        Run.objects.filter(pk=run.pk).update(state=fields.pop("state", RunState.SUCCEEDED))
    row = FeatureStatistics(
        feature=feature,
        group_version=feature.group.version,
        run=run,
        day=at.date() if day else None,
        computed_at=at,
        accepted_from=1,
        accepted_to=1,
        **fields,
    )
    dtype = Dtype.parse(feature.dtype)
    row.keep(engine.of(pl.Series(values, dtype=dtype.polars), dtype))
    row.save()
    return row


def named(group: FeatureGroup, name: str) -> Feature:
    return Feature.objects.select_related("group").get(group=group, name=name)


def test_the_latest_is_the_one_of_the_last_run_or_day(group: FeatureGroup, django_assert_num_queries: Any) -> None:
    amount, visits = named(group, "amount"), named(group, "visits")
    record(amount, [1.0], NOW - 2 * DAY)
    newest = record(amount, [2.0, None], NOW - DAY, day=True)
    record(visits, [1], NOW)
    of_visits = record(visits, [5], NOW + DAY)
    features = list(group.features.all())
    with django_assert_num_queries(1):
        found = latest(features)
        said = {pk: row.statistics for pk, row in found.items()}
    assert {pk: row.pk for pk, row in found.items()} == {amount.pk: newest.pk, visits.pk: of_visits.pk}
    assert (said[amount.pk].count, said[amount.pk].null_rate, said[visits.pk].maximum) == (2, 0.5, 5)
    assert latest([]) == {}


def test_runs_that_did_not_succeed_and_older_versions_say_nothing(group: FeatureGroup) -> None:
    amount = named(group, "amount")
    record(amount, [1.0], NOW, state=RunState.RUNNING)
    record(amount, [1.0], NOW, state=RunState.DEAD)
    assert latest([amount]) == {}
    record(amount, [1.0], NOW)
    group.version = 2
    group.save()
    assert latest([amount]) == {}
    assert null_rates([amount]) == {}


def test_the_baseline_is_of_the_seven_days_before_on_the_edges_of_the_latest(
    group: FeatureGroup, django_assert_num_queries: Any
) -> None:
    amount = named(group, "amount")
    record(amount, [-1_000.0], NOW - 8 * DAY)
    record(amount, [float(n) for n in range(100)], NOW - 7 * DAY)
    record(amount, [float(n) for n in range(100)], NOW - DAY, day=True)
    record(amount, [50.0], NOW - DAY, state=RunState.FAILED)
    newest = record(amount, [float(n) for n in range(50, 150)], NOW)
    record(named(group, "visits"), [1], NOW - DAY)
    with django_assert_num_queries(2):
        found = baseline(amount)
    assert found
    assert (found.count, found.minimum, found.maximum, found.mean) == (200, 0.0, 99.0, 49.5)
    assert found.histogram
    assert newest.statistics.histogram
    assert found.histogram.edges == newest.statistics.histogram.edges
    assert (found.histogram.below, found.histogram.above) == (100, 0)
    assert (baseline(amount, days=2).count, baseline(amount, days=9).minimum) == (100, -1_000.0)  # type: ignore[union-attr]
    assert baseline(named(group, "visits")) is None
    assert baseline(named(group, "note")) is None
    assert baselines({}) == {}


def test_what_has_moved_is_told_by_the_index(group: FeatureGroup) -> None:
    amount, note = named(group, "amount"), named(group, "note")
    spread = [n / 500 for n in range(500)]
    record(amount, spread, NOW - DAY)
    same = record(amount, spread, NOW)
    assert moved(same, baseline(amount)) < 0.01
    shifted = record(amount, [value + 0.5 for value in spread], NOW + DAY)
    assert moved(latest([amount])[amount.pk], baseline(amount)) > MOVED
    assert moved(shifted.statistics, baseline(amount)) > MOVED
    assert moved(shifted, None) == 0.0
    record(note, ["a"] * 400 + ["b"] * 100, NOW - DAY)
    record(note, ["a"] * 100 + ["b"] * 400, NOW)
    # 0.6 ln(0.8 / 0.2) twice: 1.66, less the chance
    assert moved(latest([note])[note.pk], baseline(note)) == pytest.approx(1.66, abs=0.02)


def test_what_has_moved_is_found_once_it_was_compared_and_until_newer_rows_come(group: FeatureGroup) -> None:
    amount, visits = named(group, "amount"), named(group, "visits")
    for feature in (amount, visits):
        record(
            feature, [float(value) for value in range(1_000)] if feature is amount else list(range(1_000)), NOW - DAY
        )
    record(amount, [value + 900.0 for value in range(1_000)], NOW)
    record(visits, list(range(1_000)), NOW)
    everything = Feature.objects.all()
    assert list(moved_features(everything)) == []
    assert (compare_new(), compare_new()) == (2, 0)
    assert [row.feature for row in moved_features(everything)] == [amount]
    assert list(moved_features(Feature.objects.filter(pk=visits.pk))) == []
    record(amount, [value + 900.0 for value in range(1_000)], NOW + DAY)  # not compared yet: nothing is said of it
    assert list(moved_features(everything)) == []


def test_of_a_tagged_feature_it_is_not_told_that_it_has_moved(group: FeatureGroup) -> None:
    amount = named(group, "amount")
    record(amount, [float(value) for value in range(1_000)], NOW - DAY)
    record(amount, [value + 900.0 for value in range(1_000)], NOW)
    compare_new()
    amount.tags.add(Tag.objects.create(name="pii"))
    assert list(moved_features(Feature.objects.all())) == []


def test_null_rates_are_told_oldest_first(group: FeatureGroup, django_assert_num_queries: Any) -> None:
    amount, visits, note = (named(group, name) for name in ("amount", "visits", "note"))
    for number in range(5):
        record(amount, [None] * number + [1.0] * (4 - number), NOW + number * DAY, day=number == 2)
    record(visits, [None], NOW)
    with django_assert_num_queries(1):
        rates = null_rates([amount, visits, note], runs=3)
    assert [(rate.computed_at, rate.rate, rate.count) for rate in rates[amount.pk]] == [
        (NOW + 2 * DAY, 0.5, 4),
        (NOW + 3 * DAY, 0.75, 4),
        (NOW + 4 * DAY, 1.0, 4),
    ]
    assert [rate.rate for rate in rates[visits.pk]] == [1.0]
    assert len(rates) == 2


def test_a_long_history_costs_no_query_more(group: FeatureGroup, django_assert_num_queries: Any) -> None:
    features = [Feature.objects.select_related("group").get(pk=one.pk) for one in group.features.all()]
    for feature in features:
        for number in range(20):
            record(feature, [], NOW - number * DAY, day=True)
    with django_assert_num_queries(2):
        assert len([one.told() for one in described(features)]) == 4


@pytest.mark.parametrize("which", ["feature", "group", "entity"])
def test_of_a_tagged_feature_nothing_but_counts_is_told_although_more_is_known(group: FeatureGroup, which: str) -> None:
    amount = named(group, "amount")
    record(amount, [3.0] * 300, NOW - DAY)
    record(amount, [4.0] * 300, NOW)
    {"feature": amount, "group": group, "entity": group.entity}[which].tags.add(Tag.objects.create(name="pii"))
    assert latest([amount])[amount.pk].statistics == engine.Statistics("number", 300, 0)
    found = baseline(amount)
    assert found
    assert (found.count, found.maximum, found.histogram) == (300, None, None)
    assert moved(latest([amount])[amount.pk], found) == 0.0
    assert "4.0" not in json.dumps(described([amount])[0].told(), default=str)


def test_times_are_told_as_such_and_their_spread_in_seconds(group: FeatureGroup) -> None:
    seen = named(group, "seen")
    record(seen, [NOW, NOW + timedelta(seconds=20)], NOW, day=True)
    told = described([seen])[0].told()["latest"]
    assert (told["min"], told["max"]) == ("2026-03-01T12:00:00Z", "2026-03-01T12:00:20Z")
    assert (told["mean"], told["std"], told["day"]) == ("2026-03-01T12:00:10Z", 10.0, date(2026, 3, 1))
    assert told["histogram"]["edges"][1] == "2026-03-01T12:00:01Z"


def test_old_statistics_are_forgotten_but_the_newest_of_each_feature(group: FeatureGroup) -> None:
    amount, visits = named(group, "amount"), named(group, "visits")
    now = timezone.now()
    old = now - KEPT - DAY
    record(amount, [1.0], old)
    record(visits, [1], old - DAY)
    kept = [record(amount, [2.0], now - KEPT + DAY), record(visits, [2], old)]
    assert forget_old() == 2
    assert set(FeatureStatistics.objects.values_list("pk", flat=True)) == {row.pk for row in kept}
    assert forget_old() == 0


def test_what_a_day_was_merged_into_is_kept_while_the_day_may_go_on(group: FeatureGroup) -> None:
    now = timezone.now()
    for days in (0, 1, 3):
        record(named(group, "visits"), [1], now - days * DAY, day=True, state=b"so far")
    forget_old()
    states = FeatureStatistics.objects.order_by("-computed_at").values_list("state", flat=True)
    assert [state and bytes(state) for state in states] == [b"so far", b"so far", None]


# -- The command


def said(*arguments: str) -> str:
    out = io.StringIO()
    call_command("statistics", *arguments, stdout=out)
    return out.getvalue()


def test_the_command_shows_a_table(group: FeatureGroup) -> None:
    record(named(group, "amount"), [1.0] * 300, NOW - DAY)
    record(named(group, "amount"), [2.0] * 299 + [None], NOW)
    record(named(group, "note"), ["a", "a", "b"], NOW)
    lines = [line.split() for line in said(group.name).splitlines()]
    assert lines[0] == ["feature", "rows", "nulls", "distinct", "min", "p50", "max", "mean", "std", "psi"]
    assert lines[1][:9] == ["amount", "300", "0.3%", "1", "2", "2", "2", "2", "0"]
    assert lines[1][-1] == "moved"
    assert lines[2] == ["visits", *["-"] * 9]
    assert lines[4] == ["note", "3", "0.0%", "2", "-", "a", "-", "-", "-", "-"]


def test_the_command_prints_the_same_as_json(group: FeatureGroup) -> None:
    record(named(group, "visits"), [1, 2], NOW)
    told = json.loads(said(group.name, "--json"))
    assert [one["feature"] for one in told] == [f"{group.name}:{name}" for name in ("amount", "visits", "seen", "note")]
    assert told[1]["latest"]["quantiles"]["p99"] == 2
    assert told[0]["latest"] is None


def test_the_command_offers_near_names(group: FeatureGroup, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises((SystemExit, CommandError)):
        call_command("statistics", "customer_purchase")
    assert "customer_purchases" in capsys.readouterr().err
