"""The version order as few SQL values: a comparison of four columns costs a join half as much again as one of a number.

A Parquet footer says from where to where a column goes. Columns whose ranges are known are packed, as digits of one
number, as long as they fit 63 bits (BIGINT) or 126 (HUGEINT); what does not fit begins another number, and a struct of
the numbers is compared field by field. A column of one value takes no bits. Numbers of packed columns compare as the
columns do: each digit is at least 0 and below its base. Where a footer does not say, a column stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from engine.errors import RunFailed
from engine.parquet import open_parquet

_BIGINT, _HUGEINT = 63, 126
_LAST = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Digit:
    """A SQL expression of type BIGINT, never null, and from where to where its values go (None: not known)."""

    sql: str
    range: tuple[int, int] | None

    @property
    def bits(self) -> int | None:
        """How many bits its distance from the least value takes; None where that is not known or no BIGINT."""
        if self.range is None:
            return None
        bits = (self.range[1] - self.range[0]).bit_length()
        return bits if bits <= _BIGINT else None


def ranges(files: Iterable[str], columns: Sequence[str]) -> dict[str, tuple[int, int]]:
    """From where to where each of `columns` goes, by the files' footers: times in microseconds, bools as 0 and 1.

    A column is left out where a file lacks it, or a footer does not say so or tells of nulls. Raises RunFailed naming
    a file that cannot be read.
    """
    seen = [_of_file(path, columns) for path in files]
    found = {}
    for name in columns:
        of_files = [file.get(name) for file in seen]
        known = [each for each in of_files if each is not None]
        if known and len(known) == len(of_files):
            found[name] = min(low for low, _ in known), max(high for _, high in known)
    return found


def _of_file(path: str, columns: Sequence[str]) -> dict[str, tuple[int, int]]:
    try:
        with open_parquet(path) as file:
            metadata, types = file.metadata, {field.name: field.type for field in file.schema_arrow}
    except (pa.ArrowException, OSError) as error:
        raise RunFailed(f"The history file {path} cannot be read: {error}") from error
    places = {metadata.schema.column(place).path: place for place in range(metadata.num_columns)}
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    found = {}
    for name in columns:
        if name in places and _is_number(types[name]):
            statistics = [group.column(places[name]).statistics for group in groups if group.num_rows]
            if statistics and all(s and s.has_min_max and s.has_null_count and not s.null_count for s in statistics):
                found[name] = min(int(s.min_raw) for s in statistics), max(int(s.max_raw) for s in statistics)
    return found


def _is_number(kind: pa.DataType) -> bool:
    """Whether a value's number in the file is the one that SQL has."""
    is_time = pa.types.is_timestamp(kind) and kind.unit == "us" and kind.tz is not None
    return bool(is_time or pa.types.is_signed_integer(kind) or pa.types.is_boolean(kind))


def packed(digits: Sequence[Digit]) -> str:
    """SQL of one value per row that compares as the digits do, the first one first."""
    words = [_word(word) for word in _words(digits)]
    return words[0] if len(words) == 1 else "{" + ", ".join(f"'w{n}': {word}" for n, word in enumerate(words)) + "}"


def packed_time(time: str, digits: Sequence[Digit]) -> str:
    """SQL of a value that is at or after that of each row whose first digit is at most `time`, and before all others.

    A time outside the first digit's range is moved to its end or to just below it, where it compares as before.
    """
    first, *later = digits
    if first.bits is not None and first.range is not None:
        low, high = first.range
        time = f"least(greatest({time}, {low - 1}), {high})"
    ends = [Digit(str(digit.range[1] if digit.range else _LAST), digit.range) for digit in later]
    return packed([Digit(time, first.range), *ends])


def _words(digits: Sequence[Digit]) -> list[list[Digit]]:
    """The digits in order, as many to a word as fit; one of unknown range is a word of its own."""
    words: list[list[Digit]] = []
    room = 0
    for digit in digits:
        if digit.bits is None:
            words.append([digit])
            room = 0
        elif words and room >= digit.bits:
            words[-1].append(digit)
            room -= digit.bits
        else:
            words.append([digit])
            room = _HUGEINT - digit.bits
    return words


def _word(word: Sequence[Digit]) -> str:
    """SQL of a word, by Horner's scheme over its digits."""
    if word[0].bits is None:
        return word[0].sql
    kind = "BIGINT" if sum(digit.bits or 0 for digit in word) <= _BIGINT else "HUGEINT"
    sql = ""
    for digit in word:
        above_least = f"({digit.sql} - ({digit.range[0] if digit.range else 0}))"
        sql = f"({sql} * {2 ** (digit.bits or 0)} + {above_least})" if sql else f"{above_least}::{kind}"
    return f"({sql})::{kind}"
