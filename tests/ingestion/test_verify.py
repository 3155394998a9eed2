"""Verify finds every way in which the online store can differ, names it, and finds nothing where nothing differs."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
import redis
from django.core.management import CommandError, call_command
from pytest_django import Settings

from catalog import stores
from catalog.models import CatalogState, FeatureGroup, Run, RunState
from engine.errors import CorruptData, OnlineStoreCold, Unavailable
from engine.instants import microseconds
from engine.online import codec
from engine.online.codec import decode_row, encode_row
from ingestion import drain, materialize, upkeep
from ingestion import verify as verifying
from ingestion.ingest import ingest
from ingestion.push import delete, push
from ingestion.tasks import catch_up
from ingestion.verify import Verification
from tests.factories import (
    ELEVEN,
    NOON,
    TEN,
    add_feature,
    make_customer_group,
    make_entity,
    purchase,
    write_csv,
    write_parquet,
)
from tests.ingestion import contents, processes
from tests.ingestion.test_materialize import EVERY_DTYPE, damage

Down = Callable[[], AbstractContextManager[None]]
AT_TEN = datetime(2024, 11, 1, 10, tzinfo=UTC)


@pytest.fixture(autouse=True)
def short_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most tests are at rest, where no push is between its commit and its upsert."""
    monkeypatch.setattr(verifying, "FIRST_PAUSE_SECONDS", 0.01)


def verify(group: FeatureGroup, **how: Any) -> Verification:
    """At once: nothing is on its way in these tests."""
    return verifying.verify(group, **{"patience": 0.0} | how)


def differences(group: FeatureGroup) -> list[tuple[str, str | None]]:
    """The kind and the id of each."""
    found = verify(group)
    assert found.total == len(found.differences)
    return [(each.kind, found.id_of(each)) for each in found.differences]


def key_of(customer: str, group: str = "customer_purchases") -> bytes:
    return f"fh:{group}:1:{{s{len(customer.encode())}:{customer}}}".encode()


@pytest.fixture
def group(sources: Path, redis_clean: redis.Redis) -> FeatureGroup:
    """C1 to C5 at ten from a file; C2 again at eleven, from the log; C5 deleted at noon."""
    group = make_customer_group()
    ingest(group, paths=[write_csv(sources / "a.csv", [purchase(f"C{n}", total_purchases=n) for n in range(1, 6)])])
    push(group, [purchase("C2", ELEVEN, total_purchases=20)])
    delete(group, {"customer_id": "C5"}, at=NOON)
    return group


# Nothing differs.


@pytest.mark.database
def test_rows_of_files_pushes_and_deletions_agree_before_and_after_the_drain(group: FeatureGroup) -> None:
    assert verify(group).rows == 5
    assert differences(group) == []
    drain.drain(group)
    assert differences(group) == []
    materialize.materialize(group, full=True)
    assert differences(group) == []


def test_a_group_without_rows_agrees(sources: Path) -> None:
    group = make_customer_group()
    assert (verify(group).rows, differences(group)) == (0, [])


def test_values_of_every_dtype_agree_from_a_file_and_pushed(sources: Path) -> None:
    group = make_customer_group(features={name: dtype for name, (dtype, _, _) in EVERY_DTYPE.items()})
    columns = {name: pa.array(values, arrow) for name, (_, arrow, values) in EVERY_DTYPE.items()}
    table = pa.table({"customer_id": ["C1", "C2", "C3"], "purchased_at": [AT_TEN] * 3, **columns})
    ingest(group, paths=[write_parquet(sources / "a.parquet", table)])
    later = table.set_column(1, "purchased_at", pa.array([AT_TEN + timedelta(hours=1)] * 3, pa.timestamp("us", "UTC")))
    push(group, later.slice(1))
    assert differences(group) == []
    drain.drain(group)
    assert differences(group) == []
    assert verify(group).rows == 3


AWKWARD = ["", "}{", "a,b/~c", "Zoë", "客户", "naïve 🦊", "a*[b]?\\", "new\nline", "e\u0301", "\u00e9", "x" * 512]


@contextmanager
def keyed_by_two(sources: Path) -> Iterator[FeatureGroup]:
    make_entity("customer", {"customer_id": "string", "shop": "int64"})
    group = make_customer_group(features={"total": "int64"})
    shops = (1, -(2**63), 2**63 - 1)
    push(
        group,
        [
            {"customer_id": customer, "shop": shop, "purchased_at": TEN, "total": 1}
            for customer in AWKWARD
            for shop in shops
        ],
    )
    yield group


def test_composite_keys_of_any_alphabet_agree_and_are_named(sources: Path, redis_clean: redis.Redis) -> None:
    with keyed_by_two(sources) as group:
        assert (verify(group).rows, differences(group)) == (3 * len(AWKWARD), [])
        drain.drain(group)
        assert differences(group) == []
        assert redis_clean.delete(b"fh:customer_purchases:1:{s6:a,b/~ci1:1}") == 1
        assert redis_clean.delete("fh:customer_purchases:1:{s6:客户i1:1}".encode()) == 1
        assert differences(group) == [("missing", "a~cb~s~tc,1"), ("missing", "客户,1")]


def test_a_key_prefix_that_is_a_pattern_to_redis_is_taken_as_it_is(
    sources: Path, settings: Settings, redis_clean: redis.Redis
) -> None:
    settings.FEATUREHUB_KEY_PREFIX = "f[h]*"
    stores.online.cache_clear()
    materialize.ensure_warm()
    group = make_customer_group()
    push(group, [purchase("C1")])
    redis_clean.set(b"fh:customer_purchases:1:{s2:C9}", b"of another hub")
    assert (verify(group).rows, differences(group)) == (1, [])
    redis_clean.delete(b"f[h]*:customer_purchases:1:{s2:C1}")
    assert differences(group) == [("missing", "C1")]
    stores.online.cache_clear()


def test_rows_of_older_schemas_agree(group: FeatureGroup) -> None:
    add_feature(group, "visits", "int64")
    push(group, [purchase("C1", NOON, visits=3), purchase("C6", NOON, visits=None)])
    assert {row.schema_id for row in contents.online_rows(group).values()} == {1, 2}
    assert (verify(group).rows, differences(group)) == (6, [])
    drain.drain(group)
    assert differences(group) == []


def test_a_compacted_table_agrees(sources: Path) -> None:
    group = make_customer_group()
    for number in range(12):
        push(group, [purchase(f"C{number % 5}", TEN, total_purchases=number)])
        drain.drain(group)
    assert upkeep.upkeep(group).compacted == 12
    assert (verify(group).rows, differences(group)) == (5, [])


def test_another_version_of_the_group_and_other_groups_are_not_its_rows(
    group: FeatureGroup, redis_clean: redis.Redis
) -> None:
    push(make_customer_group("customer_purchases_2"), [purchase("C7")])
    drain.drain(group)
    group.version = 2
    group.save()
    assert (verify(group).rows, differences(group)) == (0, [])
    push(group, [purchase("C1", NOON)])
    redis_clean.delete(key_of("C2"))  # of version 1, which nobody is served any more
    assert (verify(group).rows, differences(group)) == (1, [])
    redis_clean.delete(b"fh:customer_purchases:2:{s2:C1}")
    assert differences(group) == [("missing", "C1")]


def test_a_row_older_than_its_ttl_is_expected_as_any(sources: Path, redis_clean: redis.Redis) -> None:
    """Readers mind the TTL; no row leaves the online store for its age."""
    group = make_customer_group(ttl=timedelta(days=1))
    push(group, [purchase("C1", TEN)])
    assert differences(group) == []
    redis_clean.delete(key_of("C1"))
    assert differences(group) == [("missing", "C1")]


# One difference of each kind, planted by hand.


def stored(redis_clean: redis.Redis, customer: str) -> codec.OnlineRow:
    value = redis_clean.get(key_of(customer))
    assert isinstance(value, bytes)
    return decode_row(value)


def lose(client: redis.Redis) -> None:
    client.delete(key_of("C1"))


def lose_what_is_in_the_log(client: redis.Redis) -> None:
    client.delete(key_of("C2"))


def lose_a_tombstone(client: redis.Redis) -> None:
    client.delete(key_of("C5"))


def set_an_older_row(client: redis.Redis) -> None:
    row = stored(client, "C2")
    older = replace(row, event_us=row.event_us - 3_600_000_000, accepted=row.accepted - 1, values=[2, 50.0, "gold"])
    client.set(key_of("C2"), encode_row(older))


def set_what_was_before_the_deletion(client: redis.Redis) -> None:
    client.set(key_of("C5"), encode_row(replace(stored(client, "C4"), ordinal=4, values=[5, 20.0, "gold"])))


def set_an_older_ordinal(client: redis.Redis) -> None:
    row = stored(client, "C1")
    client.set(key_of("C1"), encode_row(replace(row, ordinal=row.ordinal - 1)))


def set_a_newer_row(client: redis.Redis) -> None:
    row = stored(client, "C3")
    client.set(key_of("C3"), encode_row(replace(row, ordinal=row.ordinal + 1)))


def change_a_value(client: redis.Redis) -> None:
    row = stored(client, "C3")
    client.set(key_of("C3"), encode_row(replace(row, values=[*row.values[:2], "silver"])))


def change_a_value_to_null(client: redis.Redis) -> None:
    row = stored(client, "C3")
    client.set(key_of("C3"), encode_row(replace(row, values=[None, *row.values[1:]])))


def revive(client: redis.Redis) -> None:
    client.set(key_of("C5"), encode_row(replace(stored(client, "C5"), deleted=False, values=[5, 20.0, "gold"])))


def add_an_entity(client: redis.Redis) -> None:
    client.set(key_of("C9"), encode_row(stored(client, "C1")))


def add_a_key_of_no_entity(client: redis.Redis) -> None:
    client.set(b"fh:customer_purchases:1:{\xff\n", b"anything")


def add_a_list(client: redis.Redis) -> None:
    client.rpush(key_of("C9").decode(), "a")


def write_garbage(client: redis.Redis) -> None:
    client.set(key_of("C4"), b"garbage")


def write_nothing(client: redis.Redis) -> None:
    client.set(key_of("C4"), b"")


def flip_a_bit(client: redis.Redis) -> None:
    value = bytearray(client.get(key_of("C4")) or b"")  # type: ignore[arg-type]
    value[-6] ^= 1
    client.set(key_of("C4"), bytes(value))


def flip_a_bit_of_the_version(client: redis.Redis) -> None:
    value = bytearray(client.get(key_of("C4")) or b"")  # type: ignore[arg-type]
    value[4] ^= 0xFF
    client.set(key_of("C4"), bytes(value))


def set_an_unknown_schema(client: redis.Redis) -> None:
    client.set(key_of("C4"), encode_row(replace(stored(client, "C4"), schema_id=99)))


def set_too_few_values(client: redis.Redis) -> None:
    client.set(key_of("C4"), encode_row(replace(stored(client, "C4"), values=[4])))


def put_a_hash_in_its_place(client: redis.Redis) -> None:
    client.delete(key_of("C4"))
    client.hset(key_of("C4").decode(), "a", "b")


PLANTED: list[tuple[Callable[[redis.Redis], None], str, str | None]] = [
    (lose, "missing", "C1"),
    (lose_what_is_in_the_log, "missing", "C2"),
    (lose_a_tombstone, "missing", "C5"),
    (set_an_older_row, "stale", "C2"),
    (set_what_was_before_the_deletion, "stale", "C5"),
    (set_an_older_ordinal, "stale", "C1"),
    (set_a_newer_row, "ahead", "C3"),
    (change_a_value, "values", "C3"),
    (change_a_value_to_null, "values", "C3"),
    (revive, "values", "C5"),
    (add_an_entity, "extra", "C9"),
    (add_a_key_of_no_entity, "extra", None),
    (add_a_list, "extra", "C9"),
    (write_garbage, "unreadable", "C4"),
    (write_nothing, "unreadable", "C4"),
    (flip_a_bit, "unreadable", "C4"),
    (flip_a_bit_of_the_version, "unreadable", "C4"),
    (set_an_unknown_schema, "unreadable", "C4"),
    (set_too_few_values, "unreadable", "C4"),
    (put_a_hash_in_its_place, "unreadable", "C4"),
]


#: These are about a row that is in the log only, until it is drained.
IN_THE_LOG = [planted for planted in PLANTED if planted[2] in ("C2", "C5")]
CASES = [*((planted, True) for planted in PLANTED), *((planted, False) for planted in IN_THE_LOG)]


@pytest.mark.parametrize(
    ("planted", "drained"), CASES, ids=[f"{planted[0].__name__}-{drained}" for planted, drained in CASES]
)
def test_what_is_planted_is_found_and_nothing_else(
    group: FeatureGroup,
    redis_clean: redis.Redis,
    planted: tuple[Callable[[redis.Redis], None], str, str | None],
    drained: bool,
) -> None:
    plant, kind, id = planted
    if drained:
        drain.drain(group)
    plant(redis_clean)
    assert differences(group) == [(kind, id)]
    if kind not in ("ahead", "extra") and plant is not flip_a_bit_of_the_version:
        materialize.rebuild()  # as `materialize --full`, of the log too
        drain.drain(group)
        materialize.materialize(group, full=True)
        assert differences(group) == []


def test_all_kinds_at_once_are_told_with_both_versions(
    group: FeatureGroup, redis_clean: redis.Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    right = {customer: told(stored(redis_clean, customer)) for customer in ("C1", "C2", "C3", "C4", "C5")}
    for plant in (add_an_entity, add_a_key_of_no_entity, lose, set_an_older_row, set_a_newer_row, flip_a_bit, revive):
        plant(redis_clean)
    key = "fh:customer_purchases:1:{s2"
    assert command(capsys, group.name) == (
        1,
        f"""\
customer_purchases: 6 online rows compared, 7 differences
  missing 1
    C1: expected {right["C1"]}, found nothing
  stale 1
    C2: expected {right["C2"]}, found {told(stored(redis_clean, "C2"))}
  ahead 1
    {key}:C3}}: expected {right["C3"]}, found {told(stored(redis_clean, "C3"))}
  values 1
    C5: expected {right["C5"]}, found that version with other values
  extra 2
    {key}:C9}}: expected nothing, found {right["C1"]}
    'fh:customer_purchases:1:{{\\\\xff\\n': expected nothing, found what is no row
  unreadable 1
    {key}:C4}}: expected {right["C4"]}, found what is no row
  manage.py materialize customer_purchases --full brings every accepted row online again.
  No row replaces one that looks newer: first delete in Redis the keys that are named whole.
""",
    )


def told(row: codec.OnlineRow) -> str:
    event, created = verifying.moment(row.event_us), verifying.moment(row.created_us)
    return f"{event} (created {created}, accepted {row.accepted}.{row.ordinal}{', deleted' if row.deleted else ''})"


# Counts, limits and the command.


def command(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """The exit code of `manage.py verify` and what it printed."""
    capsys.readouterr()
    try:
        call_command("verify", "--patience", "0", *arguments)
    except SystemExit as ended:
        return int(ended.code or 0), capsys.readouterr().out
    return 0, capsys.readouterr().out


def test_differences_beyond_the_limit_are_counted(
    group: FeatureGroup, redis_clean: redis.Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    push(group, [purchase(f"D{n:03}") for n in range(100)])
    drain.drain(group)
    materialize.materialize(group)
    for n in range(50):
        redis_clean.delete(key_of(f"D{n:03}"))
    for n in range(50, 53):
        redis_clean.set(key_of(f"D{n:03}"), b"")
    found = verify(group, limit=2)
    assert (found.counts, found.total) == ({"missing": 50, "unreadable": 3}, 53)
    assert [found.id_of(each) for each in found.differences] == ["D000", "D001", "D050", "D051"]
    code, printed = command(capsys, group.name, "--limit", "2")
    assert code == 1
    assert "55 online rows compared, 53 differences" in printed
    assert "    and 48 more\n" in printed
    code, printed = command(capsys, group.name)
    assert printed.count("found nothing") == 20
    code, printed = command(capsys, group.name, "--limit", "0", "--json")
    assert (code, json.loads(printed)["groups"][0]["differences"]) == (1, [])


def test_the_command_compares_all_groups_or_those_that_are_named(
    group: FeatureGroup, redis_clean: redis.Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    push(make_customer_group("other"), [purchase("C1")])
    whole = "customer_purchases: 5 online rows compared, no difference\n"
    assert command(capsys) == (0, f"{whole}other: 1 online rows compared, no difference\n")
    assert command(capsys, group.name, group.name) == (0, whole)
    redis_clean.delete(key_of("C1", "other"))
    assert command(capsys, group.name) == (0, whole)
    assert command(capsys)[0] == 1


def test_json_tells_programs_all_of_it(
    group: FeatureGroup, redis_clean: redis.Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    set_what_was_before_the_deletion(redis_clean)
    tombstone = materialize.undrained(group).order_by("-pk").first()
    assert tombstone is not None
    code, printed = command(capsys, group.name, "--json")
    (said,) = json.loads(printed)["groups"]
    assert (code, said["rows"], said["different"], said["counts"]) == (1, 5, 1, {"stale": 1})
    before = stored(redis_clean, "C5")
    assert said["differences"] == [
        {
            "kind": "stale",
            "id": "C5",
            "redis_key": "fh:customer_purchases:1:{s2:C5}",
            "expected": {
                "event_timestamp": NOON,
                "created_timestamp": verifying.moment(microseconds(tombstone.acceptance.accepted_at)),
                "accepted": tombstone.acceptance_id,
                "ordinal": 0,
                "deleted": True,
            },
            "actual": {
                "event_timestamp": TEN,
                "created_timestamp": verifying.moment(before.created_us),
                "accepted": before.accepted,
                "ordinal": 4,
                "deleted": False,
            },
        }
    ]


def test_wrong_usage_and_unknown_groups_are_told_apart(group: FeatureGroup, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(capsys, "customer_purchase")[0] == 1
    with pytest.raises(CommandError):
        call_command("verify", "--limit", "many")
    ended = processes.run_python(
        "import sys; from django.core.management import execute_from_command_line as run; run(sys.argv)",
        "verify",
        "--x",
    )
    assert ended.returncode == 2


def test_progress_is_told_on_a_terminal_only(
    group: FeatureGroup, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    call_command("verify", group.name)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    call_command("verify", group.name)
    said = capsys.readouterr()
    assert "\rcustomer_purchases: 5 online rows" in said.err
    assert said.out == "customer_purchases: 5 online rows compared, no difference\n"


def test_nothing_of_the_stores_is_changed(group: FeatureGroup, redis_clean: redis.Redis) -> None:
    for plant in (add_an_entity, lose, set_an_older_row, flip_a_bit):
        plant(redis_clean)
    before = {key: redis_clean.dump(key) for key in redis_clean.scan_iter()}
    verify(group)
    assert {key: redis_clean.dump(key) for key in redis_clean.scan_iter()} == before
    assert contents.offline(group)[-1]["customer_id"] == "C5"
    assert materialize.undrained(group).count() == 2


# A store that cannot be compared.


def test_a_store_that_is_down_cold_or_of_another_epoch_is_a_clear_error(
    group: FeatureGroup, redis_clean: redis.Redis, redis_down: Down, capsys: pytest.CaptureFixture[str]
) -> None:
    with redis_down(), pytest.raises(Unavailable, match="does not answer"):
        verify(group)
    epoch = CatalogState.current().epoch
    CatalogState.objects.update(epoch="another")
    with pytest.raises(OnlineStoreCold):
        verify(group)
    CatalogState.objects.update(epoch=epoch)
    redis_clean.flushall()
    with pytest.raises(OnlineStoreCold, match="not filled"):
        verify(group)
    code, printed = command(capsys, "--json")
    assert (code, json.loads(printed)["failed"][0]["code"]) == (1, "online_store_cold")


def test_a_group_that_is_held_back_says_so_and_the_others_are_compared(
    sources: Path, redis_clean: redis.Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    groups = [make_customer_group(name) for name in ("a", "b")]
    for each in groups:
        ingest(each, paths=[write_csv(sources / f"{each.name}.csv", [purchase("C1"), purchase("C2"), purchase("C3")])])
    damage(groups[0])
    with pytest.raises(CorruptData, match="is damaged"):
        verify(groups[0])
    redis_clean.flushall()
    catch_up()
    with pytest.raises(OnlineStoreCold, match="Rows of a may be missing online"):
        verify(groups[0])
    code, printed = command(capsys)
    assert (code, printed) == (1, "b: 3 online rows compared, no difference\n")


def test_a_table_that_is_gone_is_not_taken_for_an_empty_one(group: FeatureGroup) -> None:
    folder = contents.folder(group)
    folder.rename(folder.with_name("elsewhere"))
    with pytest.raises(CorruptData, match="has no commit"):
        verify(group)


def test_a_store_that_was_filled_anew_meanwhile_is_not_judged(group: FeatureGroup) -> None:
    with pytest.raises(Unavailable, match="filled anew"):
        verify(group, progress=lambda what, rows: materialize.rebuild() if what == "online" else None)


# What is on its way.


def test_rows_that_are_not_brought_online_are_waited_for_and_then_reported(
    sources: Path, redis_down: Down, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    group = make_customer_group()
    with redis_down():
        ingest(group, paths=[write_csv(sources / "a.csv", [purchase("C1")])])
    found = verify(group)
    assert (found.counts, found.is_behind) == ({"missing": 1}, True)
    monkeypatch.setattr(verifying, "PAUSE_SECONDS", 0.01)
    began = time.monotonic()
    assert verify(group, patience=0.5).counts == {"missing": 1}
    assert 0.5 < time.monotonic() - began < 5
    with monkeypatch.context() as patched:
        patched.setattr(verifying, "time", sleeping(lambda seconds: materialize.materialize(group)))
        assert verify(group, patience=5.0).counts == {}


def sleeping(sleep: Callable[[float], object]) -> SimpleNamespace:
    """The module `time` with another sleep, for one module: other threads of this process sleep as before."""
    return SimpleNamespace(sleep=sleep, monotonic=time.monotonic)


def test_a_run_that_brings_rows_online_is_waited_for_longer(
    sources: Path, redis_down: Down, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = make_customer_group()
    with redis_down():
        ingest(group, paths=[write_csv(sources / "a.csv", [purchase("C1")])])
    Run.objects.update(state=RunState.RUNNING)
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 5:
            materialize.materialize(group)

    monkeypatch.setattr(verifying, "time", sleeping(sleep))
    assert verify(group).counts == {}
    assert slept == [0.01, 2.0, 2.0, 2.0, 2.0]


def test_a_push_between_its_commit_and_its_upsert_is_no_difference(
    group: FeatureGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row is in the log before verify reads it, and online only while verify waits."""
    bring = materialize.upsert_frame
    waiting: list[Any] = []
    monkeypatch.setattr(materialize, "upsert_frame", lambda *asked: waiting.append(asked))
    push(group, [purchase("C1", NOON), purchase("C8", NOON)])
    monkeypatch.setattr(verifying, "time", sleeping(lambda seconds: bring(*waiting.pop())))
    assert verify(group).counts == {}
    assert waiting == []


def test_what_is_accepted_while_the_online_store_is_read_is_no_difference(group: FeatureGroup) -> None:
    """Pushed, drained, and pushed again for the same key, after the accepted rows were read."""
    told: list[str] = []

    def meanwhile(what: str, rows: int) -> None:
        if what == "accepted" and "accepted" not in told:
            push(group, [purchase("C1", NOON), purchase("C8", TEN)])
            drain.drain(group)
            push(group, [purchase("C1", NOON), purchase("C9", TEN)])
        told.append(what)

    assert verify(group, progress=meanwhile).counts == {}
    assert "online" in told


def test_what_is_drained_before_the_log_is_read_is_read_from_the_table(
    group: FeatureGroup, redis_clean: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were the table read first, a row that is drained in between would be in neither, and its loss unseen."""
    frames_of_log = materialize.frames_of_log

    def drained_at_the_last_moment(group: FeatureGroup) -> Iterator[Any]:
        drain.drain(group)
        return frames_of_log(group)

    push(group, [purchase("C9")])
    redis_clean.delete(key_of("C9"))
    monkeypatch.setattr(materialize, "frames_of_log", drained_at_the_last_moment)
    assert differences(group) == [("missing", "C9")]


PUSHER = """
import sys, django
django.setup()
from pathlib import Path
from catalog.models import FeatureGroup
from ingestion import drain, materialize
from ingestion.push import delete, push
from random import Random
from types import SimpleNamespace
group, random, n = FeatureGroup.objects.get(), Random(7), 0
print("ready", flush=True)
while not Path(sys.argv[1]).exists() or n < 20:
    at = f"2024-11-01T{random.randrange(10, 20)}:00:00Z"
    rows = [{"customer_id": f"C{random.randrange(300)}", "purchased_at": at, "total_spent": 1.5, "total_purchases": n,
             "customer_segment": "gold"} for _ in range(5)]
    push(group, [*rows, rows[0] | {"customer_id": f"N{n}"}])
    delete(group, {"customer_id": f"C{random.randrange(300)}"}, at=at)
    n += 1
    if n % 10 == 0:
        drain.drain(group)
        materialize.materialize(group)
print(n)
"""


@pytest.mark.database
@pytest.mark.django_db(transaction=True)
def test_beside_writers_and_drains_only_what_is_planted_is_found(
    sources: Path, redis_clean: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two other processes push, delete, drain and materialize the very keys that are compared."""
    monkeypatch.undo()  # the real pauses
    group, stop = make_customer_group(), tmp_path / "stop"
    ingest(group, paths=[write_csv(sources / "a.csv", [purchase(f"C{n}", TEN) for n in range(300)])])
    ingest(group, paths=[write_csv(sources / "b.csv", [purchase(f"still{n}", TEN) for n in range(3000)])])
    command = [sys.executable, "-c", PUSHER, str(stop)]
    pushers = [
        subprocess.Popen(command, cwd=processes.PROJECT, env=processes.environment(), stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        for pusher in pushers:
            assert pusher.stdout is not None
            assert pusher.stdout.readline() == "ready\n"
        rows = [verifying.verify(group) for _ in range(4)]
        assert [each.counts for each in rows] == [{}] * 4
        assert rows[0].rows < rows[-1].rows
        redis_clean.delete(key_of("still7"))
        add_an_entity_of("still1", "X1", redis_clean)
        found = verify(group)
        assert [(each.kind, found.id_of(each)) for each in found.differences] == [
            ("missing", "still7"),
            ("extra", "X1"),
        ]
    finally:
        stop.touch()
        said = [pusher.communicate(timeout=60)[0] for pusher in pushers]
    assert all(int(text) >= 20 for text in said)
    drain.drain(group)
    redis_clean.delete(key_of("X1"))
    materialize.materialize(group, full=True)
    assert verify(group).counts == {}


def add_an_entity_of(customer: str, other: str, client: redis.Redis) -> None:
    client.set(key_of(other), client.get(key_of(customer)) or b"")  # type: ignore[arg-type]


def test_any_history_in_any_number_of_files_is_compared_by_its_newest_rows(
    sources: Path, redis_clean: redis.Redis
) -> None:
    """Versions of few keys over many files and the log, ties included: whichever key is set back is found."""
    group, random = make_customer_group(), Random(3)
    for number in range(8):
        rows = [purchase(f"C{random.randrange(6)}", random.choice([TEN, ELEVEN, NOON])) for _ in range(6)]
        push(group, rows)
        if number % 3 == 2:
            drain.drain(group)
    assert differences(group) == []
    for customer, row in contents.online_rows(group).items():
        key = f"fh:customer_purchases:1:{{{customer}}}"
        redis_clean.set(key, encode_row(replace(row, ordinal=row.ordinal - 1)))
        assert differences(group) == [("stale", customer[3:])]
        redis_clean.set(key, encode_row(row))
