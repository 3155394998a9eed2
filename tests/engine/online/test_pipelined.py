"""Reads of an event loop: right values or none at all, whatever the server does."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from typing import Any

import pytest
import redis

from engine.errors import Unavailable
from engine.online.breaker import FAILURES, Breaker
from engine.online.pipelined import Pipelined

TIMEOUT_SECONDS = 0.1


@pytest.fixture
def client(private_redis_url: str, redis_clean: redis.Redis) -> Iterator[redis.Redis]:
    redis_clean.mset({"a": "1", "b": "2"})
    made = redis.Redis.from_url(private_redis_url, socket_timeout=TIMEOUT_SECONDS, socket_connect_timeout=1)
    yield made
    made.close()


OPEN: list[Pipelined] = []


def on_loop(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def closing() -> None:
        try:
            await asyncio.wait_for(work(), 20)
        finally:
            while OPEN:
                OPEN.pop().close()
            await asyncio.sleep(0)  # a transport is closed in the next turn

    asyncio.run(closing())


def made(client: redis.Redis, breaker: Breaker | None = None) -> Pipelined:
    OPEN.append(Pipelined(asyncio.get_running_loop(), client, breaker or Breaker()))
    return OPEN[-1]


async def connected(reads: Pipelined) -> None:
    """Until it reads itself; before that it sends its callers to a thread."""
    assert reads.mget([b"a"]) is None
    for _ in range(200):
        if (asked := reads.mget([b"a"])) is not None:
            await asked
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it does not connect")


def test_each_caller_gets_its_own_values(client: redis.Redis) -> None:
    async def work() -> None:
        reads = made(client)
        await connected(reads)
        asked = [reads.mget(keys) for keys in ([b"a"], [b"b", b"none", b"a"], [b"none"])]
        assert [await one for one in asked if one] == [[b"1"], [b"2", None, b"1"], [None]]

    on_loop(work)


def test_what_is_asked_in_one_turn_is_one_packet_on_one_connection(
    client: redis.Redis, redis_clean: redis.Redis
) -> None:
    async def work() -> None:
        reads = made(client)
        await connected(reads)
        before = redis_clean.info("stats")
        asked = [one for _ in range(50) if (one := reads.mget([b"a"]))]
        assert [await one for one in asked] == [[b"1"]] * 50
        after = redis_clean.info("stats")
        assert after["total_commands_processed"] - before["total_commands_processed"] == 51  # with the INFO before
        assert after["total_reads_processed"] - before["total_reads_processed"] <= 3  # this INFO is one, too
        assert after["total_connections_received"] == before["total_connections_received"]

    on_loop(work)


def test_a_caller_that_has_gone_takes_no_answer_from_another(client: redis.Redis) -> None:
    async def work() -> None:
        reads = made(client)
        await connected(reads)
        gone, there = reads.mget([b"a"]), reads.mget([b"b"])
        assert gone
        assert there
        gone.cancel()
        assert await there == [b"2"]

    on_loop(work)


def test_an_error_is_left_to_a_thread_and_the_connection_goes_on(client: redis.Redis) -> None:
    async def work() -> None:
        reads = made(client)
        await connected(reads)
        wrong, right = reads.mget([]), reads.mget([b"a"])
        assert wrong
        assert right
        assert [await wrong, await right] == [None, [b"1"]]

    on_loop(work)


def test_a_connection_that_is_lost_leaves_its_callers_to_threads_and_is_made_again(
    client: redis.Redis, redis_clean: redis.Redis
) -> None:
    async def work() -> None:
        reads = made(client)
        await connected(reads)
        redis_clean.client_kill_filter(_type="normal", skipme=True)
        asked = reads.mget([b"a"])
        assert asked is None or await asked is None
        await asyncio.sleep(0.6)
        await connected(reads)

    on_loop(work)


def test_who_gets_no_answer_in_time_is_told_so_and_no_late_answer_is_taken_for_the_next(
    client: redis.Redis, redis_clean: redis.Redis
) -> None:
    async def work() -> None:
        breaker = Breaker()
        reads = made(client, breaker)
        await connected(reads)
        redis_clean.client_pause(500)
        for _ in range(FAILURES):
            asked = reads.mget([b"a"])
            if asked is None:  # the connection was closed with the first
                break
            with pytest.raises(Unavailable):
                await asked
        await asyncio.sleep(0.6)
        await connected(reads)
        asked = reads.mget([b"b"])
        assert asked
        assert await asked == [b"2"]

    on_loop(work)


def test_while_the_server_is_held_to_be_down_only_threads_ask(client: redis.Redis) -> None:
    async def work() -> None:
        breaker = Breaker()
        reads = made(client, breaker)
        await connected(reads)
        for _ in range(FAILURES):
            breaker.failed()
        assert reads.mget([b"a"]) is None
        breaker.answered()
        assert reads.mget([b"a"]) is not None

    on_loop(work)


def test_where_nobody_listens_it_tries_again_only_now_and_then() -> None:
    async def work() -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = int(free.getsockname()[1])
        client = redis.Redis(port=port, socket_timeout=0.1, socket_connect_timeout=0.1)
        reads = made(client)
        tasks = set()
        for _ in range(50):
            assert reads.mget([b"a"]) is None
            tasks.add(reads._connecting)
            await asyncio.sleep(0.002)
        assert len(tasks - {None}) == 1

    on_loop(work)


@pytest.mark.parametrize(
    "reply",
    [
        b"*2\r\n$1\r\n1\r\n$1\r\n2\r\n",
        b":1\r\n",
        b"$1\r\n1\r\n",
        b"*1\r\n:1\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"",
    ],
)
def test_what_answers_something_else_is_left_to_a_thread_and_never_asked_again(reply: bytes) -> None:
    async def work() -> None:
        replies = iter([b"+OK\r\n", b"*1\r\n$1\r\n1\r\n", reply])

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(ConnectionError):
                while await reader.read(1_000):
                    if not (said := next(replies)):
                        break
                    writer.write(said)
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        reads = made(redis.Redis(port=port, socket_timeout=1, socket_connect_timeout=1))
        await connected(reads)
        asked, behind = reads.mget([b"a"]), reads.mget([b"b"])
        assert asked
        assert behind
        assert [await asked, await behind] == [None, None]
        assert reads.mget([b"a"]) is None
        server.close()

    on_loop(work)


def test_it_logs_in_and_chooses_the_database(redis_clean: redis.Redis, private_redis_url: str) -> None:
    async def work() -> None:
        redis_clean.acl_setuser("reader", enabled=True, passwords=["+secret"], commands=["+@all"], keys=["*"])
        redis_clean.execute_command("SELECT", 3)
        redis_clean.set("a", "3")
        redis_clean.execute_command("SELECT", 0)
        try:
            how = {"username": "reader", "socket_timeout": 1, "socket_connect_timeout": 1}
            reads = made(redis.Redis.from_url(private_redis_url.partition("?")[0], db=3, password="secret", **how))
            await connected(reads)
            assert (asked := reads.mget([b"a"]))
            assert await asked == [b"3"]
            wrong = made(redis.Redis.from_url(private_redis_url, password="wrong", **how))
            for _ in range(30):
                assert wrong.mget([b"a"]) is None
                await asyncio.sleep(0.01)
        finally:
            redis_clean.acl_deluser("reader")

    on_loop(work)
