"""The point-in-time join on every engine: the rule against the loops of tests/oracle.py, then its edges one by one."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.errors import InvalidSpine, RunFailed
from engine.pointintime.rule import GroupHistory, HistoryFeature
from engine.pointintime.spine import BATCH_ROWS
from engine.schema import Dtype, Field
from tests.engine.pointintime.histories import (
    CUSTOMER,
    DAY_ONE,
    INT64,
    MICROSECOND,
    SPINE,
    STRING,
    Histories,
    day,
    row,
    spine_of,
)
from tests.oracle import Row, expected, feature_status

# The rule


EXAMPLE = [
    row("C1", day(1), 1, _accepted=1),
    row("C1", day(5), 2, _accepted=2),
    row("C1", day(5), 3, created=day(8), _accepted=3),
    row("C1", day(20), None, _accepted=4, _deleted=True),
]


EXAMPLE_ANSWERS = [  # time, as of, as known
    (day(1) - MICROSECOND, (None, "NOT_FOUND"), (None, "NOT_FOUND")),
    (day(4), (1, "PRESENT"), (1, "PRESENT")),
    (day(5), (3, "PRESENT"), (2, "PRESENT")),
    (day(8) - MICROSECOND, (3, "PRESENT"), (2, "PRESENT")),
    (day(8), (3, "PRESENT"), (3, "PRESENT")),
    (day(15), (3, "PRESENT"), (3, "PRESENT")),
    (day(15) + MICROSECOND, (None, "OUTSIDE_MAX_AGE"), (None, "OUTSIDE_MAX_AGE")),
    (day(20) - MICROSECOND, (None, "OUTSIDE_MAX_AGE"), (None, "OUTSIDE_MAX_AGE")),
    (day(20), (None, "NOT_FOUND"), (None, "NOT_FOUND")),
    (day(40), (None, "NOT_FOUND"), (None, "NOT_FOUND")),  # old, but there is no value to withhold
]


@pytest.mark.parametrize("statistics", [False, True], ids=["no statistics", "statistics"])
@pytest.mark.parametrize("known_at", [False, True], ids=["as of", "as known"])
def test_the_worked_example_of_the_rule_holds(
    known_at: bool, statistics: bool, histories: Histories, joined: Callable[..., pa.Table]
) -> None:
    histories.statistics = statistics
    group = histories.group(EXAMPLE, ttl=timedelta(days=10))
    spine = [("C1", time) for time, _, _ in EXAMPLE_ANSWERS]
    wanted = [as_known if known_at else as_of for _, as_of, as_known in EXAMPLE_ANSWERS]
    got = joined(spine, group, known_at=known_at, statuses=True)
    assert list(zip(got["value"].to_pylist(), got["value__status"].to_pylist(), strict=True)) == wanted
    bare = joined(spine, group, known_at=known_at)
    assert bare["value"].to_pylist() == [value for value, _ in wanted]


def test_the_oracle_agrees_with_the_worked_example() -> None:
    spine = [{"customer_id": "C1", "event_timestamp": time} for time, _, _ in EXAMPLE_ANSWERS]
    for known_at, place in ((False, 1), (True, 2)):
        answers = expected(spine, EXAMPLE, keys=["customer_id"], ttl=timedelta(days=10), known_at=known_at)
        assert [feature_status(answer, "value") for answer in answers] == [row[place] for row in EXAMPLE_ANSWERS]


HISTORIES_PER_SPINE = 5
STORE = (Field("store_id", INT64),)


def random_history(rng: random.Random, step: timedelta, moments: int) -> list[Row]:
    """Rows of three customers and two stores with ties on every level of the version order; often none or one."""
    numbers = rng.sample(range(40), rng.choice([0, 1, 12, 40]))
    received_before = [row("Z", DAY_ONE, 0, created=DAY_ONE, store_id=0)] if numbers else []
    return received_before + [
        row(
            rng.choice("ABC"),
            DAY_ONE + rng.randrange(moments) * step,
            rng.choice([None, number, number]),
            created=DAY_ONE + rng.randrange(moments) * step,
            store_id=rng.randrange(2),
            _accepted=rng.randrange(3),
            _ordinal=number,
            _schema=rng.choice([1, 2, 2]),
            _deleted=rng.random() < 0.15,
        )
        for number in numbers
    ]


def random_spine(rng: random.Random, step: timedelta, moments: int) -> list[Row]:
    """Rows of four customers, a third of them repeated, none in order."""
    rows = [
        {
            "customer_id": rng.choice("ABCD"),
            "store_id": rng.randrange(2),
            "label": number,
            "event_timestamp": DAY_ONE + rng.randrange(moments + 2) * step,
        }
        for number in range(rng.choice([1, 10, 30]))
    ]
    return rows + rng.sample(rows, len(rows) // 2)


@pytest.mark.parametrize("known_at", [False, True], ids=["as of", "as known"])
@pytest.mark.parametrize(
    ("joined", "seed"),
    [*(("duckdb", seed) for seed in range(24)), *(("spark", seed) for seed in range(2))],
    indirect=["joined"],
)
def test_random_tables_give_what_the_oracle_gives(
    seed: int, known_at: bool, histories: Histories, joined: Callable[..., pa.Table]
) -> None:
    rng = random.Random(seed)
    step, moments = rng.choice([MICROSECOND, timedelta(hours=1)]), rng.choice([2, 6])
    spine = random_spine(rng, step, moments)
    groups, wanted = [], {}
    for place in range(HISTORIES_PER_SPINE):
        history = random_history(rng, step, moments)
        ttl = rng.choice([None, timedelta(0), step, 2 * step, 3 * step])
        keys = rng.choice([CUSTOMER, STORE, (*CUSTOMER, *STORE), (*STORE, *CUSTOMER)])
        features, ids = [("value", f"v{place}", INT64)], frozenset({2})
        cut = len(history) // 3
        histories.statistics = rng.random() < 0.7
        files = [history[:cut], history[cut:]]
        groups.append(histories.group(*files, keys=keys, ttl=ttl, schema_ids=ids, features=features))
        answers = expected(spine, history, keys=[key.name for key in keys], ttl=ttl, known_at=known_at)
        wanted[f"v{place}"] = [feature_status(answer, "value", ids) for answer in answers]
    got = joined(pa.Table.from_pylist(spine), *groups, known_at=known_at, statuses=seed % 2 == 0)
    for name, answers in wanted.items():
        assert got[name].to_pylist() == [value for value, _ in answers]
        if seed % 2 == 0:
            assert got[f"{name}__status"].to_pylist() == [status for _, status in answers]
    assert got.select(list(spine[0])).to_pylist() == spine


@pytest.mark.parametrize("level", ["event_timestamp", "created_timestamp", "_accepted", "_ordinal"])
@pytest.mark.parametrize("newer_is_written", ["first", "last"])
@pytest.mark.parametrize("statistics", [False, True], ids=["no statistics", "statistics"])
def test_each_level_of_the_version_order_decides_a_tie(
    level: str, newer_is_written: str, statistics: bool, histories: Histories, joined: Callable[..., pa.Table]
) -> None:
    histories.statistics = statistics
    older = row("C1", day(2), 1, created=day(3), _accepted=5, _ordinal=5)
    later = {"event_timestamp": day(2.5), "created_timestamp": day(3.5), "_accepted": 6, "_ordinal": 6}
    below = {"created_timestamp": day(2.5), "_accepted": 4, "_ordinal": 4}  # what stands behind must not decide
    behind = list(later)[list(later).index(level) + 1 :]
    newer = {**older, level: later[level], "value": 2, **{name: below[name] for name in behind}}
    rows = [newer, older] if newer_is_written == "first" else [older, newer]
    assert joined([("C1", day(4))], histories.group(rows))["value"].to_pylist() == [2]
    assert joined([("C1", day(4))], histories.group(*[[r] for r in rows]))["value"].to_pylist() == [2]


def test_a_row_too_old_for_the_whole_spine_is_still_told_from_none(
    histories: Histories, joined: Callable[..., pa.Table]
) -> None:
    group = histories.group([row("C1", day(1), 1)], ttl=timedelta(days=1))
    got = joined([("C1", day(9)), ("C2", day(9))], group, statuses=True)
    assert got["value__status"].to_pylist() == ["OUTSIDE_MAX_AGE", "NOT_FOUND"]
    assert joined([("C1", day(9))], group)["value"].to_pylist() == [None]


# What known_at adds


def test_known_at_sees_a_correction_only_once_it_was_received(
    histories: Histories, joined: Callable[..., pa.Table]
) -> None:
    group = histories.group(
        [row("C1", day(1), 10), row("C1", day(1), 11, created=day(9)), row("C1", day(4), 20, created=day(6))]
    )
    spine = [("C1", day(n)) for n in (1, 5, 6, 9)]
    assert joined(spine, group)["value"].to_pylist() == [11, 20, 20, 20]
    assert joined(spine, group, known_at=True)["value"].to_pylist() == [10, 10, 20, 20]


def test_known_at_over_a_group_received_after_the_spine_is_an_error_that_says_so(
    histories: Histories, joined: Callable[..., pa.Table]
) -> None:
    loaded_late = histories.group([row("C1", day(1), 1, created=day(20)), row("C2", day(2), 1, created=day(21))])
    with pytest.raises(InvalidSpine, match=r"purchases was received at 2026-11-20T00:00:00Z.*2026-11-10T00:00:00Z"):
        joined([("C1", day(10)), ("C1", day(3))], loaded_late, known_at=True)
    assert joined([("C1", day(10))], loaded_late)["value"].to_pylist() == [1]
    assert joined([("C1", day(20))], loaded_late, known_at=True)["value"].to_pylist() == [1]


# Columns: what goes in comes out


def test_every_dtype_comes_back_in_its_arrow_type(histories: Histories, joined: Callable[..., pa.Table]) -> None:
    values: dict[str, Any] = {
        "int64": 2**63 - 1,
        "float64": 0.1,
        "bool": False,
        "string": "",
        "timestamp": day(3) + MICROSECOND,
        "embedding(2)": [0.5, -1.0],
        "list<int64>": [1, 2**62],
        "list<float64>": [],
        "list<string>": ["a", ""],
    }
    features = [(f"f{place}", f"f{place}", Dtype.parse(name)) for place, name in enumerate(values)]
    stored = {f"f{place}": value for place, value in enumerate(values.values())}
    group = histories.group([row("C1", day(1), None, **stored), row("C2", day(1), None)], features=features)
    got = joined([("C1", day(2)), ("C2", day(2)), ("C3", day(2))], group)
    assert got.schema.types[2:] == [dtype.arrow for _, _, dtype in features]
    assert [list(record.values())[2:] for record in got.to_pylist()] == [
        list(values.values()),
        [None] * len(values),
        [None] * len(values),
    ]
    without_rows = histories.group(features=features)
    assert joined([("C1", day(2))], without_rows).schema == got.schema


def test_spine_columns_stay_as_they_are_in_type_value_and_order(
    histories: Histories, joined: Callable[..., pa.Table]
) -> None:
    spine = pa.table(
        {
            "k0": pa.array(["x", "y"]).dictionary_encode(),  # what the engine calls its own columns is no matter
            "event_timestamp": pa.array([day(3), day(2)], pa.timestamp("ns", "Europe/Paris")),
            "file": pa.array([{"h": 1}, None]),
            "customer_id": pa.array(["C1", "C1"], pa.large_string()),
            'it"s; a label': pa.array([0.1, None], pa.float32()),
        }
    )
    got = joined(spine, histories.group([row("C1", day(3), 1)]))
    assert got.select(spine.column_names).equals(spine)
    assert got.column_names == [*spine.column_names, "value"]
    assert got["value"].to_pylist() == [1, None]


@pytest.mark.parametrize("name", ["event", "s", "h", "file", "version", "k0", "f1", "select", "history"])
def test_a_feature_may_have_any_name(name: str, histories: Histories, joined: Callable[..., pa.Table]) -> None:
    rows = [row("C1", day(1), 7, **{name: "right"}), row("C1", day(2), 8, **{name: "newest"})]
    group = histories.group(rows, features=[("value", "value", INT64), (name, name, STRING)])
    assert joined([("C1", day(1))], group)[name].to_pylist() == ["right"]


def test_groups_of_different_entities_are_joined_side_by_side_in_the_order_asked(
    histories: Histories, joined: Callable[..., pa.Table]
) -> None:
    store = (Field("store_id", INT64),)
    customers = histories.group(
        [row("C1", day(1), 1, tier="gold")],
        features=[("value", "value", INT64), ("tier", "tier", STRING)],
    )
    stores = histories.group(
        [{**row("", day(1), 100), "store_id": 7}, {**row("", day(3), 101), "store_id": 7}],
        keys=store,
        features=[("value", "purchases__value", INT64)],
    )
    neither = histories.group(keys=(*CUSTOMER, *store), features=[("value", "pair", INT64)])
    spine = pa.table(
        {
            "store_id": pa.array([7, 8, 7], pa.int32()),
            "event_timestamp": [day(3), day(3), day(2)],
            "customer_id": ["C2", "C1", "C1"],
        }
    )
    got = joined(spine, customers, stores, neither, statuses=True, order=["tier", "purchases__value", "pair", "value"])
    assert got.column_names[3:7] == ["tier", "purchases__value", "pair", "value"]
    assert got.column_names[7:] == ["tier__status", "purchases__value__status", "pair__status", "value__status"]
    assert [tuple(record.values())[3:7] for record in got.to_pylist()] == [
        (None, 101, None, None),
        ("gold", None, None, 1),
        ("gold", 100, None, 1),
    ]
    assert got["pair__status"].to_pylist() == ["NOT_FOUND"] * 3


def test_entities_that_share_some_join_keys_are_joined_each_by_its_own(
    histories: Histories, joined: Callable[..., pa.Table]
) -> None:
    product = (Field("product", STRING),)

    def group(name: str, keys: tuple[Field, ...], *rows: tuple[dict[str, Any], float, int]) -> GroupHistory:
        stored = [{**row("", day(at), value), **key} for key, at, value in rows]
        return histories.group(stored, keys=keys, features=[("value", name, INT64)])

    groups = [
        group("customer", CUSTOMER, ({"customer_id": "a"}, 1, 1), ({"customer_id": "ab"}, 1, 2)),
        group("store", STORE, ({"store_id": 1}, 1, 10), ({"store_id": 1}, 3, 11), ({"store_id": -1}, 1, 12)),
        group(
            "pair",
            (*CUSTOMER, *STORE),
            ({"customer_id": "a", "store_id": 1}, 1, 100),
            ({"customer_id": "ab", "store_id": -1}, 2, 101),
        ),
        # keys of two texts, which no separator may run together
        group(
            "taste",
            (*product, *CUSTOMER),
            ({"product": "b", "customer_id": "a"}, 1, 1000),
            ({"product": "", "customer_id": "ab"}, 1, 1001),
        ),
        group("stock", (*STORE, *product), ({"store_id": 1, "product": "b"}, 1, 10_000)),
    ]
    asked = [("a", 1, "b", 2), ("a", 1, "b", 3), ("ab", -1, "", 2), ("a", -1, "ab", 2), ("ab", 1, "b", 1)]
    spine = pa.table(
        {
            "product": [product for _, _, product, _ in asked],
            "customer_id": [customer for customer, *_ in asked],
            "event_timestamp": [day(at) for *_, at in asked],
            "store_id": [store for _, store, *_ in asked],
        }
    )
    got = joined(spine, *groups)
    assert [tuple(record.values())[4:] for record in got.to_pylist()] == [
        (1, 10, 100, 1000, 10_000),
        (1, 11, 100, 1000, 10_000),
        (2, 12, 101, 1001, None),
        (1, 12, None, None, None),
        (2, 10, None, None, 10_000),
    ]


# Time zones: a spine means instants, whatever clock it shows them by


#: Both changes of the clocks in 2026, as instants; Lord Howe's go by half an hour.
CHANGES = {
    "Europe/Berlin": ("2026-03-29T01:00:00+00:00", "2026-10-25T01:00:00+00:00"),
    "America/St_Johns": ("2026-03-08T05:30:00+00:00", "2026-11-01T04:30:00+00:00"),
    "Australia/Lord_Howe": ("2026-04-04T15:00:00+00:00", "2026-10-03T15:30:00+00:00"),
}


def around(change: str, every: timedelta) -> list[datetime]:
    """Instants from two hours before a change to two hours after it."""
    begin = datetime.fromisoformat(change) - timedelta(hours=2)
    return [begin + number * every for number in range(timedelta(hours=4) // every + 1)]


@pytest.mark.parametrize("known_at", [False, True], ids=["as of", "as known"])
@pytest.mark.parametrize(("zone", "unit"), list(zip(CHANGES, ["us", "ns", "s"], strict=True)))
def test_clocks_that_are_put_back_or_forward_change_no_answer(
    zone: str, unit: str, known_at: bool, histories: Histories, joined: Callable[..., pa.Table]
) -> None:
    """Rows each quarter of an hour that live for 20 minutes, asked each five: near the hour that comes twice, every
    reading of the clock instead of the instant would give another row, or one that is too old."""
    instants = [at for change in CHANGES[zone] for at in around(change, timedelta(minutes=5))]
    clock = [at.astimezone(ZoneInfo(zone)).replace(tzinfo=None) for at in instants]
    assert 0 < len(clock) - len(set(clock)) <= 12  # the autumn's hour, or half hour, comes twice
    history = [
        row("C1", at, number, created=at + timedelta(minutes=number % 7))
        for number, at in enumerate(at for change in CHANGES[zone] for at in around(change, timedelta(minutes=15)))
    ]
    times = pa.array(instants, pa.timestamp("us", "UTC")).cast(pa.timestamp(unit, zone))
    spine = pa.table({"customer_id": ["C1"] * len(instants), "event_timestamp": times})
    ttl = timedelta(minutes=20)
    got = joined(spine, histories.group(history, ttl=ttl), known_at=known_at, statuses=True)
    asked = [{"customer_id": "C1", "event_timestamp": at} for at in instants]
    answers = expected(asked, history, keys=["customer_id"], ttl=ttl, known_at=known_at)
    wanted = [feature_status(answer, "value") for answer in answers]
    assert list(zip(got["value"].to_pylist(), got["value__status"].to_pylist(), strict=True)) == wanted
    assert got.select(spine.column_names).equals(spine)
    twice = [at for at in instants if clock.count(at.astimezone(ZoneInfo(zone)).replace(tzinfo=None)) == 2]
    values = dict(zip(instants, got["value"].to_pylist(), strict=True))
    assert len({values[at] for at in twice}) >= len(twice) // 3 > 0


def test_equal_instants_in_different_zones_give_equal_answers(
    histories: Histories, joined: Callable[..., pa.Table], tmp_path: Path
) -> None:
    moments = around(CHANGES["Europe/Berlin"][1], timedelta(minutes=10))
    groups = [
        histories.group(
            [row("C1", at, place * 100 + n) for n, at in enumerate(moments[::3])], ttl=timedelta(minutes=20)
        )
        for place in range(2)
    ]
    groups[1] = replace(groups[1], features=(replace(groups[1].features[0], output="other"),))
    answers = []
    for zone in ("UTC", "Europe/Berlin", "America/St_Johns", "+05:45"):
        times = pa.array(moments, pa.timestamp("us", "UTC")).cast(pa.timestamp("us", zone))
        spine = pa.table({"customer_id": ["C1"] * len(moments), "event_timestamp": times})
        pq.write_table(spine, tmp_path / "spine.parquet")
        got = joined(tmp_path / "spine.parquet", *groups)
        assert got["event_timestamp"].type == times.type
        answers.append(got.select(["value", "other"]))
    assert answers[0]["value"].null_count < len(moments) // 2
    assert all(answer.equals(answers[0]) for answer in answers)


def test_an_order_that_is_not_the_features_is_refused(histories: Histories, joined: Callable[..., pa.Table]) -> None:
    with pytest.raises(ValueError, match="each of"):
        joined([("C1", day(1))], histories.group(), order=["value", "other"])


def test_a_feature_that_older_files_and_schemas_lack_is_not_found(
    histories: Histories, joined: Callable[..., pa.Table]
) -> None:
    old, new = row("C1", day(1), None, _schema=1), row("C2", day(1), None, _schema=2)
    features = [("value", "value", INT64)]
    lacking = frozenset({"value"})
    spine = [("C1", day(2)), ("C2", day(2))]
    group = histories.group([old], [new], schema_ids=frozenset({2}), features=features, lacking=lacking)
    assert joined(spine, group, statuses=True)["value__status"].to_pylist() == ["NOT_FOUND", "NULL_VALUE"]
    only_old = histories.group([old], schema_ids=frozenset({2}), features=features, lacking=lacking)
    got = joined(spine, only_old, statuses=True)
    assert got["value__status"].to_pylist() == ["NOT_FOUND", "NOT_FOUND"]
    assert got.schema.field("value").type == pa.int64()
    no_schema = histories.group([new], schema_ids=frozenset())
    assert joined(spine, no_schema, statuses=True)["value__status"].to_pylist() == ["NOT_FOUND", "NOT_FOUND"]


def test_the_letters_of_a_path_have_no_meaning(tmp_path: Path, joined: Callable[..., pa.Table]) -> None:
    asked, matched_as_a_pattern = tmp_path / "it's [ab] *" / "value=9", tmp_path / "it's a x" / "value=9"
    groups = []
    for value, folder in enumerate((asked, matched_as_a_pattern)):
        folder.mkdir(parents=True)
        groups.append(Histories(folder).group([row("C1", day(1), value)]))
    assert joined([("C1", day(1))], groups[0])["value"].to_pylist() == [0]


# Sizes: none, and more than one batch


def test_an_empty_spine_gives_an_empty_result_with_every_column(
    histories: Histories, joined: Callable[..., pa.Table], tmp_path: Path
) -> None:
    group = histories.group([row("C1", day(1), 1)])
    got = joined([], group, statuses=True)
    assert (got.num_rows, got.column_names[2:]) == (0, ["value", "value__status"])
    assert got.schema.types[2:] == [pa.int64(), pa.string()]
    assert joined([], group, output=tmp_path / "empty.parquet") == 0
    assert pq.read_table(tmp_path / "empty.parquet").schema.names == ["customer_id", "event_timestamp", "value"]


def test_no_group_gives_the_spine(joined: Callable[..., pa.Table]) -> None:
    spine = spine_of(("C1", day(1)), ("C1", day(1)))
    assert joined(spine).equals(spine)


def test_a_file_in_gives_the_same_file_out_as_a_table_over_many_batches(
    histories: Histories, joined: Callable[..., pa.Table], tmp_path: Path
) -> None:
    rows = BATCH_ROWS + 1_000
    spine = pa.table(
        {
            "customer_id": [f"C{number % 3}" for number in range(rows)],
            "event_timestamp": pa.array([DAY_ONE + number * timedelta(seconds=1) for number in range(rows)]).cast(
                pa.timestamp("us", "UTC")
            ),
            "label": pa.array(range(rows), pa.int32()),
        }
    )
    pq.write_table(spine, tmp_path / "spine.parquet", row_group_size=50_000)
    # C0 changes every 1,000 seconds, so that each row has one right answer: number // 1000
    history = [row("C0", DAY_ONE + n * timedelta(seconds=1000), n) for n in range(rows // 1000 + 1)]
    groups = [histories.group(history), histories.group(features=[("value", "none", INT64)])]
    written = tmp_path / "training.parquet"
    assert joined(str(tmp_path / "spine.parquet"), *groups, output=written) == rows
    got = pq.read_table(written, page_checksum_verification=True)
    assert got.equals(joined(spine, *groups))
    assert got.select(spine.column_names).equals(spine)
    assert got["value"].to_pylist() == [number // 1000 if number % 3 == 0 else None for number in range(rows)]


def test_a_spine_file_with_flipped_bits_is_refused_and_leaves_the_old_output_alone(
    histories: Histories, joined: Callable[..., pa.Table], tmp_path: Path
) -> None:
    group, spine = histories.group([row("C1", day(1), 1)]), tmp_path / "spine.parquet"
    written = tmp_path / "out" / "training.parquet"
    written.parent.mkdir()
    labelled = spine_of(("C1", day(1))).append_column("label", pa.array(["a label to be found"]))
    pq.write_table(labelled, spine, write_page_checksum=True, compression="none", write_statistics=False)
    assert joined(spine, group, output=written) == 1
    before = written.read_bytes()
    spine.write_bytes(spine.read_bytes().replace(b"a label to be found", b"a label to be fOund", 1))
    with pytest.raises(InvalidSpine, match="CRC"):
        joined(spine, group, output=written)
    assert list(written.parent.iterdir()) == [written]
    assert written.read_bytes() == before


def test_a_history_file_that_cannot_be_read_is_named_and_nothing_stays_in_the_spill_folder(
    histories: Histories, joined: Callable[..., pa.Table], tmp_path: Path
) -> None:
    group = histories.group([row("C1", day(1), 1)])
    Path(group.files[0]).write_bytes(b"PAR1 no longer a Parquet file PAR1")
    with pytest.raises(RunFailed, match=r"part-1\.parquet"):
        joined([("C1", day(1))], group)
    assert list((tmp_path / "spill").iterdir()) == []


# Spines that are refused


#: A spine is refused before any file is opened.
UNREADABLE = GroupHistory("purchases", ("/nowhere",), CUSTOMER, None, (HistoryFeature("value", "value", INT64),))


def problems_of(error: InvalidSpine) -> dict[str, str]:
    return {problem.pointer: str(problem) for problem in error.problems}


def test_every_problem_of_a_spines_columns_is_named_at_once(
    histories: Histories, joined: Callable[..., pa.Table]
) -> None:
    keys = (*CUSTOMER, Field("store_id", INT64))
    spine = pa.table({"custmer_id": ["C1"], "shop_id": [7], "store_id": [7.0], "__fh_x": [1], "value": [1]})
    spine = spine.append_column("event_timestamp", pa.array([0], pa.timestamp("us")))
    with pytest.raises(InvalidSpine) as caught:
        joined(spine, histories.group(keys=keys))
    problems = problems_of(caught.value)
    columns = ["customer_id", "store_id", "event_timestamp", "__fh_x", "value"]
    assert set(problems) == {f"/spine/{column}" for column in columns}
    assert "Did you mean custmer_id" in problems["/spine/customer_id"]
    assert "int64 is needed, the column is double" in problems["/spine/store_id"]
    assert "naive" in problems["/spine/event_timestamp"]
    assert "reserved" in problems["/spine/__fh_x"]
    assert "exists already" in problems["/spine/value"]


C1S, TIMES = pa.array(["C1"] * 3), pa.array([day(1)] * 3, SPINE.types[1])
NULL_IN_DICTIONARY = pa.DictionaryArray.from_arrays(pa.array([0, 1, 0], pa.int8()), pa.array(["C1", None]))


@pytest.mark.parametrize(
    ("customers", "times", "problem"),
    [
        (pa.array(["C1", None, None]), TIMES, "/spine/customer_id: row 1: null"),
        (NULL_IN_DICTIONARY, TIMES, "/spine/customer_id: row 1: null"),
        (pa.array([1, 2, 3]), TIMES, "/spine/customer_id: a join key of type string is needed, the column is int64"),
        (C1S, pa.array([0, 0, None], pa.timestamp("us", "UTC")), "/spine/event_timestamp: row 2: null"),
        (C1S, C1S, "/spine/event_timestamp: a timestamp with a time zone is needed, the column is string"),
        (C1S, pa.array([0, -1000, 1001], pa.timestamp("ns", "UTC")), "/spine/event_timestamp: row 2: finer than"),
        (C1S, pa.array([0, 2**62, 0], pa.timestamp("us", "UTC")), "/spine/event_timestamp: row 1: outside"),
        (C1S, pa.array([0, 0, 2**62], pa.timestamp("s", "UTC")), "/spine/event_timestamp: row 2: outside"),
    ],
)
def test_a_wrong_value_or_type_is_named_with_its_column_and_first_row(
    customers: pa.Array, times: pa.Array, problem: str, joined: Callable[..., pa.Table]
) -> None:
    spine = pa.table({"customer_id": customers, "event_timestamp": times})
    with pytest.raises(InvalidSpine) as caught:
        joined(spine, UNREADABLE)
    assert [str(found)[: len(problem)] for found in caught.value.problems] == [problem]


def test_rows_of_a_spine_file_are_counted_across_its_row_groups(
    joined: Callable[..., pa.Table], tmp_path: Path
) -> None:
    spine = spine_of(*[("C1", day(1))] * (BATCH_ROWS + 1), (None, day(1)))  # type: ignore[arg-type]
    pq.write_table(spine, tmp_path / "spine.parquet", row_group_size=BATCH_ROWS)
    with pytest.raises(InvalidSpine, match=f"customer_id: row {BATCH_ROWS + 1}: null"):
        joined(tmp_path / "spine.parquet", UNREADABLE)


def test_an_integer_key_that_could_exceed_int64_is_refused(joined: Callable[..., pa.Table]) -> None:
    spine = pa.table({"n": pa.array([7], pa.uint64()), "event_timestamp": pa.array([0], SPINE.types[1])})
    group = GroupHistory("purchases", (), (Field("n", INT64),), None, ())
    with pytest.raises(InvalidSpine, match="int64 is needed, the column is uint64"):
        joined(spine, group)


def test_a_column_that_stands_twice_is_refused(histories: Histories, joined: Callable[..., pa.Table]) -> None:
    spine = spine_of(("C1", day(1))).append_column("customer_id", pa.array(["C2"]))
    with pytest.raises(InvalidSpine, match="stands 2 times"):
        joined(spine, histories.group())


@pytest.mark.parametrize("content", [None, b"not Parquet"])
def test_a_path_without_a_parquet_file_is_refused_by_name(
    content: bytes | None, histories: Histories, joined: Callable[..., pa.Table], tmp_path: Path
) -> None:
    path = tmp_path / "spine.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidSpine, match=r"spine\.parquet"):
        joined(str(path), histories.group())


@pytest.mark.parametrize("kind", [pa.int8(), pa.int32(), pa.uint32()])
def test_narrower_integers_join_an_int64_key(
    kind: pa.DataType, histories: Histories, joined: Callable[..., pa.Table]
) -> None:
    spine = pa.table({"n": pa.array([7], kind), "bought_at": pa.array([0], pa.timestamp("s", "UTC"))})
    stored = {**row("", datetime(1970, 1, 1, tzinfo=UTC), 5), "n": 7}
    group = histories.group([stored], keys=(Field("n", INT64),))
    assert joined(spine, group, event_timestamp="bought_at")["value"].to_pylist() == [5]
