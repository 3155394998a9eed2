"""The demo: CDNOW's purchases as running totals per customer, loaded the way any team would load its own.

What else is in its catalog is told by demo_stories.py.

Dates are moved by whole weeks, so that weekdays and intervals stay and the last purchase lies within the week before
the first load. The prepared file keeps the shift: a later load finds it, and adds nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from django.conf import settings
from django.contrib.auth.models import User
from django.utils import timezone

from catalog import statistics
from catalog.definitions import apply
from catalog.models import Run
from featurehub import demo_stories
from ingestion import ingest
from ingestion.materialize import ensure_warm
from ingestion.push import find_group

FOLDER = Path(settings.BASE_DIR) / "examples" / "cdnow"
TRANSACTIONS = FOLDER / "transactions.csv.gz"
DEFINITIONS = FOLDER / "definitions.yaml"
GROUP = "customer_purchases"
SERVICE = "churn_v1"


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a load did: the run, the shift of all dates in weeks, and the runs of stories that were not told before."""

    run: Run
    shift_weeks: int
    stories: tuple[Run, ...]


def load(progress: Callable[[Run], None] | None = None, *, follower: User | None = None) -> Loaded:
    """Prepare the source file if it is not there, apply the definitions, ingest what is new, tell the stories.

    follower: see demo_stories.
    """
    source = prepare(Path(settings.FEATUREHUB_SOURCE_ROOTS[0]) / "cdnow" / f"{GROUP}.parquet")
    apply([DEFINITIONS], by="demo")
    ensure_warm()
    run = ingest.ingest(find_group(GROUP), by="demo", progress=progress)
    weeks = shift_of(source)
    told = demo_stories.load(source.parent, read_purchases, shift=pd.Timedelta(weeks=weeks), follower=follower)
    statistics.compare_new()
    return Loaded(run, weeks, tuple(told))


def prepare(path: Path) -> Path:
    """The source file, made from the purchases if it is not there yet; it appears whole or not at all."""
    if path.exists():
        return path
    purchases = read_purchases()
    weeks = weeks_to_move(purchases["purchased_on"].max().date(), today=timezone.now().date())
    table = pa.Table.from_pandas(running_totals(purchases, shift=pd.Timedelta(weeks=weeks)), preserve_index=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}.unfinished")
    pq.write_table(table.replace_schema_metadata({"shift_weeks": str(weeks)}), unfinished)
    unfinished.replace(path)
    return path


def shift_of(source: Path) -> int:
    """By how many weeks the dates of a prepared file were moved."""
    return int(pq.read_schema(source).metadata[b"shift_weeks"])


def read_purchases() -> pd.DataFrame:
    """The purchases as the shop recorded them; ids stay text (`00002`)."""
    return pd.read_csv(TRANSACTIONS, dtype={"customer_id": "string"}, parse_dates=["purchased_on"])


def weeks_to_move(last: date, *, today: date) -> int:
    """Whole weeks that bring `last` into the seven days before `today`.

    >>> weeks_to_move(date(2026, 1, 1), today=date(2026, 1, 15))
    1
    """
    return ((today - last).days - 1) // 7


def running_totals(purchases: pd.DataFrame, *, shift: pd.Timedelta) -> pd.DataFrame:
    """One row per customer and day with a purchase: totals up to its end, at its end (UTC midnight), dates moved.

    Money is summed in whole cents, so that no total carries the rounding of the ones before.
    """
    cents = purchases.assign(cents=(purchases["amount_usd"] * 100).round().astype("int64"))
    days = cents.groupby(["customer_id", "purchased_on"], sort=True).agg(
        purchases=("units", "size"), units=("units", "sum"), cents=("cents", "sum")
    )
    totals = days.groupby(level="customer_id").cumsum().reset_index()
    previous = totals.groupby("customer_id")["purchased_on"].diff().dt.days
    return pd.DataFrame(
        {
            "customer_id": totals["customer_id"],
            "purchased_until": (totals["purchased_on"] + pd.Timedelta(days=1) + shift).dt.tz_localize("UTC"),
            "total_purchases": totals["purchases"],
            "total_units": totals["units"],
            "total_spent": totals["cents"] / 100,
            "days_since_previous_purchase": previous.astype("Int64"),
        }
    )
