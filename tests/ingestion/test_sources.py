"""Which files a path means, which are refused by name, and how their rows are read."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from catalog.source_roots import find
from engine.errors import InvalidSource
from ingestion import sources
from ingestion.sources import Content, inspect, read


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    (folder / "daily").mkdir(parents=True)
    for name in ("daily/b.csv", "daily/a.csv", "daily/a.parquet", "single.csv"):
        (folder / name).write_text("customer_id\nC1\n")
    return folder


def rows(content: Content) -> list[dict[str, object]]:
    return [row for batch in read(content) for row in batch.to_pylist()]


def test_progress_tells_the_share_of_a_parquet_file_that_was_read(tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": range(400_000)}), tmp_path / "rows.parquet")
    content, told = inspect(tmp_path / "rows.parquet"), []
    assert sum(batch.num_rows for batch in read(content, told.append)) == 400_000
    assert [round(one / content.size, 2) for one in told] == [0.33, 0.66, 0.98, 1.0]


def test_a_glob_means_its_files_in_order_and_each_once(root: Path) -> None:
    assert find("daily/*.csv", [root, root]) == [root / "daily/a.csv", root / "daily/b.csv"]
    assert find("single.csv", [root]) == [root / "single.csv"]
    assert find("**/*.csv", [root]) == [root / "daily/a.csv", root / "daily/b.csv", root / "single.csv"]


def test_a_path_that_means_no_file_is_refused_naming_the_roots(root: Path) -> None:
    with pytest.raises(InvalidSource, match=rf"'absent\.csv' below {root}"):
        find("absent.csv", [root])
    with pytest.raises(InvalidSource, match="FEATUREHUB_SOURCE_ROOTS is empty"):
        find("absent.csv", [])


def symlink_to_a_file(root: Path, outside: Path) -> str:
    (root / "link.csv").symlink_to(outside / "secret.csv")
    return "link.csv"


def symlink_to_a_folder(root: Path, outside: Path) -> str:
    (root / "linked").symlink_to(outside)
    return "linked/*.csv"


def beside_the_root_under_a_longer_name(root: Path, outside: Path) -> str:
    (root.parent / "root2").symlink_to(outside)
    return "../root2/secret.csv"


@pytest.mark.parametrize(
    "way",
    [
        symlink_to_a_file,
        symlink_to_a_folder,
        beside_the_root_under_a_longer_name,
        lambda root, outside: f"../{outside.name}/secret.csv",
        lambda root, outside: f"daily/../../{outside.name}/*.csv",
        lambda root, outside: f"*/../../{outside.name}/secret.csv",
        lambda root, outside: str(outside / "secret.csv"),
        lambda root, outside: f"/{outside}/secret.csv",
    ],
)
def test_a_way_out_of_the_roots_is_refused(root: Path, way: Callable[[Path, Path], str]) -> None:
    outside = root.parent / "outside"
    outside.mkdir()
    (outside / "secret.csv").write_text("customer_id\nC1\n")
    pattern = way(root, outside)
    with pytest.raises(InvalidSource, match="outside the source roots") as refused:
        find(pattern, [root])
    assert pattern in str(refused.value)


def test_an_absolute_path_within_a_root_is_that_file(root: Path) -> None:
    assert find(str(root / "single.csv"), [root]) == [root / "single.csv"]


@pytest.mark.parametrize("pattern", ["../absent.csv", "/absent.csv", "../*"])
def test_a_path_out_of_the_roots_does_not_tell_what_is_there(root: Path, pattern: str) -> None:
    """Whether a file exists or not, the refusal is the same and names no place outside."""
    with pytest.raises(InvalidSource, match="outside the source roots") as refused:
        find(pattern, [root])
    assert str(root.parent / "outside") not in str(refused.value)


def test_a_path_of_the_system_is_not_even_walked(root: Path) -> None:
    with pytest.raises(InvalidSource, match="outside the source roots"):
        find("/**/*.csv", [root])


@pytest.mark.parametrize("pattern", ["a\0.csv", "http://example.com/a.csv", "s3://bucket/a.csv"])
def test_what_is_no_path_is_refused(root: Path, pattern: str) -> None:
    with pytest.raises(InvalidSource, match="is not a path"):
        find(pattern, [root])


def test_a_symlink_within_the_roots_is_read(root: Path) -> None:
    (root / "link.csv").symlink_to(root / "single.csv")
    assert rows(inspect(find("link.csv", [root])[0])) == [{"customer_id": "C1"}]


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: path.touch(), "is empty"),
        (lambda path: path.mkdir(), "cannot be opened: Is a directory"),
        (os.mkfifo, "is not a regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "is not a regular file"),
        (lambda path: path.symlink_to("/dev/null"), "is not a regular file"),
        (lambda path: path.symlink_to("nowhere"), "cannot be opened: No such file"),
        (lambda path: path.symlink_to(path), "cannot be opened"),
        (lambda path: None, "cannot be opened: No such file"),
    ],
)
def test_what_is_no_file_with_contents_is_refused(tmp_path: Path, make: Callable[[Path], None], why: str) -> None:
    path = tmp_path / "rows.csv"
    make(path)
    with pytest.raises(InvalidSource, match=rf"rows\.csv {why}"):
        inspect(path)


@pytest.mark.parametrize("name", ["rows.txt", "rows.csv.bz2", "rows", "rows.parquet.tmp", "rows.pickle"])
def test_a_file_of_another_format_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("customer_id\nC1\n")
    with pytest.raises(InvalidSource, match=r"its name ends in \.csv, \.csv\.gz, \.parquet"):
        inspect(tmp_path / name)


def test_csv_values_are_text_and_only_an_unquoted_empty_field_is_null(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('a,b\n007,\nNA,""\n"x\ny",null\n')
    content = inspect(path)
    assert content.is_text
    assert sources.column_names(content) == ["a", "b"]
    assert rows(content) == [{"a": "007", "b": None}, {"a": "NA", "b": ""}, {"a": "x\ny", "b": "null"}]


def test_all_formats_give_the_same_columns_and_rows(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,b\n1,x\n2,y\n")
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"a,b\n1,x\n2,y\n"))
    pq.write_table(pa.table({"a": ["1", "2"], "b": ["x", "y"]}), tmp_path / "a.parquet")
    for name in ("a.csv", "a.csv.gz", "a.parquet"):
        content = inspect(tmp_path / name)
        assert sources.column_names(content) == ["a", "b"], name
        assert rows(content) == [{"a": "1", "b": "x"}, {"a": "2", "b": "y"}], name


def test_repeated_columns_are_told_as_they_stand(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,b,a\n1,2,3\n")
    assert sources.column_names(inspect(tmp_path / "a.csv")) == ["a", "b", "a"]


def test_batches_are_bounded_whatever_the_size_of_the_file(tmp_path: Path) -> None:
    rows = sources.ROWS_PER_BATCH * 2 + 1
    (tmp_path / "a.csv").write_text("a\n" + "1\n" * rows)
    pq.write_table(pa.table({"a": pa.array([1] * rows)}), tmp_path / "a.parquet", row_group_size=rows)
    for name in ("a.csv", "a.parquet"):
        sizes = [batch.num_rows for batch in read(inspect(tmp_path / name))]
        assert sum(sizes) == rows, name
        assert max(sizes) <= sources.ROWS_PER_BATCH, name


def test_quoted_line_ends_may_lie_across_the_blocks_of_a_large_file(tmp_path: Path) -> None:
    line = '"' + "\n" * 99 + '",1\n'
    count = sources.CSV_BLOCK_BYTES // len(line) + 10
    (tmp_path / "a.csv").write_text("a,b\n" + line * count)
    content = inspect(tmp_path / "a.csv")
    assert sources.column_names(content) == ["a", "b"]
    assert sum(batch.num_rows for batch in read(content)) == count


def flipped(path: Path, at: int) -> None:
    damaged = bytearray(path.read_bytes())
    damaged[at] ^= 0xFF
    path.write_bytes(damaged)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


@pytest.mark.parametrize(
    ("name", "contents", "spoil"),
    [
        ("a.csv", b"a,b\n1,2\n3\n", None),
        ("a.csv", b"a,b\n1,2\n3,4,5\n", None),
        ("a.csv", b"a\xff,b\n1,2\n", None),
        ("a.csv", b"a,b\n\xff,2\n", None),
        ("a.csv", b"\n", None),
        ("a.csv.gz", gzip.compress(b"a,b\n" + b"1,2\n" * 1000, mtime=0), cut),
        ("a.csv.gz", gzip.compress(b"a,b\n" + b"1,2\n" * 1000, mtime=0), lambda path: flipped(path, -6)),
        ("a.csv.gz", b"a,b\n1,2\n", None),
        ("a.parquet", b"PAR1 and nothing else PAR1", None),
        ("a.parquet", b"x", None),
        ("a.parquet", None, cut),
        ("a.parquet", None, lambda path: flipped(path, 40)),
    ],
)
def test_a_damaged_file_is_named_with_what_is_wrong(
    tmp_path: Path, name: str, contents: bytes | None, spoil: Callable[[Path], None] | None
) -> None:
    path = tmp_path / name
    if contents is None:
        pq.write_table(pa.table({"a": list(range(100))}), path, write_page_checksum=True, compression="none")
    else:
        path.write_bytes(contents)
    if spoil:
        spoil(path)
    content = inspect(path)
    with pytest.raises(InvalidSource, match=rf"{name} cannot be read: "):
        _ = sources.column_names(content), rows(content)


def append(path: Path) -> None:
    with path.open("a") as file:
        file.write("C2\n")


def rewrite_as_long(path: Path) -> None:
    path.write_text(path.read_text().replace("C1", "C9"))


def replace_keeping_the_time(path: Path) -> None:
    """As `cp --preserve` and `mv` do: another file of the same size and time under the name."""
    before, other = path.stat(), path.with_suffix(".new")
    other.write_text(path.read_text().replace("C1", "C9"))
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.rename(path)


@pytest.mark.parametrize("change", [append, rewrite_as_long, replace_keeping_the_time, Path.unlink])
@pytest.mark.parametrize("moment", ["before the first batch", "before the end"])
def test_a_file_that_changes_after_its_hash_was_taken_is_refused(
    tmp_path: Path, change: Callable[[Path], None], moment: str
) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("customer_id\n" + "C1\n" * (sources.ROWS_PER_BATCH + 1))
    content = inspect(path)
    batches = read(content)
    if moment == "before the end":
        next(batches)
    change(path)
    with pytest.raises(InvalidSource, match=r"changed while it was read|cannot be read"):
        list(batches)
