"""A position claims no more than what is there, whatever moment Redis goes back to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from engine.entity_key import encode_key
from engine.errors import Unavailable
from engine.online.codec import OnlineRow, encode_row
from engine.online.filling import Filling
from engine.online.server import Server
from engine.online.store import NOTHING, UPSERT_BATCH, OnlineStore, row_key
from featurehub import private_redis
from tests.engine.online.rewinding import Rewinding

GROUP = ("purchases", 1)


@pytest.fixture
def store(redis_clean: redis.Redis, private_redis_url: str) -> Iterator[OnlineStore]:
    store = OnlineStore(private_redis_url, "fh")
    yield store
    store.close()


@pytest.fixture
def rewinding(tmp_path: Path) -> Iterator[Rewinding]:
    with private_redis.running(tmp_path):
        yield Rewinding(tmp_path)


def rows(*numbers: int) -> list[tuple[bytes, bytes]]:
    return [
        (row_key(b"fh:purchases:1:{", encode_key([f"C{n}"])), encode_row(OnlineRow(n, 0, 0, 0, 1, [n])))
        for n in numbers
    ]


def filled(store: OnlineStore, *numbers: int, after: int = NOTHING, to: int) -> None:
    filling = Filling(store, *GROUP)
    filling.upsert(rows(*numbers))
    filling.reach(to, after=after)


def keys(client: redis.Redis) -> set[bytes]:
    return set(client.keys())


def test_a_filling_leaves_its_rows_and_the_position_that_it_reached(
    store: OnlineStore, redis_clean: redis.Redis
) -> None:
    assert store.positions([GROUP, ("other", 1)]) == [NOTHING, NOTHING]
    assert store.positions([]) == []
    filled(store, 1, 2, to=4)
    assert store.positions([GROUP, ("purchases", 2)]) == [4, NOTHING]
    assert redis_clean.get("fh:position:purchases:1") == b"4"
    assert keys(redis_clean) == {b"fh:position:purchases:1", *(key for key, _ in rows(1, 2))}


def test_a_filling_of_many_batches_counts_each(store: OnlineStore) -> None:
    filling = Filling(store, *GROUP)
    for first in (0, 5_000):
        filling.upsert(rows(*range(first, first + 2 * UPSERT_BATCH + 1)))
    filling.upsert([])
    filling.reach(9, after=NOTHING)
    assert store.positions([GROUP]) == [9]
    assert len(store.read([key for key, _ in rows(*range(1_001))])[1]) == 1_001


def test_a_filling_stores_the_newest_row_as_an_upsert_does(store: OnlineStore) -> None:
    (key, old), new = rows(1)[0], encode_row(OnlineRow(2, 0, 0, 0, 1, ["new"]))
    filling = Filling(store, *GROUP)
    filling.upsert([(key, new), (key, old)])
    filling.upsert([(key, old)])
    assert store.read([key])[1] == [new]


def test_nothing_new_costs_no_command(store: OnlineStore, redis_clean: redis.Redis) -> None:
    filled(store, 1, to=4)
    filling = Filling(store, *GROUP)
    before = redis_clean.info("commandstats")["cmdstat_evalsha"]["calls"]
    filling.reach(4, after=4)
    assert redis_clean.info("commandstats")["cmdstat_evalsha"]["calls"] == before


def test_a_position_that_another_has_raised_stays(store: OnlineStore) -> None:
    slow = Filling(store, *GROUP)
    slow.upsert(rows(1))
    filled(store, 1, 2, to=9)
    slow.reach(4, after=NOTHING)
    assert store.positions([GROUP]) == [9]


def test_a_table_that_was_set_back_takes_the_position_with_it(store: OnlineStore) -> None:
    filled(store, 1, 2, to=9)
    filling = Filling(store, *GROUP)
    filling.upsert(rows(1))
    filling.reach(4, after=NOTHING)
    assert store.positions([GROUP]) == [4]


def test_a_position_below_the_beginning_is_not_raised(store: OnlineStore, redis_clean: redis.Redis) -> None:
    filled(store, 1, to=5)
    filling = Filling(store, *GROUP)
    redis_clean.set("fh:position:purchases:1", 3)  # the rows of 4 and 5 are gone with what it was
    filling.upsert(rows(6))
    with pytest.raises(Unavailable, match="went back in time"):
        filling.reach(6, after=5)
    assert store.positions([GROUP]) == [3]


@pytest.mark.parametrize("foreign", [b"", b"x", b"-5", b"1e3", b"9" * 30, None])
def test_what_is_no_position_counts_as_none(
    store: OnlineStore, redis_clean: redis.Redis, foreign: bytes | None
) -> None:
    if foreign is None:
        redis_clean.rpush("fh:position:purchases:1", 7)
    else:
        redis_clean.set("fh:position:purchases:1", foreign)
    assert store.positions([GROUP]) == [NOTHING]


def test_a_wiped_store_gets_no_position_from_a_filling_that_had_begun(
    store: OnlineStore, redis_clean: redis.Redis
) -> None:
    filling = Filling(store, *GROUP)
    filling.upsert(rows(1))
    redis_clean.flushall()
    with pytest.raises(Unavailable, match="went back in time"):
        filling.upsert(rows(2))
    with pytest.raises(Unavailable, match="went back in time"):
        filling.reach(4, after=NOTHING)
    assert store.positions([GROUP]) == [NOTHING]


def test_a_server_that_lost_a_batch_between_two_others_gets_no_position(rewinding: Rewinding) -> None:
    """The lost batch stood between a position that is still there and a batch that came after: only its count tells."""
    store = OnlineStore(rewinding.url, "fh")
    filled(store, 1, to=5)
    filling = Filling(store, *GROUP)
    filling.upsert(rows(6))
    rewinding.save()
    filling.upsert(rows(7))
    rewinding.go_back()
    store.close()  # as an idle connection is found closed, and opened again, without an error
    with pytest.raises(Unavailable, match="went back in time"):
        filling.upsert(rows(8))
    with pytest.raises(Unavailable, match="went back in time"):
        filling.reach(8, after=5)
    assert store.positions([GROUP]) == [5]
    assert store.read([key for key, _ in rows(1, 6, 7)])[1] == [*(value for _, value in rows(1, 6)), None]
    store.close()


def test_a_server_that_lost_the_last_batch_gets_no_position(rewinding: Rewinding) -> None:
    store = OnlineStore(rewinding.url, "fh")
    filling = Filling(store, *GROUP)
    filling.upsert(rows(1))
    rewinding.save()
    filling.upsert(rows(2))
    rewinding.go_back()
    store.close()  # as an idle connection is found closed, and opened again, without an error
    with pytest.raises(Unavailable, match="went back in time"):
        filling.reach(5, after=NOTHING)
    assert store.positions([GROUP]) == [NOTHING]
    store.close()


def test_a_server_that_went_back_holds_what_its_position_says(rewinding: Rewinding) -> None:
    store = OnlineStore(rewinding.url, "fh")
    filled(store, 1, to=5)
    rewinding.save()
    filled(store, 2, after=5, to=6)
    rewinding.go_back()
    store.close()
    assert store.positions([GROUP]) == [5]
    assert store.read([key for key, _ in rows(1, 2)])[1] == [rows(1)[0][1], None]
    store.close()


# Evicted keys.


def server(run: str, evicted: int, policy: str = "noeviction") -> Server:
    return Server(run, evicted, policy)


@pytest.mark.parametrize(
    ("now", "known", "may_have"),
    [
        (server("a", 0), None, False),
        (server("a", 1), None, True),
        (server("a", 7), server("a", 7), False),
        (server("a", 8), server("a", 7), True),
        (server("b", 0), server("a", 7), False),
        (server("b", 1), server("a", 0), True),
        # What was evicted before the last start is counted nowhere.
        (server("b", 0, "allkeys-lru"), server("a", 0, "allkeys-lru"), True),
        (server("b", 0), server("a", 0, "allkeys-lru"), True),
        (server("b", 0, "allkeys-lfu"), server("a", 0), True),
        (server("a", 0, "allkeys-lru"), server("a", 0, "allkeys-lru"), False),
        (server("a", 0, "allkeys-lru"), None, False),
        # These touch keys that expire, which no row does.
        (server("a", 9, "volatile-lru"), server("a", 0, "volatile-lru"), False),
        (server("b", 9, "volatile-ttl"), None, False),
    ],
)
def test_rows_may_be_gone_when_more_keys_were_evicted_than_was_known(
    now: Server, known: Server | None, may_have: bool
) -> None:
    assert now.may_have_evicted_since(known) is may_have


def test_a_server_is_known_again_as_it_was_noted(store: OnlineStore, redis_clean: redis.Redis) -> None:
    (now,) = store.servers()
    assert (now.policy, now.evicted_keys, now.evicts_rows) == ("noeviction", redis_clean.info()["evicted_keys"], False)
    assert store.known_servers() == ()
    store.note_servers([now])
    assert store.known_servers() == (now,)
    assert redis_clean.get("fh:server") == f"{now.run_id}:{now.evicted_keys}:noeviction".encode()
    redis_clean.set("fh:server", b"nonsense")
    assert store.known_servers() == ()


def test_a_user_who_may_not_ask_the_server_is_told_nothing(rewinding: Rewinding) -> None:
    with redis.Redis.from_url(rewinding.url) as admin:
        admin.acl_setuser("hub", enabled=True, passwords=["+secret"], keys=["*"], commands=["+@all", "-info"])
    url = rewinding.url.replace("unix://", "unix://hub:secret@")
    store = OnlineStore(url, "fh")
    assert store.servers() == ()
    filled(store, 1, to=4)
    assert store.positions([GROUP]) == [4]
    store.close()
