"""A connection that a thread keeps: its answers are its own, whatever happened to it before."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator

import pytest
import redis

from engine.online.kept import KeptConnections

TIMEOUT_SECONDS = 0.1


@pytest.fixture
def client(private_redis_url: str) -> Iterator[redis.Redis]:
    made = redis.Redis.from_url(private_redis_url, socket_timeout=TIMEOUT_SECONDS, client_name="kept")
    yield made
    made.close()


@pytest.fixture
def kept(client: redis.Redis, redis_clean: redis.Redis) -> Iterator[KeptConnections]:
    redis_clean.mset({"a": "1", "b": "2"})
    made = KeptConnections(client)
    yield made
    made.close()


def connections(server: redis.Redis) -> int:
    return sum(one["name"] == "kept" for one in server.client_list())


def test_many_reads_take_one_connection(kept: KeptConnections, redis_clean: redis.Redis) -> None:
    for _ in range(3):
        assert kept.mget([b"a", b"b", b"none"]) == [b"1", b"2", None]
    assert connections(redis_clean) == 1


def test_a_connection_that_the_server_closed_is_made_again_without_an_error(
    kept: KeptConnections, redis_clean: redis.Redis
) -> None:
    kept.mget([b"a"])
    redis_clean.client_kill_filter(_type="normal", skipme=True)
    assert kept.mget([b"a"]) == [b"1"]


def test_an_answer_that_came_too_late_is_never_taken_for_the_next_one(
    kept: KeptConnections, redis_clean: redis.Redis
) -> None:
    assert kept.mget([b"a"]) == [b"1"]
    redis_clean.client_pause(500)
    with pytest.raises(redis.TimeoutError):
        kept.mget([b"a"])
    time.sleep(0.6)
    assert kept.mget([b"b"]) == [b"2"]


def test_an_error_is_raised_and_the_connection_goes_on(kept: KeptConnections, redis_clean: redis.Redis) -> None:
    kept.mget([b"a"])
    with pytest.raises(redis.ResponseError):
        kept.mget([])  # MGET without a key is one
    assert kept.mget([b"b"]) == [b"2"]
    assert connections(redis_clean) == 1


def test_each_thread_has_its_own_which_goes_with_it(kept: KeptConnections, redis_clean: redis.Redis) -> None:
    kept.mget([b"a"])
    seen: list[int] = []

    def read() -> None:
        assert kept.mget([b"b"]) == [b"2"]
        seen.append(connections(redis_clean))

    thread = threading.Thread(target=read)
    thread.start()
    thread.join()
    gc.collect()
    deadline = time.monotonic() + 5
    while connections(redis_clean) > 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert (seen, connections(redis_clean)) == ([2], 1)


def test_after_closing_a_read_connects_again(kept: KeptConnections, redis_clean: redis.Redis) -> None:
    kept.mget([b"a"])
    kept.close()
    assert kept.mget([b"a"]) == [b"1"]


def test_nobody_there_is_an_error_at_once() -> None:
    nobody = redis.Redis.from_url("unix:///nowhere/redis.sock", socket_timeout=TIMEOUT_SECONDS)
    began = time.monotonic()
    with pytest.raises(redis.ConnectionError):
        KeptConnections(nobody).mget([b"a"])
    assert time.monotonic() - began < 1
