"""A Redis that forgets: restored from an old file, short of memory, or evicting. What it lacks is brought again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import pytest
import redis
from pytest_django import Settings

from catalog import stores
from catalog.models import CatalogState, FeatureGroup
from engine.errors import CorruptData, OnlineStoreCold, Unavailable
from engine.online.store import NOTHING
from featurehub import private_redis
from ingestion import drain, materialize, upkeep
from ingestion.ingest import ingest
from ingestion.push import delete, push
from ingestion.tasks import catch_up
from serving import vectors
from tests.engine.online.rewinding import Rewinding
from tests.factories import ELEVEN, NOON, make_customer_group, purchase, write_csv
from tests.forgetting import forget
from tests.ingestion import contents
from tests.ingestion.replicas import Pair
from tests.ingestion.test_materialize import assert_both_stores_agree, damage

Down = Callable[[], AbstractContextManager[None]]


@pytest.fixture
def own_redis(sources: Path, settings: Settings, tmp_path: Path) -> Iterator[Rewinding]:
    """The online store of this test on a redis-server of its own, empty and warm."""
    home = tmp_path / "home"
    with private_redis.running(home):
        server, before = Rewinding(home), settings.ONLINE_REDIS_URL
        settings.ONLINE_REDIS_URL = server.url
        forget()
        materialize.ensure_warm()
        yield server
        server.wake()
        settings.ONLINE_REDIS_URL = before
        forget()


def client_of(server: Rewinding) -> redis.Redis:
    return redis.Redis.from_url(server.url)


def total_of(group: FeatureGroup, customer: str) -> object:
    found = vectors.read(vectors.of_features([f"{group.name}:total_purchases"]), {"customer_id": [customer]})
    return found.values[0][0]


def position(group: FeatureGroup) -> int:
    return stores.online().positions([(group.name, group.version)])[0]


def reached(group: FeatureGroup) -> int:
    return group.online_cursors.get().delta_version


# Back in time.


def two_groups_with_a_past(sources: Path) -> list[FeatureGroup]:
    groups = [make_customer_group(name, source=f"{name}.csv") for name in ("a", "b")]
    for group in groups:
        write_csv(sources / f"{group.name}.csv", [purchase("C1"), purchase("C2")])
        ingest(group)
        push(group, [purchase("C3", total_purchases=1)])
    catch_up()
    return groups


def more_of_everything(group: FeatureGroup) -> None:
    """Newer rows by every way in: a run, a push that is drained, a deletion, and a push that stays in the log."""
    ingest(group, paths=[write_csv(Path(str(contents.folder(group)) + ".csv"), [purchase("C1", ELEVEN)])])
    push(group, [purchase("C3", ELEVEN, total_purchases=7)])
    delete(group, {"customer_id": "C2"})
    drain.drain(group)
    materialize.materialize(group)
    push(group, [purchase("C3", NOON, total_purchases=9)])


def test_a_redis_restored_from_an_old_file_is_cold_until_all_that_it_lost_is_there_again(
    sources: Path, own_redis: Rewinding, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = two_groups_with_a_past(sources)
    own_redis.save()
    for group in groups:
        more_of_everything(group)
    before = [contents.online_rows(group) for group in groups]
    assert (total_of(groups[0], "C3"), len(before[0])) == (9, 3)
    own_redis.go_back()
    forget()
    assert total_of(groups[0], "C3") == 1  # as long as nobody has looked
    states: list[str] = []

    def read_meanwhile(group: FeatureGroup, **how: object) -> int:
        with pytest.raises(OnlineStoreCold):
            total_of(groups[0], "C3")
        states.append(group.name)
        return follow(group, **how)  # type: ignore[arg-type]

    follow = materialize._follow
    with monkeypatch.context() as patched:
        patched.setattr(materialize, "_follow", read_meanwhile)
        materialize.ensure_warm()
    assert states == ["a", "b"]
    assert [contents.online_rows(group) for group in groups] == before
    assert total_of(groups[0], "C3") == 9
    catch_up()
    assert [position(group) for group in groups] == [reached(group) for group in groups]
    with client_of(own_redis) as client:
        client.flushall()
    catch_up()
    assert [contents.online_rows(group) for group in groups] == before


def test_only_what_was_lost_is_read_again(sources: Path, own_redis: Rewinding, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, lost = two_groups_with_a_past(sources)
    own_redis.save()
    push(lost, [purchase("C4")])
    catch_up()
    own_redis.go_back()
    forget()
    read: list[str] = []
    files = materialize.files_after
    monkeypatch.setattr(materialize, "files_after", lambda *asked: read.extend(found := files(*asked)) or found)
    catch_up()
    assert len(read) == 1
    assert sorted(contents.online(lost)) == ["s2:C1", "s2:C2", "s2:C3", "s2:C4"]
    assert sorted(contents.online(kept)) == ["s2:C1", "s2:C2", "s2:C3"]


def test_pushes_that_were_answered_and_lost_are_online_after_one_catch_up(sources: Path, own_redis: Rewinding) -> None:
    """Nothing in the database shows this loss: the position had not moved."""
    group = make_customer_group()
    push(group, [purchase("C1", total_purchases=1)])
    own_redis.save()
    assert push(group, [purchase("C1", ELEVEN, total_purchases=2), purchase("C2")]).online == "applied"
    own_redis.go_back()
    forget()
    catch_up()
    assert total_of(group, "C1") == 2
    assert_both_stores_agree(group, ["customer_id"])


def test_a_redis_from_before_a_rebuild_is_cold_at_once(sources: Path, own_redis: Rewinding) -> None:
    group = make_customer_group()
    push(group, [purchase("C1", total_purchases=1)])
    own_redis.save()
    materialize.rebuild()
    push(group, [purchase("C1", ELEVEN, total_purchases=2)])
    own_redis.go_back()
    forget()
    with pytest.raises(OnlineStoreCold):
        total_of(group, "C1")
    catch_up()
    assert total_of(group, "C1") == 2


def test_a_redis_that_goes_back_during_its_rebuild_is_not_opened(sources: Path, own_redis: Rewinding) -> None:
    """The group that was filled first is lost while the second one is."""
    groups = two_groups_with_a_past(sources)
    with client_of(own_redis) as client:
        client.flushall()
    own_redis.save()
    with pytest.raises(Unavailable):
        materialize.rebuild(progress=lambda group, _: own_redis.go_back() if group == "b" else None)
    assert materialize.is_cold()
    catch_up()
    for group in groups:
        assert_both_stores_agree(group, ["customer_id"])


@pytest.fixture
def pair(sources: Path, settings: Settings, tmp_path: Path) -> Iterator[Pair]:
    """The online store of this test on two servers of its own, one a replica of the other, empty and warm."""
    with Pair.running(tmp_path) as pair:
        before = settings.ONLINE_REDIS_URL
        settings.ONLINE_REDIS_URL = pair.url
        forget()
        materialize.ensure_warm()
        yield pair
        settings.ONLINE_REDIS_URL = before
        forget()


def test_a_replica_that_takes_over_without_the_last_writes_gets_them_again(sources: Path, pair: Pair) -> None:
    """What it lacks came by a run, by drained pushes, by a deletion, and by a push that is in the log alone."""
    groups = two_groups_with_a_past(sources)
    pair.wait_until_in_step()
    pair.cut()
    for group in groups:
        more_of_everything(group)
    before = [contents.online_rows(group) for group in groups]
    reached_before = [position(group) for group in groups]
    pair.kill_master()
    with pytest.raises(Unavailable):
        total_of(groups[0], "C3")
    pair.promote()
    pair.lead_to("replica")
    assert total_of(groups[0], "C3") == 1  # by the connections of this process, as long as nobody has looked
    assert [position(group) < reached(group) for group in groups] == [True, True]
    epoch = CatalogState.current().epoch
    materialize.ensure_warm()
    assert CatalogState.current().epoch != epoch  # closed for reading meanwhile
    assert [contents.online_rows(group) for group in groups] == before
    assert total_of(groups[0], "C3") == 9
    assert [position(group) for group in groups] == reached_before
    catch_up()
    for group in groups:
        assert_both_stores_agree_but_deleted(group)


def assert_both_stores_agree_but_deleted(group: FeatureGroup) -> None:
    """The newest row of each customer offline is the one online; C2 was deleted."""
    newest = {row["customer_id"]: row for row in contents.offline(group)}
    assert {name: row["_deleted"] for name, row in newest.items()} == {"C1": False, "C2": True, "C3": False}
    online = contents.online_rows(group)
    assert {name: (row["_accepted"], row["_ordinal"]) for name, row in newest.items()} == {
        key.partition(":")[2]: (row.accepted, row.ordinal) for key, row in online.items()
    }


def test_a_replica_that_is_asked_before_it_is_promoted_takes_nothing_and_loses_nothing(
    sources: Path, pair: Pair
) -> None:
    group = make_customer_group()
    push(group, [purchase("C1", total_purchases=1)])
    catch_up()
    pair.wait_until_in_step()
    pair.cut()
    assert push(group, [purchase("C1", ELEVEN, total_purchases=2)]).online == "applied"
    pair.kill_master()
    pair.lead_to("replica")
    assert push(group, [purchase("C1", NOON, total_purchases=3)]).online == "pending"
    catch_up()  # it cannot bring anything there, and says so in the log
    assert total_of(group, "C1") == 1
    pair.promote()
    catch_up()
    assert total_of(group, "C1") == 3
    assert_both_stores_agree(group, ["customer_id"])
    assert position(group) == reached(group)


def test_two_positions_that_differ_start_at_the_lower_one(sources: Path) -> None:
    group = make_customer_group(source="*.csv")
    for name in "abc":
        write_csv(sources / f"{name}.csv", [purchase(name)])
        ingest(group)
    assert (position(group), reached(group)) == (3, 3)
    with redis.Redis.from_url(stores_url()) as client:
        client.set("fh:position:customer_purchases:1", 1)
    assert materialize.materialize(group) == 2
    group.online_cursors.update(delta_version=2)  # as after a crash between the two
    assert materialize.materialize(group) == 1
    assert (position(group), reached(group)) == (3, 3)


def stores_url() -> str:
    from django.conf import settings

    return str(settings.ONLINE_REDIS_URL)


def test_a_store_of_before_there_were_positions_is_filled_once(sources: Path) -> None:
    group = make_customer_group(source="*.csv")
    write_csv(sources / "a.csv", [purchase()])
    ingest(group)
    with redis.Redis.from_url(stores_url()) as client:
        client.delete("fh:position:customer_purchases:1", "fh:server")
    epoch = CatalogState.current().epoch
    materialize.ensure_warm()
    assert (position(group), CatalogState.current().epoch == epoch) == (1, False)
    epoch = CatalogState.current().epoch
    materialize.ensure_warm()
    assert CatalogState.current().epoch == epoch


# The cursor.


def test_a_failed_bringing_moves_neither_position(sources: Path, redis_down: Down) -> None:
    group = make_customer_group(source="*.csv")
    write_csv(sources / "a.csv", [purchase(f"C{n}") for n in range(100)])
    with redis_down():
        ingest(group)
    damage(group)
    catch_up()
    assert (position(group), reached(group)) == (NOTHING, NOTHING)


def test_an_offline_table_that_was_set_back_is_followed_when_the_loss_is_accepted(sources: Path) -> None:
    """Its versions count from lower down again: cursors that stood above them would skip what comes."""
    group = make_customer_group(source="*.csv")
    for name in "abc":
        write_csv(sources / f"{name}.csv", [purchase(name)])
        ingest(group)
    (contents.folder(group) / "_delta_log" / f"{3:020}.json").unlink()
    with pytest.raises(CorruptData, match="ends at version 2, and version 3 had been committed"):
        materialize.materialize(group)
    upkeep.accept_loss(group, by="a test")
    assert (position(group), reached(group)) == (2, 2)
    write_csv(sources / "d.csv", [purchase("d")])
    ingest(group)
    assert (position(group), reached(group)) == (3, 3)
    assert sorted(contents.online(group)) == ["s1:a", "s1:b", "s1:c", "s1:d"]


# Short of memory.


@contextmanager
def full(server: Rewinding, policy: str = "noeviction") -> Iterator[None]:
    """The server takes nothing more: what it may use is what it uses."""
    with client_of(server) as client:
        client.config_set("maxmemory-policy", policy)
        client.config_set("maxmemory", 1)
        try:
            yield
        finally:
            client.config_set("maxmemory", 0)


def test_with_redis_full_pushes_are_pending_reads_go_on_and_all_comes_when_there_is_room(
    sources: Path, own_redis: Rewinding
) -> None:
    group = make_customer_group(source="*.csv")
    push(group, [purchase("C1", total_purchases=1)])
    write_csv(sources / "a.csv", [purchase("C3")])
    with full(own_redis):
        assert push(group, [purchase("C1", ELEVEN, total_purchases=2), purchase("C2")]).online == "pending"
        assert total_of(group, "C1") == 1
        run = ingest(group)
        assert (run.state, run.message) == (
            "succeeded",
            "Committed offline; the online store follows when Redis is back.",
        )
        catch_up()
        assert total_of(group, "C1") == 1
        assert not materialize.is_cold()
    catch_up()
    assert total_of(group, "C1") == 2
    assert_both_stores_agree(group, ["customer_id"])


def test_a_store_that_does_not_fit_stays_cold_until_there_is_room(sources: Path, own_redis: Rewinding) -> None:
    group = make_customer_group()
    push(group, [purchase("C1")])
    with client_of(own_redis) as client:
        client.flushall()
    with full(own_redis):
        catch_up()
        assert materialize.is_cold()
        with pytest.raises(OnlineStoreCold):
            total_of(group, "C1")
    catch_up()
    assert_both_stores_agree(group, ["customer_id"])


# Evicting.


def evict(server: Rewinding) -> None:
    """Have the server evict all it can, but let it keep what is small and needed to see that."""
    with client_of(server) as client:
        kept = {name: client.get(name) for name in ("fh:state", "fh:server", *client.keys("fh:position:*"))}
        with full(server, "allkeys-random"), suppress(redis.exceptions.OutOfMemoryError):
            for n in range(1_000):  # until nothing is left to evict
                client.set(f"more{n}", b"x")
        assert client.info()["evicted_keys"] > 0
        client.flushdb()
        client.mset({name: value for name, value in kept.items() if value is not None})


@pytest.mark.parametrize("policy_afterwards", ["noeviction", "allkeys-lru"])
def test_a_redis_that_evicted_keys_is_cold_until_it_is_filled_again(
    sources: Path, own_redis: Rewinding, policy_afterwards: str
) -> None:
    group = make_customer_group()
    push(group, [purchase("C1"), purchase("C2")])
    catch_up()
    evict(own_redis)
    with client_of(own_redis) as client:
        client.config_set("maxmemory-policy", policy_afterwards)
    assert contents.online(group) == {}
    assert (position(group), reached(group)) == (1, 1)  # so nothing else tells
    epoch = CatalogState.current().epoch
    catch_up()
    assert_both_stores_agree(group, ["customer_id"])
    filled, again = CatalogState.current().epoch, materialize.ensure_warm()
    assert (filled != epoch, CatalogState.current().epoch, again) == (True, filled, None)


def test_a_redis_that_evicts_while_it_is_filled_is_not_opened(sources: Path, own_redis: Rewinding) -> None:
    group = make_customer_group()
    push(group, [purchase("C1"), purchase("C2")])
    catch_up()
    with client_of(own_redis) as client:
        client.flushall()
    with pytest.raises(Unavailable):
        materialize.rebuild(progress=lambda *_: evict_one(own_redis))
    assert materialize.is_cold()
    catch_up()
    assert_both_stores_agree(group, ["customer_id"])


def evict_one(server: Rewinding) -> None:
    """A key of somebody else goes, which the count cannot tell from one of ours."""
    with client_of(server) as client:
        client.config_set("maxmemory-policy", "volatile-ttl")
        client.set("somebody:else", b"x", ex=60)
        client.config_set("maxmemory", 1)
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            client.set("more", b"x")
        client.config_set("maxmemory", 0)
        client.config_set("maxmemory-policy", "noeviction")


def test_a_policy_that_evicts_rows_is_said_once_in_a_process(
    sources: Path, own_redis: Rewinding, caplog: pytest.LogCaptureFixture
) -> None:
    materialize._warn_of_policy.cache_clear()
    with client_of(own_redis) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
    for _ in range(3):
        materialize.ensure_warm()
    said = [record for record in caplog.records if "maxmemory-policy allkeys-lru" in record.getMessage()]
    assert [record.levelname for record in said] == ["ERROR"]


def test_a_rebuild_says_that_it_is_at_it_also_while_a_large_push_goes_slowly(
    sources: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1,500 rows at 1,000 a second, three times as long as a rebuild may be silent here."""
    group = make_customer_group()
    push(group, [purchase(f"C{number}") for number in range(1_500)])
    settings.FEATUREHUB_BULK_ROWS_PER_SECOND = 1_000
    forget()
    monkeypatch.setattr(materialize, "REBUILD_LOCK_SECONDS", 0.5)
    monkeypatch.setattr(materialize, "SECONDS_BETWEEN_SIGNS", 0.1)
    assert materialize.rebuild()
    assert total_of(group, "C1499") == 4
