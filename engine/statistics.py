"""What the values of a column are like: counted in one pass over batches, in bounded memory, and put together later.

Exact: the counts of rows and nulls, minimum and maximum, mean and standard deviation (but for rounding, by the rule of
Chan, Golub and LeVeque), and the values with their counts of a column of at most MOST_COUNTED different ones, cut to
LONGEST characters each. Up to SAMPLE values quantiles and histogram are exact, too, and up to SKETCHED different ones
their number is.

Approximate beyond: quantiles, histogram and top values are those of a uniform sample of SAMPLE values; a share of them
is off by about 1 in 100 at most. Which values are in it is decided by a hash of the row's place in the version order,
so that any split and order of the same rows has the same sample, and two samples are put together by keeping the lowest
hashes (a bottom-k sample: Cohen and Kaplan 2007). The number of different values comes from the lowest hashes of the
values (K minimum values: Bar-Yossef et al. 2002), 3 in 100 off.

Timestamps are numbers here: microseconds since 1970 (UTC). Of lists the lengths are described, of embeddings nothing
but rows and nulls.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, TypeAlias

import msgspec
import numpy as np
import polars as pl

from engine.schema import ACCEPTED, DELETED, ORDINAL, Dtype

SAMPLE = 8_192
#: What is kept of a sample that is to be put together with others later.
KEPT_SAMPLE = 1_024
MOST_COUNTED = 1_000
KEPT_COUNTED = 200
SKETCHED = 1_024
LONGEST = 64
TOP = 20
BINS = 20
#: How many of a column's values, evenly spread in their order, stand for all of them in another histogram.
POINTS = 100
QUANTILES = {"p1": 0.01, "p5": 0.05, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95, "p99": 0.99}
#: A histogram ends near these when a value lies further out than so many times their distance.
_INNER = ("p1", "p99")
_FAR = 10
#: From here on a distribution is said to have moved; below is what chance and the seasons do (Siddiqi 2006).
MOVED = 0.2
#: Of fewer values nothing is said about that.
FEWEST_COMPARED = 200

Measure = Literal["number", "timestamp", "length", "category", "none"]
Number: TypeAlias = int | float
_UNCUT = (1 << 64) - 1
_MEASURES: dict[str, Measure] = {
    "int64": "number",
    "float64": "number",
    "timestamp": "timestamp",
    "list": "length",
    "string": "category",
    "bool": "category",
}


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many values lie from each edge up to before the next one (the last bin has its upper edge, too), in order.

    `below` and `above` count what lies beyond the outer edges: far outliers, or values of another time.
    """

    edges: tuple[Number, ...]
    counts: tuple[int, ...]
    below: int = 0
    above: int = 0

    @property
    def all_counts(self) -> tuple[int, ...]:
        return (self.below, *self.counts, self.above)


@dataclass(frozen=True, slots=True)
class Statistics:
    """A column of some rows, described; absent figures are None or empty, as all but the counts are without values.

    count:     rows, nulls among them.
    described: how many values the rest is about: `count - nulls`, or fewer where some may not be told of.
    std:       the standard deviation of these values (of a population, not of a sample); of timestamps microseconds.
    top:       the most frequent values, the most frequent first.
    is_exact:  whether quantiles, histogram and top are of all values and not of a sample.
    points:    values that stand for all of them, see POINTS.
    """

    measure: Measure
    count: int = 0
    nulls: int = 0
    described: int = 0
    minimum: Number | None = None
    maximum: Number | None = None
    mean: float | None = None
    std: float | None = None
    quantiles: Mapping[str, Number] = field(default_factory=dict)
    histogram: Histogram | None = None
    top: tuple[tuple[str | bool, int], ...] = ()
    distinct: int | None = None
    is_exact: bool = True
    points: tuple[Number, ...] = ()

    @property
    def null_rate(self) -> float:
        """The share of rows without a value; 0 without rows."""
        return self.nulls / self.count if self.count else 0.0

    def counts_only(self) -> Statistics:
        """The same without anything that quotes a value."""
        return Statistics(self.measure, self.count, self.nulls)

    def told(self) -> dict[str, Any]:
        """As JSON keeps it, U+0000 escaped, which PostgreSQL does not keep; `read` is the other way."""
        top = tuple((v.replace("\0", r"\x00") if isinstance(v, str) else v, count) for v, count in self.top)
        return asdict(replace(self, top=top))

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> Statistics:
        drawn = told["histogram"]
        return cls(
            **dict(told)
            | {name: _number(told[name]) for name in ("minimum", "maximum", "mean", "std")}
            | {
                "quantiles": {name: _number(value) for name, value in told["quantiles"].items()},
                "histogram": drawn
                and Histogram(_all_numbers(drawn["edges"]), tuple(drawn["counts"]), drawn["below"], drawn["above"]),
                "top": tuple((value, count) for value, count in told["top"]),
                "points": _all_numbers(told["points"]),
            }
        )


def _number(value: Number | None) -> Number | None:
    """PostgreSQL writes a large float as a whole number of many digits."""
    return float(value) if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63 else value


def _all_numbers(values: Iterable[Number]) -> tuple[Number, ...]:
    return tuple(value for value in map(_number, values) if value is not None)


def measure_of(dtype: Dtype) -> Measure:
    """What of a column is described."""
    return _MEASURES.get(dtype.kind, "none")


def of(column: pl.Series, dtype: Dtype) -> Statistics:
    """The statistics of one column; a row's place in it stands for its place in the version order."""
    counted = Accumulator(dtype)
    counted.add(column, priorities(pl.Series([0]), pl.Series(np.arange(len(column)))))
    return counted.statistics()


def priorities(accepted: pl.Series, ordinal: pl.Series) -> np.ndarray:
    """For each row the hash of its place: who is lowest is in the sample (the finalizer of SplitMix64)."""
    mixed = accepted.to_numpy().astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + ordinal.to_numpy().astype(np.uint64)
    mixed = mixed * np.uint64(0xD6E8FEB86659FD93) + np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(30)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


# -- Counting


@dataclass(eq=False)
class Accumulator:
    """The statistics of one column on the way: batches are added in any order, and others of other rows merged in.

    counts_only: no value of it may be told.
    """

    dtype: Dtype
    counts_only: bool = False
    count: int = 0
    nulls: int = 0
    described: int = 0
    minimum: Number | None = None
    maximum: Number | None = None
    mean: float = 0.0
    squares: float = 0.0

    def __post_init__(self) -> None:
        self.measure: Measure = "none" if self.counts_only else measure_of(self.dtype)
        self._is_number = self.measure in ("number", "timestamp", "length")
        self._sample = _Sample(_no_values(self.dtype))
        self._counts: Counter[str | bool] | None = Counter() if self.measure == "category" else None
        self._lowest = _Lowest()

    def add(self, column: pl.Series, places: np.ndarray) -> None:
        """Count the values of one batch; `places` are the `priorities` of its rows."""
        nulls = column.null_count()
        self.count += len(column)
        self.nulls += nulls
        if self.measure == "none" or nulls == len(column):
            return
        if nulls:
            places = places[column.is_not_null().to_numpy()]
            column = column.drop_nulls()
        self.described += len(column)
        if self.measure == "category":
            self._add_categories(column, places)
        else:
            self._add_numbers(_numbers(column, self.dtype), places)

    def _add_numbers(self, column: pl.Series, places: np.ndarray) -> None:
        values = column.to_numpy()
        with np.errstate(over="ignore", invalid="ignore"):
            mean = float(values.mean())
            squares = float(values.var()) * len(values)
        self._add_moments(len(values), mean, squares)
        self.minimum = _least(self.minimum, values.min().item())
        self.maximum = _greatest(self.maximum, values.max().item())
        self._sample.add(column, places)
        self._lowest.add(column)

    def _add_moments(self, count: int, mean: float, squares: float) -> None:
        """Called when `described` has these values already."""
        before = self.described - count
        apart = mean - self.mean
        self.mean += apart * (count / self.described)
        self.squares += squares + apart * apart * (before * (count / self.described))

    def _add_categories(self, column: pl.Series, places: np.ndarray) -> None:
        if column.dtype != pl.Boolean:
            self._sample.add(column, places)
        if self._counts is None:
            self._lowest.add(column)
            return
        counted = column.value_counts(name="_count")
        different = counted.to_series(0)
        self._lowest.add(different)
        if len(different) > MOST_COUNTED:
            self._counts = None
            return
        for value, count in zip(_cut(different).to_list(), counted["_count"].to_list(), strict=True):
            self._counts[value] += count
        if len(self._counts) > MOST_COUNTED:
            self._counts = None

    def merge(self, other: Accumulator) -> None:
        """Take in what another one, of the same dtype, has counted of other rows."""
        self.count += other.count
        self.nulls += other.nulls
        if self.measure == "none" or not other.described:
            return
        self.described += other.described
        self._add_moments(other.described, other.mean, other.squares)
        self.minimum = _least(self.minimum, other.minimum)
        self.maximum = _greatest(self.maximum, other.maximum)
        self._sample.merge(other._sample)
        self._lowest.merge(other._lowest)
        if self._counts is not None:
            self._counts = None if other._counts is None else self._counts + other._counts
            if self._counts is not None and len(self._counts) > MOST_COUNTED:
                self._counts = None

    def statistics(self) -> Statistics:
        """What has been counted so far."""
        told = Statistics(self.measure, self.count, self.nulls, self.described)
        if not self.described:
            return told
        return self._with_numbers(told) if self._is_number else self._with_categories(told)

    def _with_numbers(self, told: Statistics) -> Statistics:
        sample = self._sample.thinned(SAMPLE)
        values = np.sort(sample.values.to_numpy())
        least, greatest = self.minimum, self.maximum
        assert least is not None  # noqa: S101  there are values
        assert greatest is not None  # noqa: S101
        quantiles = {name: _ranked(values, share) for name, share in QUANTILES.items()}
        edges = _edges(least, greatest, quantiles, is_whole=self.measure != "number")
        mean, std = _moments(self.described, self.mean, self.squares)
        return replace(
            told,
            minimum=least,
            maximum=greatest,
            mean=mean,
            std=std,
            quantiles=quantiles,
            histogram=_binned(values, np.ones(len(values)), edges, self.described),
            distinct=self._lowest.estimate(),
            is_exact=sample.is_whole,
            points=tuple(_ranked(values, (at + 0.5) / POINTS) for at in range(POINTS))
            if len(values) > POINTS
            else tuple(values.tolist()),
        )

    def _with_categories(self, told: Statistics) -> Statistics:
        if self._counts is not None:
            return replace(told, top=_top(self._counts), distinct=len(self._counts))
        sample = self._sample.thinned(SAMPLE)
        counts = Counter(sample.values.to_list())
        scaled = Counter({value: round(count * self.described / len(sample.values)) for value, count in counts.items()})
        return replace(told, top=_top(scaled), distinct=self._lowest.estimate(), is_exact=sample.is_whole)

    def to_bytes(self) -> bytes:
        """The whole of it but a larger sample, so that it can be gone on with elsewhere; `from_bytes` reads it."""
        sample = self._sample.thinned(KEPT_SAMPLE)
        text = self.dtype.kind == "string"
        counts = None if self._counts is None or len(self._counts) > KEPT_COUNTED else list(self._counts.items())
        return msgspec.msgpack.encode(
            {
                "moments": [
                    self.count,
                    self.nulls,
                    self.described,
                    self.minimum,
                    self.maximum,
                    self.mean,
                    self.squares,
                ],
                "limit": sample.limit,
                "priorities": sample.priorities.tobytes(),
                "values": sample.values.to_list() if text else sample.values.to_numpy().tobytes(),
                "counts": counts,
                "lowest": self._lowest.hashes.tobytes(),
            }
        )

    @classmethod
    def from_bytes(cls, written: bytes, dtype: Dtype, *, counts_only: bool = False) -> Accumulator:
        told = msgspec.msgpack.decode(written)
        read = cls(dtype, counts_only, *told["moments"])
        if counts_only or read.measure == "none":
            return cls(dtype, counts_only, read.count, read.nulls)
        values = told["values"]
        kind = _no_values(dtype)
        if isinstance(values, bytes):
            values = np.frombuffer(values, kind.to_numpy().dtype)
        priority = np.frombuffer(told["priorities"], np.uint64)
        read._sample = _Sample(pl.Series(kind.name, values, dtype=kind.dtype), priority, told["limit"])
        if read._counts is not None:
            read._counts = None if told["counts"] is None else Counter(dict(told["counts"]))
        read._lowest = _Lowest(np.frombuffer(told["lowest"], np.uint64))
        return read


@dataclass
class _Sample:
    """Every value so far whose row's priority is below `limit`."""

    values: pl.Series
    priorities: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))
    limit: int = _UNCUT

    @property
    def is_whole(self) -> bool:
        return self.limit == _UNCUT

    def add(self, column: pl.Series, places: np.ndarray) -> None:
        if not self.is_whole:
            low = np.flatnonzero(places < self.limit)
            if not len(low):
                return
            column, places = column.gather(low), places[low]
        self._take(column, places)

    def merge(self, other: _Sample) -> None:
        self.limit = min(self.limit, other.limit)
        self._take(other.values, other.priorities)
        self._cut_to(SAMPLE)

    def _take(self, values: pl.Series, places: np.ndarray) -> None:
        # Cut before it is kept: of a batch of huge strings few are.
        if len(values) > 2 * SAMPLE:
            part = _Sample(values, places, self.limit)
            part._cut_to(SAMPLE)
            values, places, self.limit = part.values, part.priorities, part.limit
        if values.dtype == pl.String:  # a copy, since what is cut still holds on to all of it
            values = pl.Series(_cut(values).to_list(), dtype=pl.String())
        self.values = pl.concat([self.values, values.alias(self.values.name)], rechunk=True)
        self.priorities = np.concatenate([self.priorities, places])
        if len(self.values) > 2 * SAMPLE:
            self._cut_to(SAMPLE)

    def _cut_to(self, size: int) -> None:
        if len(self.values) > size:
            self.limit = min(self.limit, int(np.partition(self.priorities, size)[size]))
        if self.is_whole:
            return
        low = np.flatnonzero(self.priorities < self.limit)
        if len(low) < len(self.values):
            self.values, self.priorities = self.values.gather(low), self.priorities[low]

    def thinned(self, size: int) -> _Sample:
        """A copy of at most `size` values."""
        copy = _Sample(self.values, self.priorities, self.limit)
        copy._cut_to(size)
        return copy


@dataclass
class _Lowest:
    """The SKETCHED lowest different hashes of all values so far, ascending."""

    hashes: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))

    def add(self, column: pl.Series) -> None:
        hashes = column.hash(0).to_numpy()
        if len(self.hashes) == SKETCHED:
            hashes = hashes[hashes < self.hashes[-1]]
        elif len(hashes) > SKETCHED:
            hashes = _different(hashes)
        if len(hashes) > 4 * SKETCHED:
            low = _ascending(np.partition(hashes, 4 * SKETCHED)[: 4 * SKETCHED])
            hashes = low if len(low) >= SKETCHED else hashes
        if len(hashes):
            self.merge(_Lowest(hashes))

    def merge(self, other: _Lowest) -> None:
        self.hashes = _ascending(np.concatenate([self.hashes, other.hashes]))[:SKETCHED]

    def estimate(self) -> int:
        if len(self.hashes) < SKETCHED:
            return len(self.hashes)
        return round((SKETCHED - 1) / (int(self.hashes[-1]) / 2.0**64))


def _different(hashes: np.ndarray) -> np.ndarray:
    """The same without most repetitions: a table by the upper bits is faster than sorting where few are different."""
    table = np.zeros(1 << 16, np.uint64)
    slots = hashes >> np.uint64(48)
    table[slots] = hashes
    return np.concatenate([table[table > 0], hashes[table[slots] != hashes]])


def _ascending(hashes: np.ndarray) -> np.ndarray:
    """The different ones in order; numpy's `unique` counts by a table of its own, which is slower."""
    ordered = np.sort(hashes)
    return ordered[np.concatenate([[True], ordered[1:] != ordered[:-1]])] if len(ordered) else ordered


def _no_values(dtype: Dtype) -> pl.Series:
    if dtype.kind == "string":
        return pl.Series("value", [], pl.String())
    return pl.Series("value", [], pl.Float64() if dtype.kind == "float64" else pl.Int64())


def _numbers(column: pl.Series, dtype: Dtype) -> pl.Series:
    """The values without nulls as int64 or float64."""
    if dtype.kind == "list":
        return column.list.len().cast(pl.Int64)
    return column.to_physical() if dtype.kind == "timestamp" else column


def _cut(values: pl.Series) -> pl.Series:
    return values.str.head(LONGEST) if values.dtype == pl.String else values


def _least(a: Number | None, b: Number | None) -> Number | None:
    return b if a is None else a if b is None else min(a, b)


def _greatest(a: Number | None, b: Number | None) -> Number | None:
    return b if a is None else a if b is None else max(a, b)


def _moments(count: int, mean: float, squares: float) -> tuple[float | None, float | None]:
    """Mean and standard deviation; None where they are beyond what a float holds."""
    std = math.sqrt(max(squares, 0.0) / count) if math.isfinite(squares) else None
    return (mean if math.isfinite(mean) else None), std


def _top(counts: Mapping[str | bool, int]) -> tuple[tuple[str | bool, int], ...]:
    """By count, equal ones by value, so that the same rows give the same."""
    return tuple(sorted(counts.items(), key=lambda one: (-one[1], str(one[0])))[:TOP])


def _ranked(ascending: np.ndarray, share: float) -> Number:
    """The value that this share of all values is at or below: one of them, not one in between."""
    ranked: Number = ascending[max(math.ceil(share * len(ascending)) - 1, 0)].item()
    return ranked


# -- Histograms


def _edges(least: Number, greatest: Number, quantiles: Mapping[str, Number], *, is_whole: bool) -> tuple[Number, ...]:
    """BINS bins of one width from the least to the greatest value; those far outside (_FAR) are left out of them."""
    low, high = (quantiles[name] for name in _INNER)
    if high > low and greatest - least > _FAR * (high - low):
        least, greatest = max(least, low - (high - low)), min(greatest, high + (high - low))
    between = (least * (1 - at / BINS) + greatest * (at / BINS) for at in range(1, BINS))
    inner = sorted({round(edge) if is_whole else edge for edge in between})
    return (least, *(edge for edge in inner if least < edge < greatest), greatest)


def _binned(ascending: np.ndarray, weights: np.ndarray, edges: Sequence[Number], total: int) -> Histogram:
    """Values of some weights by bin, as whole numbers that make up `total`."""
    lower, upper = edges[:-1], edges[-1]
    if ascending.dtype == np.int64:  # a float beyond 2^53 is not what it is compared with
        lower, upper = [math.ceil(edge) for edge in lower], math.floor(upper)
    below = np.searchsorted(ascending, np.array(lower, ascending.dtype), side="left")
    within = np.searchsorted(ascending, np.array([upper], ascending.dtype), side="right")
    up_to = np.concatenate([[0.0], np.cumsum(weights)])
    shares = np.concatenate([up_to[np.concatenate([below, within])], up_to[-1:]]) / up_to[-1]
    counts = np.diff(np.rint(shares * total).astype(np.int64), prepend=0).tolist()
    return Histogram(tuple(edges), tuple(counts[1:-1]), counts[0], counts[-1])


def merged(described: Iterable[Statistics], *, edges: Sequence[Number] | None = None) -> Statistics | None:
    """The statistics of the rows of several together, with a histogram on `edges`; None of none.

    Counts, minimum, maximum, mean and std are as exact as theirs. Quantiles and histogram come from the POINTS of
    each, within 1 in 100; the counts of top values are too low where a value was at the top of some only. How many
    values are different is not known.
    """
    parts = list(described)
    if not parts:
        return None
    known = [part for part in parts if part.described]
    total = Statistics(
        parts[0].measure,
        sum(part.count for part in parts),
        sum(part.nulls for part in parts),
        sum(part.described for part in parts),
        is_exact=all(_is_whole(part) for part in known),
    )
    if not known:
        return total
    if total.measure == "category":
        counts: Counter[str | bool] = Counter()
        for part in known:
            counts.update(dict(part.top))
        return replace(total, top=_top(counts))
    return _merged_numbers(total, known, edges)


def _is_whole(part: Statistics) -> bool:
    """Whether each of its values is told, so that what is put together from them is exact."""
    told = sum(count for _, count in part.top) if part.measure == "category" else len(part.points)
    return part.is_exact and told == part.described


def _merged_numbers(total: Statistics, known: Sequence[Statistics], edges: Sequence[Number] | None) -> Statistics:
    values = np.concatenate([np.array(part.points) for part in known])
    if all(isinstance(point, int) for part in known for point in part.points):
        values = np.concatenate([np.array(part.points, np.int64) for part in known])
    weights = np.concatenate([np.full(len(part.points), part.described / len(part.points)) for part in known])
    order = np.argsort(values, kind="stable")
    values, weights = values[order], weights[order]
    least = min(part.minimum for part in known if part.minimum is not None)
    greatest = max(part.maximum for part in known if part.maximum is not None)
    quantiles = {name: _weighted(values, weights, share) for name, share in QUANTILES.items()}
    edges = edges or _edges(least, greatest, quantiles, is_whole=total.measure != "number")
    mean, std = _merged_moments(known)
    return replace(
        total,
        minimum=least,
        maximum=greatest,
        mean=mean,
        std=std,
        quantiles=quantiles,
        histogram=_binned(values, weights, edges, total.described),
        points=tuple(_weighted(values, weights, (at + 0.5) / POINTS) for at in range(POINTS)),
    )


def _weighted(ascending: np.ndarray, weights: np.ndarray, share: float) -> Number:
    up_to = np.cumsum(weights)
    at = int(np.searchsorted(up_to, share * up_to[-1] * (1 - 1e-12)))
    weighted: Number = ascending[min(at, len(ascending) - 1)].item()
    return weighted


def _merged_moments(known: Sequence[Statistics]) -> tuple[float | None, float | None]:
    total = Accumulator(Dtype("float64"))
    for part in known:
        if part.mean is None or part.std is None:
            return None, None
        total.described += part.described
        total._add_moments(part.described, part.mean, part.std * part.std * part.described)
    return _moments(total.described, total.mean, total.squares)


# -- Comparing


def moved(latest: Statistics, baseline: Statistics) -> float:
    """How far the values of `latest` are from those of `baseline`: the population stability index, 0 for not at all.

    Over the bins of the latest histogram and what lies outside, or over the top values that both know and all the rest.
    What chance alone would give for so few values is taken off, and of fewer than FEWEST_COMPARED it is 0. Above MOVED
    the distribution has moved. Nulls are no part of it.
    """
    if min(latest.described, baseline.described) < FEWEST_COMPARED or latest.measure != baseline.measure:
        return 0.0
    counts = _categories(latest, baseline) if latest.measure == "category" else _bins(latest, baseline)
    return _stability(np.array([pair for pair in counts if any(pair)], np.float64), latest, baseline)


def _stability(counts: np.ndarray, latest: Statistics, baseline: Statistics) -> float:
    sizes = np.array([_known_of(latest), _known_of(baseline)], np.float64)
    counts = counts / counts.sum(axis=0) * sizes
    shares = (counts + 0.5) / (sizes + 0.5 * len(counts))
    index = float(np.sum((shares[:, 0] - shares[:, 1]) * np.log(shares[:, 0] / shares[:, 1])))
    return max(index - (len(counts) - 1) * float((1 / sizes).sum()), 0.0)


def _known_of(one: Statistics) -> int:
    return one.described if one.is_exact else min(one.described, KEPT_SAMPLE)


def _bins(latest: Statistics, baseline: Statistics) -> list[tuple[int, int]]:
    edges = latest.histogram.edges if latest.histogram else ()
    same = baseline.histogram
    if same is None or same.edges != edges:
        rebinned = merged([baseline], edges=edges)
        same = rebinned.histogram if rebinned else None
    if latest.histogram is None or same is None:
        return [(1, 1)]
    return list(zip(latest.histogram.all_counts, same.all_counts, strict=True))


def _categories(latest: Statistics, baseline: Statistics) -> list[tuple[int, int]]:
    """A value that is not at the top of one of them counts as none there if all of that one's values are, else it is
    not compared."""
    tops = [dict(one.top) for one in (latest, baseline)]
    whole = [_is_whole(one) for one in (latest, baseline)]
    values = [
        value
        for value in {**tops[0], **tops[1]}
        if all(value in top or is_whole for top, is_whole in zip(tops, whole, strict=True))
    ]
    pairs = [(tops[0].get(value, 0), tops[1].get(value, 0)) for value in values]
    compared = [sum(pair[side] for pair in pairs) for side in (0, 1)]
    return [*pairs, (max(latest.described - compared[0], 0), max(baseline.described - compared[1], 0))]


# -- The columns of a run


class Collected:
    """The statistics of several columns of offline rows, batch by batch.

    columns:     by name; a frame may lack some.
    counts_only: the names of those whose values may not be told.
    accepted:    the lowest and the highest acceptance number of the rows; None of none.
    """

    def __init__(self, columns: Mapping[str, Dtype], *, counts_only: Iterable[str] = ()) -> None:
        self.counts_only = frozenset(counts_only)
        self.columns = {name: Accumulator(dtype, name in self.counts_only) for name, dtype in columns.items()}
        self.accepted: tuple[int, int] | None = None

    def add(self, rows: pl.DataFrame) -> None:
        """Count a batch of offline rows; tombstones have no values to count."""
        if DELETED in rows.columns and rows[DELETED].any():
            rows = rows.filter(~pl.col(DELETED))
        if rows.is_empty() or not self.columns:
            return
        numbers = rows[ACCEPTED]
        self._span((int(numbers.min()), int(numbers.max())))  # type: ignore[arg-type]
        places = priorities(numbers, rows[ORDINAL])
        for name, counted in self.columns.items():
            if name in rows.columns:
                counted.add(rows[name], places)

    def merge(self, other: Collected) -> None:
        """Take in what another one has counted of other rows."""
        if other.accepted:
            self._span(other.accepted)
        for name, counted in other.columns.items():
            self.columns.setdefault(name, Accumulator(counted.dtype, counted.counts_only)).merge(counted)

    def _span(self, accepted: tuple[int, int]) -> None:
        known = self.accepted or accepted
        self.accepted = (min(known[0], accepted[0]), max(known[1], accepted[1]))

    def to_bytes(self) -> bytes:
        """For another process, which has the same columns; see `from_bytes`."""
        columns = {name: counted.to_bytes() for name, counted in self.columns.items()}
        return msgspec.msgpack.encode({"accepted": self.accepted, "columns": columns})

    def merge_bytes(self, written: bytes) -> None:
        """Take in what another process has counted of other rows."""
        told = msgspec.msgpack.decode(written)
        if told["accepted"]:
            self._span(tuple(told["accepted"]))
        for name, column in told["columns"].items():
            mine = self.columns[name]
            mine.merge(Accumulator.from_bytes(column, mine.dtype, counts_only=mine.counts_only))
