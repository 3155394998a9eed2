"""What is expected beside what is found: the differences that loops over both find, in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import RunFailed
from engine.online.codec import OnlineRow, decode_row, encode_row
from engine.online.comparison import Comparison, Difference, Kind, Version, comparing

Rows = list[tuple[bytes, bytes]]

#: Few keys, versions and values, so that ties and repetitions are common. Years before 1970 are negative.
KEYS = st.sampled_from([b"a", b"b", b"}", b"\xff"])
VALUES = st.builds(
    lambda event, ordinal, value, deleted: encode_row(
        OnlineRow(event, 1, 1, ordinal, 1, [] if deleted else [value], deleted)
    ),
    st.sampled_from([-(2**63), -1, 0, 2**53, 2**53 + 1]),
    st.integers(0, 1),
    st.sampled_from(["x", "y"]),
    st.booleans(),
)
ROWS = st.lists(st.tuples(KEYS, VALUES), max_size=8)
FOUND = st.dictionaries(KEYS, VALUES | st.sampled_from([b"", b"\x01garbage"]), max_size=4)


def version_of(value: bytes) -> tuple[int, ...]:
    row = decode_row(value)
    return row.event_us, row.created_us, row.accepted, row.ordinal


def told(value: bytes | None) -> Version | None:
    return None if value is None else Version(*version_of(value), decode_row(value).deleted)


def is_row(value: bytes) -> bool:
    return len(value) > 20


def looked_for(expected: Rows, explained: Rows, found: dict[bytes, bytes]) -> list[tuple[bytes, Kind]]:
    """The same by loops over each key."""
    different: list[tuple[bytes, Kind]] = []
    for key in sorted({key for key, _ in chain(expected, found.items())}):
        due = [value for each, value in expected if each == key]
        known = due + [value for each, value in explained if each == key]
        online = found.get(key)
        if online is None:
            different.append((key, "missing"))
        elif online in known and all(version_of(value) <= version_of(online) for value in due):
            continue
        elif not known:
            different.append((key, "extra"))
        elif not is_row(online):
            different.append((key, "unreadable"))
        else:
            newest = max(map(version_of, known))
            at = version_of(online)
            different.append((key, "stale" if at < newest else "ahead" if at > newest else "values"))
    return different


@given(expected=ROWS, explained=ROWS, found=FOUND, cut=st.integers(0, 8))
@settings(max_examples=60)
def test_it_finds_what_loops_find(
    expected: Rows, explained: Rows, found: dict[bytes, bytes], cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    online = list(found.items())
    with comparing(tmp_path_factory.getbasetemp() / "spill") as comparison:
        for part in (expected[:cut], expected[cut:]):
            comparison.expect(part)
        comparison.find(online, [is_row(value) for _, value in online])
        assert comparison.found_keys() == len(found)
        comparison.doubts()
        comparison.explain(explained)
        wanted = looked_for(expected, explained, found)
        assert comparison.doubts() == len(wanted)
        counts, differences = comparison.differences(limit=10)
    assert sorted((each.key, each.kind) for each in differences) == wanted
    assert counts == {kind: sum(kind == each for _, each in wanted) for kind in counts}
    for each in differences:
        stored = found.get(each.key)
        assert each.actual == (told(stored) if stored and is_row(stored) else None)


def row(number: int, value: str = "x") -> bytes:
    return encode_row(OnlineRow(number, 0, 1, 0, 1, [value]))


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    with comparing(tmp_path) as made:
        yield made


def test_what_was_accepted_since_explains_a_row_and_is_missed_only_when_it_is_looked_for_again(
    comparison: Comparison,
) -> None:
    comparison.expect([(b"a", row(1)), (b"b", row(1))])
    comparison.find([(b"a", row(2)), (b"b", row(1))])
    assert comparison.doubts() == 1
    comparison.explain([(b"a", row(2)), (b"a", row(3)), (b"b", row(9)), (b"c", row(9))])
    assert comparison.doubts() == 0


def test_a_second_look_expects_what_was_accepted_before_it(comparison: Comparison) -> None:
    comparison.expect([(b"a", row(1))])
    comparison.find([])
    assert comparison.doubts() == 1
    comparison.explain([(b"a", row(2))])
    comparison.look_again()
    assert list(comparison.doubtful_keys()) == [[b"a"]]
    comparison.find([(b"a", row(1))], [True])
    assert comparison.doubts() == 1
    assert comparison.differences(5) == (
        {"stale": 1},
        [Difference("stale", b"a", Version(2, 0, 1, 0, False), Version(1, 0, 1, 0, False))],
    )


def test_a_key_that_a_scan_gave_twice_is_one_key(comparison: Comparison) -> None:
    comparison.expect([(b"a", row(1))])
    comparison.find([(b"a", row(1)), (b"a", row(1))])
    assert (comparison.found_keys(), comparison.doubts()) == (1, 0)


def many(first: int, last: int, value: str = "x") -> Rows:
    return [(b"fh:customer_purchases:1:{s9:%09d}" % n, row(n, value)) for n in range(first, last)]


def batches(count: int, value: str = "x") -> Sequence[Rows]:
    return [many(first, min(first + 20_000, count), value) for first in range(0, count, 20_000)]


def test_more_doubts_than_are_handed_out_at_a_time_are_all_looked_at(comparison: Comparison) -> None:
    for batch in batches(60_000):
        comparison.expect(batch)
        comparison.find(batch[::2])
    assert comparison.doubts() == 30_000
    comparison.look_again()
    rows = dict(many(0, 60_000))
    handed_out = 0
    for keys in comparison.doubtful_keys():
        handed_out += len(keys)
        comparison.find([(key, rows[key]) for key in keys], [True] * len(keys))
    assert (handed_out, comparison.doubts()) == (30_000, 0)


def test_what_does_not_fit_into_memory_is_spilled_and_gone_afterwards(tmp_path: Path) -> None:
    """500,000 keys on both sides, of 80 bytes and more."""
    with comparing(tmp_path, memory_limit="80MB") as comparison:
        for batch in batches(500_000):
            comparison.expect(batch)
            comparison.find(batch, [True] * len(batch))
        spilled = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
        comparison.find(many(500_000, 500_001), [True])
        assert comparison.doubts() == 1
        assert comparison.differences(5)[0] == {"extra": 1}
    assert spilled > 1_000_000
    assert list(tmp_path.iterdir()) == []


def test_a_comparison_that_cannot_finish_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match=r"The comparison \(memory limit 10MB\) did not finish"):
        expect_too_much(tmp_path)


def expect_too_much(folder: Path) -> None:
    with comparing(folder, memory_limit="10MB") as comparison:
        for batch in batches(300_000):
            comparison.expect(batch)
        comparison.doubts()
