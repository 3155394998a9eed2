"""The demo's stories: what a catalog looks like after some months, made by real runs over the shop's purchases.

A stale group, a run that failed, rows in quarantine under several rules, a feature that moved, a deprecated one that is
still read, one without an owner, a draft, a training dataset. Each is told once: whoever mends a rule, activates what
was deprecated or drops the dataset finds it so after the next load. examples/cdnow/README.md says what is planted.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from django.conf import settings
from django.contrib.auth.models import User
from django.utils import timezone

from catalog.definitions import apply
from catalog.follows import follow
from catalog.lifecycle import change_status
from catalog.models import Entity, Feature, FeatureGroup, Run, RunKind, Status
from engine.errors import InvalidRows
from engine.schema import EVENT_TIMESTAMP
from ingestion import ingest
from ingestion.push import find_group
from serving import datasets, spines
from serving.training import Asked

DEFINITIONS = Path(settings.BASE_DIR) / "examples" / "cdnow" / "stories.yaml"
DATASET = "sales_history"
BY = "demo"
#: The entities of the stories.
FOLLOWED = ("day", "purchase")
#: The shop won its customers in the first quarter of its data; enough days follow in the first file that a distribution
#: can be compared with it.
FIRST_MONTHS_END, LAST_QUARTER_BEGINS = pd.Timestamp("1997-07-31"), pd.Timestamp("1998-04-01")
#: Of the purchases of the last quarter each so many-th one is spoilt, none in two ways, and none that is too large for
#: the rule that is too strict.
NEGATIVE_EACH, ABSURD_EACH, MISSING_EACH = 149, 199, 167
LARGEST_USUAL = 10
DAYS_TO_SUNSET = 60
DAYS_BETWEEN_SPINE_ROWS = 30


@dataclass(frozen=True, slots=True)
class Story:
    """One file of a group, and the run that reads it.

    make: from the purchases, with the end of each one's day, moved, as `closed_at`, to the rows of the file.
    """

    group: str
    file: str
    make: Callable[[pd.DataFrame], pd.DataFrame]
    fails: bool = False

    def path(self, folder: Path) -> Path:
        """Where the file is."""
        return folder / self.file

    def is_told(self, folder: Path) -> bool:
        """Whether a run was asked to read the file, whatever became of it."""
        return Run.objects.filter(group__name=self.group, paths=[str(self.path(folder).absolute())]).exists()


def load(
    folder: Path, read: Callable[[], pd.DataFrame], *, shift: pd.Timedelta, follower: User | None = None
) -> list[Run]:
    """Tell what has not been told yet; the runs that this took, oldest first.

    A hub that has a group `daily_sales` of its own is left alone.

    folder: below a source root. read: gives the purchases as the shop recorded them. shift: by how much dates move.
    follower: follows the stories from the first on, so that their inbox has them.
    """
    group = FeatureGroup.objects.filter(name="daily_sales").first()
    if group is None:
        apply([DEFINITIONS], by=BY)
        if follower:
            for entity in Entity.objects.filter(name__in=FOLLOWED):
                follow(follower, entity)
    elif not group.tags.filter(name="demo").exists():
        return []
    runs = _tell([story for story in STORIES if not story.is_told(folder)], folder, read, shift)
    _deprecate_orders()
    return runs + _make_dataset()


def _tell(untold: list[Story], folder: Path, read: Callable[[], pd.DataFrame], shift: pd.Timedelta) -> list[Run]:
    if not untold:
        return []
    purchases = read()
    closed_at = (purchases["purchased_on"] + pd.Timedelta(days=1) + shift).dt.tz_localize("UTC")
    purchases = purchases.assign(purchase_id=range(1, len(purchases) + 1), closed_at=closed_at)
    return [_ingest(story, folder, purchases) for story in untold]


def _ingest(story: Story, folder: Path, purchases: pd.DataFrame) -> Run:
    """The run of a story; what makes one fail that is meant to is in the run, and raised by any other."""
    path = story.path(folder)
    if not path.exists():
        _write(story.make(purchases), path)
    run = Run.queue(find_group(story.group), requested_by=BY, paths=[path])
    with suppress(*[InvalidRows] * story.fails):
        ingest.execute(run)
    return run


def _write(rows: pd.DataFrame, path: Path) -> None:
    """The file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}.unfinished")
    if path.suffix == ".csv":
        rows.to_csv(unfinished, index=False, date_format="%Y-%m-%dT%H:%M:%SZ")
    else:
        pq.write_table(pa.Table.from_pandas(rows, preserve_index=False), unfinished)
    unfinished.replace(path)


def daily_sales(purchases: pd.DataFrame) -> pd.DataFrame:
    """What was sold on each day; money in whole cents until the end, so that no sum carries the roundings before it."""
    cents = purchases.assign(cents=(purchases["amount_usd"] * 100).round().astype("int64"))
    days = cents.groupby("closed_at", sort=True).agg(
        daily_purchases=("units", "size"), daily_units=("units", "sum"), cents=("cents", "sum")
    )
    days = days.assign(daily_revenue=days.pop("cents") / 100).reset_index()
    days.insert(0, "day", (days["closed_at"] - pd.Timedelta(days=1)).dt.strftime("%Y-%m-%d"))
    return days


def first_months(purchases: pd.DataFrame) -> pd.DataFrame:
    """Daily sales of the months in which the shop won its customers and of the next four: some 210 purchases a day."""
    return daily_sales(purchases[purchases["purchased_on"] <= FIRST_MONTHS_END])


def since_august(purchases: pd.DataFrame) -> pd.DataFrame:
    """Daily sales of the eleven months after: the same customers, some 75 purchases a day."""
    return daily_sales(purchases[purchases["purchased_on"] > FIRST_MONTHS_END])


def new_customers(purchases: pd.DataFrame) -> pd.DataFrame:
    """First purchases of each day; there is none after the first quarter."""
    days = daily_sales(purchases[~purchases.duplicated("customer_id")])
    renamed = {"daily_purchases": "new_customers", "daily_revenue": "new_customer_revenue"}
    return days.drop(columns="daily_units").rename(columns=renamed)


def misnamed_repeat_sales(purchases: pd.DataFrame) -> pd.DataFrame:
    """All but the first purchases of each day. Planted: the header says `repeat_revnue`."""
    days = daily_sales(purchases[purchases.duplicated("customer_id")])
    renamed = {"daily_purchases": "repeat_purchases", "daily_revenue": "repeat_revnue"}
    return days.drop(columns="daily_units").rename(columns=renamed)


def spoilt_lines(purchases: pd.DataFrame) -> pd.DataFrame:
    """The purchases of the last quarter. Planted: amounts below zero, amounts in thousandths, and missing units.

    Purchases of more than ten CDs are the shop's own: the rule that refuses them is too strict.
    """
    lines = purchases.loc[purchases["purchased_on"] >= LAST_QUARTER_BEGINS].reset_index(drop=True)
    lines = lines.rename(columns={"amount_usd": "amount", "closed_at": "booked_at"}).astype({"units": "Int64"})
    number = (lines.index + 1).where(lines["units"] <= LARGEST_USUAL, 0)  # no row breaks the strict rule and another
    negative, absurd, missing = (
        (number > 0) & (number % each == 0) for each in (NEGATIVE_EACH, ABSURD_EACH, MISSING_EACH)
    )
    lines.loc[negative, "amount"] = -lines["amount"] - 0.01
    lines.loc[absurd & ~negative, "amount"] = (lines["amount"] + 10) * 1000
    lines.loc[missing & ~negative & ~absurd, "units"] = pd.NA
    return lines[["purchase_id", "booked_at", "units", "amount"]].round({"amount": 2})


STORIES = (
    Story("daily_sales", "daily_sales/first_months.parquet", first_months),
    Story("daily_sales", "daily_sales/since_august.parquet", since_august),
    Story("daily_new_customers", "daily_new_customers.parquet", new_customers),
    Story("purchase_lines", "purchase_lines/last_quarter.csv", spoilt_lines),
    Story("daily_repeat_sales", "daily_repeat_sales.csv", misnamed_repeat_sales, fails=True),
)


def _deprecate_orders() -> None:
    """Once: who activates it again finds it active after the next load."""
    features = Feature.objects.select_related("group").filter(group__name="daily_sales")
    orders, replacement = features.get(name="orders"), features.get(name="daily_purchases")
    if orders.history.filter(status=Status.DEPRECATED).exists():
        return
    sunset = timezone.now().replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=DAYS_TO_SUNSET)
    reason = "It was called orders in the first year only; both are the same number."
    change_status(orders, Status.DEPRECATED, by=BY, reason=reason, replaced_by=replacement, sunset=sunset)


def _make_dataset() -> list[Run]:
    """A training dataset over a day of each month; none when one was made before, and dropped maybe."""
    if Run.objects.filter(kind=RunKind.TRAIN, requested_by=BY).exists():
        return []
    days = spines.of_group("daily_sales").sort_by(EVENT_TIMESTAMP)
    spine = days.take(list(range(0, len(days), DAYS_BETWEEN_SPINE_ROWS)))
    dataset = datasets.register(DATASET, Asked("sales_forecast@2"), spine, by=BY)
    return [datasets.execute(dataset.run)]
