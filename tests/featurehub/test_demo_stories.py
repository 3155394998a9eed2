"""Each story of the demo is there, is what examples/cdnow/README.md says, and is told once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from engine.errors import FeaturehubError
from featurehub.environment import PROJECT

DAY = pd.Timedelta(days=1)


@pytest.fixture
def shift() -> pd.Timedelta:
    from featurehub import demo

    last = demo.read_purchases()["purchased_on"].max().date()
    return pd.Timedelta(weeks=demo.weeks_to_move(last, today=timezone.now().date()))


def load(sources: Path, shift: pd.Timedelta, **options: Any) -> list[Any]:
    from featurehub import demo, demo_stories

    return demo_stories.load(sources / "cdnow", demo.read_purchases, shift=shift, **options)


def group(name: str) -> Any:
    from catalog.models import FeatureGroup

    return FeatureGroup.objects.get(name=name)


def rows(name: str) -> pl.DataFrame:
    from tests.ingestion import contents

    return pl.DataFrame(contents.offline(group(name)), infer_schema_length=None)


def quarantined(name: str) -> dict[str, tuple[int, int]]:
    """How many rows broke each rule, and how many of them wait."""
    from ingestion.settle import Selection, rules_of

    return {
        f"{rule.column} {rule.rule}": (rule.row_count, rule.pending_rows) for rule in rules_of(group(name), Selection())
    }


def counts() -> dict[str, int]:
    """How many rows there are of what a load could add."""
    from catalog.models import FeatureGroup, Notice, Owner, Run, TrainingDataset
    from ingestion.models import QuarantinedRule, SourceFile

    kinds = (Run, SourceFile, QuarantinedRule, Notice, Owner, TrainingDataset, FeatureGroup)
    return {kind.__name__: kind.objects.count() for kind in kinds} | {"changes": FeatureGroup.history.count()}


def test_what_needs_attention_is_there(sources: Path, shift: pd.Timedelta) -> None:
    from catalog import freshness
    from catalog.lifecycle import readers_of
    from catalog.models import Feature, FeatureGroup, Run

    runs = load(sources, shift)
    # Stale: the shop has won nobody since March 1997, so that everything is withheld.
    (stale,) = freshness.stale(FeatureGroup.objects.all())
    assert stale.name == "daily_new_customers"
    assert stale.age > stale.ttl > stale.freshness
    # Without an owner: its features, and no others.
    unowned = Feature.objects.filter(owner=None, group__owner=None)
    assert {str(feature) for feature in unowned} == {
        "daily_new_customers:new_customers",
        "daily_new_customers:new_customer_revenue",
    }
    # Failed: one run, which says what is wrong and what was meant.
    (failed,) = [run for run in runs if run.state != "succeeded"]
    assert (failed.state, failed.subject, failed.error_code) == ("failed", "daily_repeat_sales", "invalid_rows")
    assert "repeat_revnue: the column is not part of the group. Did you mean repeat_revenue" in failed.error
    assert list(Run.objects.filter(state="failed")) == [failed]
    # Deprecated, with a replacement and a sunset, and still read.
    orders = Feature.objects.get(name="orders")
    assert (orders.status, str(orders.replaced_by)) == ("deprecated", "daily_sales:daily_purchases")
    assert timezone.now() < orders.sunset_at < timezone.now() + 61 * DAY
    assert readers_of(orders) == ["sales_forecast@1"]


def test_the_rest_of_a_catalog_is_there(sources: Path, shift: pd.Timedelta) -> None:
    from catalog.models import Entity, FeatureGroup, FeatureService, Owner, TrainingDataset
    from serving import datasets, vectors

    load(sources, shift)
    assert {owner.name for owner in Owner.objects.all()} == {"finance", "merchandising", "data_platform"}
    for kind in (Entity, FeatureGroup, FeatureService):
        for thing in kind.objects.all():
            assert thing.tags.filter(name="demo").exists(), thing
            assert thing.description, thing
    assert [each.status for each in FeatureGroup.objects.filter(name="purchase_returns")] == ["draft"]
    assert [str(each) for each in FeatureService.objects.filter(name="sales_forecast", status="active")] == [
        "sales_forecast@1",
        "sales_forecast@2",
    ]
    dataset = TrainingDataset.objects.get()
    made = pl.read_parquet(datasets.data_file(dataset))
    assert (dataset.name, dataset.service, made.height, made.null_count().sum_horizontal()[0]) == (
        *("sales_history", "sales_forecast@2"),
        *(19, 0),
    )
    # 61.98 USD were paid for purchase 39; 15.495 of them is a quarter. Online, by what the request brings.
    (line,) = rows("purchase_lines").filter(pl.col("purchase_id") == 39).to_dicts()
    asked = vectors.read(
        vectors.of_service("refund_check"),
        {"purchase_id": [39]},
        request={"refund_asked": [line["amount"] / 4]},
    )
    assert asked.python_values() == [[line["amount"], line["units"], 0.25]]


def test_quarantined_rows_break_four_rules_and_the_strict_one_is_mended_and_replayed(
    sources: Path, shift: pd.Timedelta
) -> None:
    from ingestion.ingest import execute
    from ingestion.settle import Selection, queue_replay

    load(sources, shift)
    lines = pd.read_csv(PROJECT / "examples" / "cdnow" / "transactions.csv.gz", parse_dates=["purchased_on"])
    lines = lines[lines.purchased_on >= "1998-04-01"]
    assert quarantined("purchase_lines") == {
        "amount min_value": (39, 39),
        "amount max_value": (28, 28),
        "units not_null": (35, 35),
        "units max_value": (81, 81),
    }
    stored = rows("purchase_lines")
    assert len(stored) == len(lines) - 39 - 28 - 35 - 81
    # What was not spoilt is what the shop recorded.
    theirs = pl.DataFrame({"purchase_id": lines.index + 1, "units": lines.units, "amount": lines.amount_usd})
    assert (
        stored.select("purchase_id", "units", "amount")
        .sort("purchase_id")
        .equals(theirs.filter(pl.col("purchase_id").is_in(stored["purchase_id"].implode())).sort("purchase_id"))
    )
    units = group("purchase_lines").features.get(name="units")
    units.validation = units.validation | {"max_value": 100}
    units.save()
    run = execute(queue_replay(group("purchase_lines"), Selection(column="units", rule="max_value")))
    assert (run.rows_accepted, run.rows_quarantined) == (81, 0)
    assert quarantined("purchase_lines")["units max_value"] == (81, 0)
    assert rows("purchase_lines")["units"].max() == lines.units.max() == 99
    load(sources, shift)
    assert group("purchase_lines").features.get(name="units").validation["max_value"] == 100


def test_purchases_a_day_moved_between_two_runs(sources: Path, shift: pd.Timedelta) -> None:
    from catalog import statistics
    from catalog.models import Feature

    load(sources, shift)
    first, second = group("daily_sales").runs.order_by("acceptance_id")
    stored = rows("daily_sales")
    before, after = (stored.filter(pl.col("_run") == str(run.pk))["daily_purchases"] for run in (first, second))
    assert (len(before), len(after)) == (212, 334)
    assert before.sum() + after.sum() == 69_659
    assert (round(before.mean()), round(after.mean())) == (210, 75)
    statistics.compare_new()
    moved = {row.feature.name for row in statistics.moved_features(Feature.objects.all())}
    assert moved >= {"daily_purchases", "daily_units", "daily_revenue"}
    assert stored["event_timestamp"].max() == (pd.Timestamp("1998-07-01", tz="UTC") + shift).to_pydatetime()


def test_stories_are_told_once_and_what_people_did_since_stays(sources: Path, shift: pd.Timedelta) -> None:
    from catalog.lifecycle import change_status
    from catalog.models import Feature, TrainingDataset
    from serving import datasets

    assert len(load(sources, shift)) == 6
    before = counts()
    assert load(sources, shift) == []
    assert counts() == before
    change_status(Feature.objects.get(name="orders"), "active")
    datasets.drop(TrainingDataset.objects.get())
    assert load(sources, shift) == []
    assert Feature.objects.get(name="orders").status == "active"
    assert not TrainingDataset.objects.exists()


def test_a_load_that_was_cut_short_is_gone_on_with(
    sources: Path, shift: pd.Timedelta, monkeypatch: pytest.MonkeyPatch
) -> None:
    from featurehub import demo_stories

    def cut_short(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(demo_stories, "_deprecate_orders", cut_short)
        patched.setattr(demo_stories, "STORIES", demo_stories.STORIES[:2])
        with pytest.raises(KeyboardInterrupt):
            load(sources, shift)
    assert [run.subject for run in load(sources, shift)] == [
        *("daily_new_customers", "purchase_lines", "daily_repeat_sales", "sales_history"),
    ]
    assert len(rows("daily_sales")) == 546


def test_a_hub_with_a_group_of_that_name_is_left_alone(sources: Path, shift: pd.Timedelta) -> None:
    from catalog.models import FeatureGroup
    from tests.factories import make_customer_group

    make_customer_group("daily_sales")
    assert load(sources, shift) == []
    assert [each.name for each in FeatureGroup.objects.all()] == ["daily_sales"]


def test_only_the_story_that_is_meant_to_fails_quietly(
    sources: Path, shift: pd.Timedelta, monkeypatch: pytest.MonkeyPatch
) -> None:
    from featurehub import demo_stories

    unexpected = tuple(
        demo_stories.Story(story.group, story.file, story.make) for story in demo_stories.STORIES if story.fails
    )
    monkeypatch.setattr(demo_stories, "STORIES", unexpected)
    with pytest.raises(FeaturehubError, match="repeat_revnue"):
        load(sources, shift)


def test_people_who_follow_are_told_the_stories(sources: Path, shift: pd.Timedelta) -> None:
    from catalog import notices
    from catalog.follows import inbox, unfollow

    ada = User.objects.create(username="ada", is_superuser=True)
    load(sources, shift, follower=ada)
    notices.look()
    assert [entry.notice.kind for entry in inbox(ada)] == ["stale", "deprecated", "failed", "quarantined"]
    unfollow(ada, group("daily_sales").entity)
    load(sources, shift, follower=ada)
    assert [each.thing.name for each in ada.follows.all()] == ["purchase"]
