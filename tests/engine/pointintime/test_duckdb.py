"""The point-in-time join on DuckDB alone: more random histories, and memory. All else is in test_engines.py."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.errors import InvalidSpine, RunFailed
from engine.pointintime.rule import GroupHistory, HistoryFeature
from engine.schema import Field
from tests.engine.pointintime.histories import DAY_ONE, INT64, SPINE, STRING, Histories, row
from tests.oracle import Row, expected, feature_status

DUCKDB_ONLY = pytest.mark.parametrize("joined", ["duckdb"], indirect=True)


MOMENTS = st.integers(0, 4).map(lambda hours: DAY_ONE + timedelta(hours=hours))


#: How many numbers the version order is compared as: one for near values, several for values far apart.
APART = st.sampled_from([1, 2**20, 2**40, 2**61])


@st.composite
def stored_rows(draw: st.DrawFn) -> list[Row]:
    """Rows of two customers whose (_accepted, _ordinal) are unique, as acceptance makes them."""
    places = draw(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=10, unique=True))
    accepted_apart, ordinals_apart = draw(APART), draw(APART)
    is_one_kind = draw(st.booleans())
    return [
        row(
            draw(st.sampled_from("AB")),
            draw(MOMENTS),
            draw(st.none() | st.integers(0, 99)),
            created=draw(MOMENTS),
            _accepted=accepted * accepted_apart,
            _ordinal=ordinal * ordinals_apart,
            _schema=2 if is_one_kind else draw(st.sampled_from([1, 2, 2])),
            _deleted=False if is_one_kind else draw(st.sampled_from([False, False, True])),
        )
        for accepted, ordinal in places
    ]


@DUCKDB_ONLY
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=st.data())
def test_any_history_gives_what_the_oracle_gives(
    case: st.DataObject, histories: Histories, joined: Callable[..., pa.Table]
) -> None:
    history = case.draw(stored_rows(), "history")
    ttl = case.draw(st.none() | st.integers(0, 3).map(lambda hours: timedelta(hours=hours)), "ttl")
    times = case.draw(st.lists(st.tuples(st.sampled_from("AB"), MOMENTS), min_size=1, max_size=5), "spine")
    known_at = case.draw(st.booleans(), "known_at")
    histories.statistics = case.draw(st.booleans(), "statistics")
    group = histories.group(history, ttl=ttl, schema_ids=frozenset({2}))
    spine = [dict(zip(SPINE.names, pair, strict=True)) for pair in times]
    if known_at and history and min(row["created_timestamp"] for row in history) > max(time for _, time in times):
        with pytest.raises(InvalidSpine, match="known_at"):
            joined(times, group, known_at=True)
        return
    answers = expected(spine, history, keys=["customer_id"], ttl=ttl, known_at=known_at)
    got = joined(times, group, known_at=known_at, statuses=True).select(["value", "value__status"])
    wanted = [feature_status(answer, "value", frozenset({2})) for answer in answers]
    assert [tuple(record.values()) for record in got.to_pylist()] == wanted


@DUCKDB_ONLY
def test_a_join_larger_than_its_memory_spills_and_one_without_any_says_so(
    histories: Histories, joined: Callable[..., pa.Table], tmp_path: Path
) -> None:
    """200,000 answers of 1,000 bytes, 200 MB, through 170 MB of memory (150 is near the least that a join needs)."""
    rows = 200_000
    numbers = pa.array(range(rows), pa.int64())
    spine = pa.table({"n": numbers, "event_timestamp": pa.array([DAY_ONE] * rows, SPINE.types[1])})
    texts = pc.binary_join_element_wise(numbers.cast(pa.string()), "x" * 990, ":")
    fixed = {name: pa.array([value] * rows) for name, value in row("", DAY_ONE, None).items() if name[0] == "_"}
    moments = {"event_timestamp": spine["event_timestamp"], "created_timestamp": spine["event_timestamp"]}
    stored = pa.table({"n": numbers, **moments, **fixed, "text": texts})
    pq.write_table(stored, tmp_path / "wide.parquet", row_group_size=4_000)
    wide = (HistoryFeature("text", "text", STRING),)
    group = GroupHistory("purchases", (str(tmp_path / "wide.parquet"),), (Field("n", INT64),), None, wide)
    got = joined(spine, group, memory_limit="170MB", threads=1)
    assert got["text"].combine_chunks().equals(texts)
    with pytest.raises(RunFailed, match="memory limit 2MB"):
        joined(spine, group, memory_limit="2MB", threads=1)
