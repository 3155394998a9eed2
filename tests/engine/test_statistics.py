"""Statistics against what plain Python counts of the same values."""

from __future__ import annotations

import itertools
import json
import math
import statistics as plain
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import statistics
from engine.schema import ACCEPTED, DELETED, ORDINAL, TIMESTAMP_POLARS, Dtype
from engine.statistics import (
    LONGEST,
    MOST_COUNTED,
    MOVED,
    POINTS,
    QUANTILES,
    SAMPLE,
    TOP,
    Accumulator,
    Collected,
    Statistics,
    merged,
    moved,
)

INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
FLOAT64 = st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(st.characters(codec="utf-8"), max_size=90)
MOMENTS = st.datetimes(datetime(1700, 1, 1), datetime(2300, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
NUMBERS = {"int64": INT64 | st.integers(0, 3), "float64": FLOAT64 | st.sampled_from([0.5, 1.5])}
SEED = 20


def series(values: Sequence[Any], dtype: str) -> pl.Series:
    return pl.Series("c", values, dtype=Dtype.parse(dtype).polars)


def of(values: Sequence[Any], dtype: str) -> Statistics:
    return statistics.of(series(values, dtype), Dtype.parse(dtype))


def collected(values: Sequence[Any], dtype: str, splits: Sequence[int] = ()) -> Collected:
    """The same as rows of one run, in batches that end at these places, counted one after the other."""
    frame = pl.DataFrame(
        {
            "c": series(values, dtype),
            ACCEPTED: pl.Series([7] * len(values), dtype=pl.Int64()),
            ORDINAL: pl.Series(range(len(values)), dtype=pl.Int64()),
        }
    )
    total = Collected({"c": Dtype.parse(dtype)})
    ends = [0, *sorted(splits), len(values)]
    for start, end in itertools.pairwise(ends):
        total.add(frame[start:end])
    return total


def at_rank(values: Sequence[Any], share: float) -> Any:
    """The smallest value that at least this share of all is not above."""
    ascending = sorted(values)
    return next(value for at, value in enumerate(ascending, 1) if at >= share * len(ascending) - 1e-9)


def naive_bins(values: Sequence[Any], edges: Sequence[Any]) -> list[int]:
    """How many lie below the edges, in each bin and above."""
    bins = [sum(value < edges[0] for value in values)]
    for low, high in itertools.pairwise(edges):
        bins.append(sum(low <= value < high or (high == edges[-1] and value == high) for value in values))
    return [*bins, sum(value > edges[-1] for value in values)]


def is_near(found: float | None, right: float, scale: float) -> bool:
    return found is not None and math.isclose(
        found, right, rel_tol=1e-9, abs_tol=1e-9 * scale + 1e-150
    )  # whose square is 0


@pytest.mark.parametrize("dtype", ["int64", "float64"])
@given(data=st.data())
def test_numbers_are_what_plain_python_counts(dtype: str, data: st.DataObject) -> None:
    column = data.draw(st.lists(st.none() | NUMBERS[dtype], max_size=60))
    splits = data.draw(st.lists(st.integers(0, len(column)), max_size=4))
    found = collected(column, dtype, splits).columns["c"].statistics()
    values = [value for value in column if value is not None]
    assert (found.count, found.nulls, found.described) == (len(column), column.count(None), len(values))
    if not values:
        assert found == Statistics("number", len(column), len(column))
        return
    assert (found.minimum, found.maximum, found.distinct) == (min(values), max(values), len(set(values)))
    assert all(type(value) is type(values[0]) for value in (found.minimum, found.maximum))
    assert found.quantiles == {name: at_rank(values, share) for name, share in QUANTILES.items()}
    assert found.is_exact
    assert found.histogram
    assert [*found.histogram.all_counts] == naive_bins(values, found.histogram.edges)
    assert list(found.histogram.edges) == sorted(found.histogram.edges)
    size = max(map(abs, values))
    if size < 1e150:
        assert is_near(found.mean, plain.fmean(values), size)
        assert is_near(found.std, plain.pstdev(values), size)
    assert all(part is None or math.isfinite(part) for part in (found.mean, found.std))
    json.dumps(found.told(), allow_nan=False)


@given(column=st.lists(st.none() | MOMENTS, min_size=1, max_size=40))
def test_timestamps_are_numbers_of_microseconds(column: list[datetime | None]) -> None:
    found = of(column, "timestamp")
    values = [(moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) for moment in column if moment]
    assert (found.measure, found.described) == ("timestamp", len(values))
    if values:
        assert (found.minimum, found.maximum) == (min(values), max(values))
        assert found.quantiles["p50"] == at_rank(values, 0.5)
        assert found.histogram
        assert all(isinstance(edge, int) for edge in found.histogram.edges)
        assert [*found.histogram.all_counts] == naive_bins(values, found.histogram.edges)


@pytest.mark.parametrize(("dtype", "values"), [("string", TEXT | st.sampled_from("abc")), ("bool", st.booleans())])
@given(data=st.data())
def test_top_values_are_counted_by_what_is_left_after_the_cut(
    dtype: str, values: st.SearchStrategy[Any], data: st.DataObject
) -> None:
    column = data.draw(st.lists(st.none() | values, max_size=60))
    splits = data.draw(st.lists(st.integers(0, len(column)), max_size=4))
    found = collected(column, dtype, splits).columns["c"].statistics()
    counts = Counter(value[:LONGEST] if isinstance(value, str) else value for value in column if value is not None)
    assert dict(found.top) == dict(sorted(counts.items(), key=lambda one: (-one[1], str(one[0])))[:TOP])
    assert [count for _, count in found.top] == sorted((count for _, count in found.top), reverse=True)
    assert (found.described, found.is_exact) == (counts.total(), True)
    assert found.distinct == (len(counts) if counts else None)


@pytest.mark.parametrize(
    ("dtype", "values"), [("int64", INT64), ("float64", FLOAT64), ("string", TEXT), ("bool", st.booleans())]
)
@given(data=st.data())
def test_what_was_merged_and_written_is_what_was_counted_in_one_go(
    dtype: str, values: st.SearchStrategy[Any], data: st.DataObject
) -> None:
    column = data.draw(st.lists(st.none() | values, max_size=40))
    at = data.draw(st.integers(0, len(column)))
    whole = collected(column, dtype)
    first, second = Collected(whole_columns(dtype)), collected(column, dtype)
    rows = frame_of(column, dtype)
    first.add(rows[:at])
    second = Collected(whole_columns(dtype))
    second.add(rows[at:])
    first.merge_bytes(second.to_bytes())
    assert first.accepted == whole.accepted
    assert_same(first.columns["c"].statistics(), whole.columns["c"].statistics())


def whole_columns(dtype: str) -> dict[str, Dtype]:
    return {"c": Dtype.parse(dtype)}


def frame_of(column: Sequence[Any], dtype: str) -> pl.DataFrame:
    places = {ACCEPTED: pl.Series([7] * len(column), dtype=pl.Int64()), ORDINAL: pl.Series(range(len(column)))}
    return pl.DataFrame({"c": series(column, dtype), **places})


def assert_same(found: Statistics, wanted: Statistics) -> None:
    """Equal but for the rounding of mean and standard deviation."""
    found_told, wanted_told = found.told(), wanted.told()
    scale = max(abs(wanted.minimum or 0), abs(wanted.maximum or 0), 1)
    for name in ("mean", "std"):
        one, other = found_told.pop(name), wanted_told.pop(name)
        if scale < 1e150 and other is not None:
            assert is_near(one, other, scale)
    assert found_told == wanted_told


def test_integers_beyond_what_a_float_holds_stay_what_they_are() -> None:
    big = (1 << 53) + 1
    found = of([big, big + 1, big + 2, -big], "int64")
    assert (found.minimum, found.maximum) == (-big, big + 2)
    assert found.quantiles["p50"] == big
    assert Statistics.read(json.loads(json.dumps(found.told()))) == found


def test_a_large_float_that_postgresql_wrote_as_a_whole_number_is_one_again() -> None:
    found = of([1e300, 2e300], "float64")
    told = json.loads(json.dumps(found.told()), parse_float=lambda text: int(float(text)))
    read = Statistics.read(told)
    assert (read.minimum, read.maximum) == (1e300, 2e300)
    assert all(isinstance(edge, float) for edge in read.histogram.edges)  # type: ignore[union-attr]


def test_a_mean_that_no_float_holds_is_told_to_nobody() -> None:
    found = of([1.7e308, 1.7e308, -1.7e308], "float64")
    assert (found.maximum, found.std) == (1.7e308, None)
    assert found.histogram
    assert sum(found.histogram.counts) == 3


def test_texts_of_any_alphabet_are_cut_by_characters_and_nul_is_escaped() -> None:
    huge, nul = "Ж" * 1_000_000, "a\0b"
    found = of([huge, huge + "x", nul, "日本語", None], "string")
    assert found.top[0] == ("Ж" * LONGEST, 2)
    assert dict(found.top)["日本語"] == 1
    assert [r"a\x00b", 1] in json.loads(json.dumps(found.told()))["top"]


def test_of_lists_the_lengths_are_described_and_of_embeddings_rows_and_nulls() -> None:
    found = of([[1, 2, 3], [], None, [4]], "list<int64>")
    assert (found.measure, found.nulls, found.minimum, found.maximum, found.mean) == ("length", 1, 0, 3, 4 / 3)
    assert of([[1.0, 2.0], None], "embedding(2)") == Statistics("none", 2, 1)


def test_a_far_outlier_does_not_flatten_the_histogram() -> None:
    # 1,000 values from 0 to 0.999 and one of a million: p1 is 0.01, p99 0.99, and the bins end at 0.99 + 0.98.
    found = of([number / 1000 for number in range(1000)] + [1e6], "float64")
    assert found.histogram
    assert found.histogram.edges[-1] == pytest.approx(1.97)
    assert (found.histogram.below, found.histogram.above, sum(found.histogram.counts)) == (0, 1, 1000)
    assert found.maximum == 1e6


def test_one_value_has_one_bin() -> None:
    found = of([4, 4, 4], "int64")
    assert found.histogram
    assert (found.histogram.edges, found.histogram.counts) == ((4, 4), (3,))
    assert (found.std, found.distinct) == (0.0, 1)


# -- What is approximate, and how far off


def test_quantiles_of_many_values_are_within_one_in_a_hundred() -> None:
    random = np.random.default_rng(SEED)
    values = random.lognormal(0, 2, 400_000)
    found = collected(values.tolist(), "float64", range(50_000, 400_000, 50_000)).columns["c"].statistics()
    assert not found.is_exact
    ascending = np.sort(values)
    for name, share in QUANTILES.items():
        rank = np.searchsorted(ascending, found.quantiles[name]) / len(values)
        assert abs(rank - share) < 0.02, name
    assert found.mean == pytest.approx(values.mean())
    assert found.std == pytest.approx(values.std())
    assert (found.minimum, found.maximum) == (values.min(), values.max())
    assert found.histogram
    assert sum(found.histogram.all_counts) == len(values)
    assert abs(np.cumsum(found.histogram.all_counts)[5] - naive_bins_fast(ascending, found, 5)) < 0.02 * len(values)
    assert found.distinct == pytest.approx(len(values), rel=0.15)


def naive_bins_fast(ascending: np.ndarray, found: Statistics, at: int) -> int:
    assert found.histogram
    return int(np.searchsorted(ascending, found.histogram.edges[at]))


def test_the_sample_is_of_all_rows_whatever_their_order_in_time() -> None:
    """Values that rise: the first batches must not fill the sample."""
    found = collected(list(range(300_000)), "int64", range(30_000, 300_000, 30_000)).columns["c"].statistics()
    assert found.quantiles["p50"] == pytest.approx(150_000, rel=0.03)
    assert found.quantiles["p95"] == pytest.approx(285_000, rel=0.01)


def test_the_split_of_the_rows_does_not_matter() -> None:
    values = [Random(SEED).random() for _ in range(1)] + [Random(number).random() for number in range(50_000)]
    one = collected(values, "float64").columns["c"].statistics()
    many = collected(values, "float64", [1, 9_000, 9_001, 40_000]).columns["c"].statistics()
    assert not one.is_exact
    assert_same(many, one)


def test_nulls_do_not_thin_the_sample() -> None:
    values = [float(number) if number % 20 == 0 else None for number in range(300_000)]  # 15,000 values
    found = collected(values, "float64", [100_000, 200_000])
    assert len(found.columns["c"]._sample.thinned(SAMPLE).values) >= SAMPLE - 1


def test_more_different_texts_than_are_counted_are_told_from_the_sample() -> None:
    often = ["often"] * 30_000
    rare = [f"rare {number}" for number in range(30_000)]
    column = [text for pair in zip(often, rare, strict=True) for text in pair]
    found = collected(column, "string", [20_000, 40_000]).columns["c"].statistics()
    assert not found.is_exact
    (top, count), *_ = found.top
    assert top == "often"
    assert count == pytest.approx(30_000, rel=0.05)
    assert found.distinct == pytest.approx(30_001, rel=0.15)
    assert found.described == 60_000


def test_up_to_the_bound_texts_are_counted_exactly() -> None:
    column = [f"t{number % MOST_COUNTED}" for number in range(10 * MOST_COUNTED)]
    found = collected(column, "string", [3_000]).columns["c"].statistics()
    assert found.is_exact
    assert found.distinct == MOST_COUNTED
    assert {count for _, count in found.top} == {10}


@pytest.mark.parametrize("different", [3, 900, 1_023])
def test_few_different_numbers_are_counted_exactly(different: int) -> None:
    values = [number % different for number in range(200_000)]
    assert collected(values, "int64", [70_000]).columns["c"].statistics().distinct == different


def test_memory_does_not_grow_with_the_rows() -> None:
    counted = Accumulator(Dtype("string"))
    for batch in range(20):
        texts = pl.Series([f"{batch} {number} " + "x" * 500 for number in range(10_000)])
        counted.add(texts, statistics.priorities(pl.Series([batch] * 10_000), pl.Series(range(10_000))))
    sample = counted._sample
    assert len(sample.values) <= 2 * SAMPLE
    assert sample.values.estimated_size() < 4 * SAMPLE * LONGEST
    assert len(counted.to_bytes()) < 200_000


def test_tombstones_and_columns_that_are_not_there_count_nothing() -> None:
    rows = frame_of([1, None, 3], "int64").with_columns(pl.Series(DELETED, [False, True, False]))
    total = Collected({"c": Dtype("int64"), "other": Dtype("int64")})
    total.add(rows)
    found = total.columns["c"].statistics()
    assert (found.count, found.nulls) == (2, 0)
    assert total.columns["other"].statistics().count == 0
    assert total.accepted == (7, 7)


@given(column=st.lists(st.none() | TEXT, max_size=20))
def test_of_personal_values_only_counts_are_kept(column: list[str | None]) -> None:
    total = Collected({"c": Dtype("string")}, counts_only=["c"])
    total.add(frame_of(column, "string"))
    assert total.columns["c"].statistics() == Statistics("none", len(column), column.count(None))
    written = total.to_bytes()
    assert not any(value.encode() in written for value in column if value and len(value) > 8)


# -- Put together, and compared


def test_put_together_they_describe_all_of_the_rows() -> None:
    random = np.random.default_rng(SEED)
    parts = [random.normal(mean, 1, 4_000) for mean in (0, 0, 5)]
    together = merged([of(part.tolist(), "float64") for part in parts])
    values = np.concatenate(parts)
    assert together
    assert (together.count, together.described) == (12_000, 12_000)
    assert (together.minimum, together.maximum) == (values.min(), values.max())
    assert together.mean == pytest.approx(values.mean())
    assert together.std == pytest.approx(values.std())
    ascending = np.sort(values)
    for name, share in QUANTILES.items():
        assert abs(np.searchsorted(ascending, together.quantiles[name]) / 12_000 - share) < 0.015, name
    assert len(together.points) == POINTS


def test_a_histogram_on_other_edges_counts_what_lies_outside() -> None:
    latest, before = of(range(50, 150), "int64"), of(range(100), "int64")
    assert latest.histogram
    rebinned = merged([before], edges=latest.histogram.edges)
    assert rebinned
    assert rebinned.histogram
    assert rebinned.histogram.edges == latest.histogram.edges
    assert [*rebinned.histogram.all_counts] == naive_bins(range(100), latest.histogram.edges)
    assert rebinned.histogram.below == 50


def test_whole_numbers_are_put_into_the_bins_that_they_belong_to() -> None:
    """0 to 5 on the edges of 0 to 3, in bins of 0.15: each number has a bin of its own, and 4 and 5 lie above."""
    latest, before = of([0, 1, 2, 3] * 100, "int64"), of([0, 1, 2, 3, 4, 5] * 100, "int64")
    assert latest.histogram
    rebinned = merged([before, before], edges=latest.histogram.edges)
    assert rebinned
    assert rebinned.histogram
    counts = [count for count in rebinned.histogram.all_counts if count]
    assert counts == pytest.approx([200, 200, 200, 200, 400], rel=0.13)  # one of the 100 points is 12 values


def test_none_of_none_and_nulls_of_nulls() -> None:
    assert merged([]) is None
    nothing = of([None, None], "float64")
    assert merged([nothing, nothing]) == Statistics("number", 4, 4)


def psi(latest: Sequence[Any], before: Sequence[Any], dtype: str) -> float:
    newest = of(latest, dtype)
    edges = newest.histogram.edges if newest.histogram else None
    baseline = merged([of(before, dtype)], edges=edges)
    assert baseline
    return moved(newest, baseline)


def test_the_index_is_the_one_of_the_textbook() -> None:
    """Shares 0.5, 0.5 against 0.8, 0.2: 0.3 ln(0.5 / 0.2) - 0.3 ln(0.8 / 0.5) = 0.416; less the chance, 2 / 10,000."""
    latest, before = [True, False] * 5_000, [True] * 8_000 + [False] * 2_000
    assert psi(latest, before, "bool") == pytest.approx(0.416, abs=0.001)


@pytest.mark.parametrize("seed", range(10))
def test_the_same_distribution_has_not_moved(seed: int) -> None:
    random = np.random.default_rng(seed)
    for size in (200, 1_000, 20_000):
        latest, before = random.normal(size=size).tolist(), random.normal(size=size).tolist()
        assert psi(latest, before, "float64") < MOVED


@pytest.mark.parametrize("seed", range(3))
def test_another_distribution_has_moved(seed: int) -> None:
    random = np.random.default_rng(seed)
    for latest in (random.normal(1, 1, 1_000), random.normal(0, 3, 1_000), random.normal(0, 1, 1_000) * 0 + 4):
        assert psi(latest.tolist(), random.normal(0, 1, 2_000).tolist(), "float64") > MOVED
    texts, others = ["a", "b"] * 500, ["a", "b", "c"] * 500
    assert psi(texts, others, "string") > MOVED
    assert psi(["x"] * 500, ["y"] * 500, "string") > MOVED


def test_few_values_say_nothing() -> None:
    assert psi([1.0] * 199, [9.0] * 500, "float64") == 0.0
    assert psi([1.0] * 200, [9.0] * 500, "float64") > MOVED


def test_ids_that_are_different_each_time_have_not_moved() -> None:
    """Nothing is known of values that are at the top of neither."""
    assert psi([f"a{n}" for n in range(5_000)], [f"b{n}" for n in range(5_000)], "string") == pytest.approx(0, abs=0.01)


def test_timestamps_move_on() -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    days = [[start + timedelta(days=day, seconds=second) for second in range(500)] for day in (0, 1)]
    assert psi(days[1], days[0], "timestamp") > MOVED
    assert series(days[0], "timestamp").dtype == TIMESTAMP_POLARS
