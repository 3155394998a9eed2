"""Reads on the event loop: the same answers as in a thread, and a thread for whatever the loop may not do."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable, Coroutine
from http.client import responses
from typing import Any

import pytest
import redis
from pytest_django import DjangoAssertNumQueries

from engine.errors import Unavailable
from featurehub.environ import SECONDS_OF_A_BODY, environ_of, take_body
from featurehub.event_loop import BLOCK_BYTES, Application
from tests.featurehub.rsgi import Scope, Told
from tests.serving.conftest import Hub
from tests.serving.test_hot_path import ADDRESSES, ONE, VECTORS, Answer, Whole, assert_equal, bodies, both

pytestmark = pytest.mark.usefixtures("one_connection")

TOTAL = json.dumps({"features": ["customer_purchases:total"], "entities": {"customer_id": ["C1"]}}).encode()


class OnLoop(Application):
    """One that says when it would have gone to a thread, in place of doing so."""

    def __init__(self, *, in_threads: bool = False, **limits: Any) -> None:
        from serving.hot_path import HotPath

        super().__init__(HotPath(Whole()), **limits)
        self.in_threads, self.threads = in_threads, 0

    async def _in_thread(self, work: Any) -> Any:
        self.threads += 1
        return await super()._in_thread(work) if self.in_threads else (418, [], b"a thread")


async def warm(application: Application) -> None:
    """It has its connection to Redis."""
    application.__rsgi_init__(asyncio.get_running_loop())
    assert application._online
    for _ in range(500):
        if (asked := application._online.mget([b"none"])) is not None:
            await asked
            return
        await asyncio.sleep(0.01)
    raise AssertionError("no connection to Redis")


def on_loop(work: Callable[[Application], Coroutine[Any, Any, None]], application: Application) -> None:
    async def closing() -> None:
        await warm(application)
        try:
            await asyncio.wait_for(work(application), 20)
        finally:
            application.__rsgi_del__(asyncio.get_running_loop())
            await asyncio.sleep(0)

    asyncio.run(closing())


def scope_of(method: str, path: str, body: bytes = b"", query: str = "", **headers: str) -> Scope:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return Scope(path, method, query, {"content-type": "application/json", "content-length": str(len(body)), **given})


async def asked(application: Application, method: str, path: str, body: bytes = b"", **headers: str) -> Told:
    told = Told((body,) if body else ())
    await application.__rsgi__(scope_of(method, path, body, **headers), told)
    return told


def assert_alike(method: str, path: str, body: bytes = b"", query: str = "", **headers: str) -> None:
    """The loop's answer is that of a thread, which has looked the key up before."""
    short, _, _ = both(method, path, body, query, **headers)

    async def work(application: Application) -> None:
        told = await asked(application, method, path, body, query=query, **headers)
        answer = Answer(f"{told.status} {responses[told.status]}", told.headers, told.body)
        if "meta" in query:
            for each in (short, answer):
                each.body, each.headers["Content-Length"] = b"", ""
        assert_equal(answer, short)

    on_loop(work, OnLoop())


@pytest.mark.parametrize("number", range(len(bodies())))
def test_vectors_are_the_same_on_the_loop_errors_too(hub: Hub, number: int) -> None:
    body = json.dumps(bodies()[number]).encode()
    if len(body) > 5_000:
        pytest.skip("of so many rows that a thread reads them")
    assert_alike("POST", VECTORS, body, authorization=f"Bearer {hub.key}")


@pytest.mark.parametrize(("path", "query"), ADDRESSES)
def test_one_entity_is_the_same_on_the_loop_errors_too(hub: Hub, path: str, query: str) -> None:
    assert_alike("GET", path, query=query, authorization=f"Bearer {hub.key}")


@pytest.mark.parametrize("body", [b"", b"{", b'{"a": 1, "a": 2}', b"\xff", b"[" * 100_000])
def test_what_is_no_json_is_refused_the_same_on_the_loop(hub: Hub, body: bytes) -> None:
    assert_alike("POST", VECTORS, body, authorization=f"Bearer {hub.key}")


@pytest.mark.parametrize("header", ["Bearer fh_wrong", "Basic YTpi", "Bearer", "Api-Key {key}", "bearer  {key}"])
def test_who_may_not_read_is_refused_the_same_on_the_loop(hub: Hub, header: str) -> None:
    assert_alike("GET", ONE, authorization=header.format(key=hub.key))
    assert_alike("POST", VECTORS, TOTAL, authorization=header.format(key=hub.key))


def test_arrow_and_a_caller_s_request_id_are_the_same_on_the_loop(hub: Hub) -> None:
    key = f"Bearer {hub.key}"
    assert_alike("POST", VECTORS, TOTAL, authorization=key, accept="application/vnd.apache.arrow.stream")

    async def work(application: Application) -> None:
        told = [await asked(application, "GET", ONE, authorization=key, x_request_id=name) for name in ("a", "b c")]
        assert [one.headers["X-Request-ID"] == name for one, name in zip(told, ("a", "b c"), strict=True)] == [
            True,
            False,
        ]

    on_loop(work, OnLoop())


def test_reads_at_once_are_one_command_each_on_one_connection_and_no_query(
    hub: Hub, redis_client: redis.Redis, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    key = f"Bearer {hub.key}"
    both("POST", VECTORS, TOTAL, authorization=key)

    async def work(application: Application) -> None:
        before = redis_client.info("stats")
        told = await asyncio.gather(*(asked(application, "POST", VECTORS, TOTAL, authorization=key) for _ in range(20)))
        after = redis_client.info("stats")
        assert {one.status for one in told} == {200}
        assert after["total_commands_processed"] - before["total_commands_processed"] == 21  # and the INFO before
        assert after["total_connections_received"] == before["total_connections_received"]

    with django_assert_num_queries(0):
        on_loop(work, OnLoop())


def test_the_answers_of_reads_at_once_are_each_caller_s_own(hub: Hub) -> None:
    key = f"Bearer {hub.key}"
    both("POST", VECTORS, TOTAL, authorization=key)

    async def work(application: Application) -> None:
        ids = ["C1", "C2", "C3", "nobody"] * 5
        told = await asyncio.gather(
            *(
                asked(application, "GET", f"/features/customer/{id}", authorization=key, x_request_id=f"{number}-{id}")
                for number, id in enumerate(ids)
            )
        )
        alone = {
            id: (await asked(application, "GET", f"/features/customer/{id}", authorization=key)) for id in set(ids)
        }
        for number, (id, one) in enumerate(zip(ids, told, strict=True)):
            assert (one.status, one.body) == (alone[id].status, alone[id].body)
            assert one.headers["X-Request-ID"] == f"{number}-{id}"

    on_loop(work, OnLoop())


# -- What goes to a thread


def threads_for(body: bytes, key: str, prepare: Callable[[], object] = lambda: None) -> tuple[int, Told]:
    """How often a read went to a thread, and what it was told."""
    application, seen = OnLoop(), []

    async def work(_: Application) -> None:
        prepare()
        seen.append(await asked(application, "POST", VECTORS, body, authorization=f"Bearer {key}"))

    on_loop(work, application)
    return application.threads, seen[0]


def test_a_key_is_looked_up_in_a_thread_and_trusted_on_the_loop(hub: Hub) -> None:
    from catalog import keys

    both("POST", VECTORS, TOTAL, authorization=f"Bearer {hub.key}")
    assert threads_for(TOTAL, hub.key)[0] == 0
    assert threads_for(TOTAL, hub.key, keys.forget)[0] == 1


def test_a_limited_key_is_counted_once_whichever_way_it_goes(hub: Hub) -> None:
    from catalog import access, keys

    _, key = access.create_key(name="slow", scopes=["read"], requests_per_second=1, burst=8)
    both("POST", VECTORS, TOTAL, authorization=f"Bearer {key}")  # two of its two processes' four
    assert threads_for(TOTAL, key, keys.forget) == (1, Told((TOTAL,), 418, {}, b"a thread"))
    assert threads_for(TOTAL, key)[1].status == 418  # it is forgotten still
    both("POST", VECTORS, TOTAL, authorization=f"Bearer {key}")
    assert threads_for(TOTAL, key)[1].status == 429


def test_another_catalog_is_read_in_a_thread(hub: Hub, redis_client: redis.Redis) -> None:
    from catalog import stores

    both("POST", VECTORS, TOTAL, authorization=f"Bearer {hub.key}")
    assert threads_for(TOTAL, hub.key)[0] == 0
    state = stores.online().state()
    assert state
    raised = f"{state.catalog_version + 1}:{state.epoch}"
    assert threads_for(TOTAL, hub.key, lambda: redis_client.set(stores.online().state_key, raised))[0] == 1


def test_a_cold_store_is_looked_at_in_a_thread(hub: Hub, redis_client: redis.Redis) -> None:
    both("POST", VECTORS, TOTAL, authorization=f"Bearer {hub.key}")
    assert threads_for(TOTAL, hub.key, redis_client.flushall)[0] == 1


def test_many_rows_are_read_in_a_thread(hub: Hub) -> None:
    many = json.dumps({"features": ["customer_purchases:total"], "entities": {"customer_id": ["C1"] * 300}}).encode()
    both("POST", VECTORS, many, authorization=f"Bearer {hub.key}")
    assert threads_for(many, hub.key)[0] == 1


def test_what_redis_answers_with_an_error_is_asked_again_in_a_thread(hub: Hub, redis_client: redis.Redis) -> None:
    both("POST", VECTORS, TOTAL, authorization=f"Bearer {hub.key}")

    def forbid() -> None:
        redis_client.acl_setuser("default", enabled=True, nopass=True, commands=["+@all", "-mget"], keys=["*"])

    try:
        assert threads_for(TOTAL, hub.key, forbid)[0] == 1
    finally:
        redis_client.acl_setuser("default", enabled=True, nopass=True, commands=["+@all"], keys=["*"])


def test_no_answer_in_time_is_a_503_and_the_catalog_is_doubted(hub: Hub, redis_client: redis.Redis) -> None:
    from catalog import snapshot

    both("POST", VECTORS, TOTAL, authorization=f"Bearer {hub.key}")
    known = snapshot.current().published
    threads, told = threads_for(TOTAL, hub.key, lambda: redis_client.client_pause(600))
    assert (threads, told.status, told.headers["Retry-After"]) == (0, 503, "1")
    assert json.loads(told.body)["detail"] == "The online store does not answer in time."
    assert not snapshot.knows(known)
    redis_client.client_unpause()


def test_a_read_that_is_refused_a_thread_ends(hub: Hub) -> None:
    """Its steps are not left half done: what it was told ends them, and the next one is answered."""
    key = f"Bearer {hub.key}"
    many = json.dumps({"features": ["customer_purchases:total"], "entities": {"customer_id": ["C1"] * 300}}).encode()
    both("POST", VECTORS, TOTAL, authorization=key)

    async def work(application: Application) -> None:
        await application._slots.acquire()
        assert (await asked(application, "POST", VECTORS, many, authorization=key)).status == 503
        assert (await asked(application, "POST", VECTORS, TOTAL, authorization=key)).status == 200
        application._slots.release()

    on_loop(work, OnLoop(in_threads=True, at_work=1, seconds_to_wait=0.05))


# -- Bodies and long answers


def environ_with(*parts: bytes, **headers: str) -> dict[str, Any]:
    async def work() -> dict[str, Any]:
        environ = environ_of(
            Scope("/", "POST", headers={name.replace("_", "-"): text for name, text in headers.items()})
        )
        assert await take_body(environ, Told(parts))
        return environ

    return asyncio.run(work())


@pytest.mark.parametrize(
    ("parts", "headers", "read"),
    [
        ((), {}, 0),
        ((b"abc",), {"content_length": "3"}, 3),
        ((b"abc", b"de"), {"transfer_encoding": "chunked"}, 5),
        ((b"a" * 40_000,) * 5, {"content_length": "200000"}, 200_000),
        ((b"a" * 1_000_000,) * 20, {"transfer_encoding": "chunked"}, 11_000_000),  # no more than some more than 10 MiB
        ((b"a",), {"content_length": "99999999999"}, 0),  # refused by what it says
    ],
)
def test_a_body_is_read_as_far_as_any_route_takes_it(parts: Any, headers: dict[str, str], read: int) -> None:
    with environ_with(*parts, **headers)["wsgi.input"] as body:
        assert len(body.read()) == read


def test_a_body_that_does_not_come_in_time_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("featurehub.environ.SECONDS_OF_A_BODY", 0.05)
    assert SECONDS_OF_A_BODY == 60

    class Stalled(Told):
        async def __aiter__(self) -> Any:
            yield b"begun"
            await asyncio.sleep(20)

    async def work() -> None:
        told = Stalled()
        application = OnLoop()
        application.__rsgi_init__(asyncio.get_running_loop())
        await application.__rsgi__(Scope("/x", "POST", headers={"content-length": "100000"}), told)
        assert (told.status, json.loads(told.body)["code"]) == (408, "too_slow")
        assert application._inside == 0

    asyncio.run(work())


def test_headers_are_told_as_wsgi_has_them() -> None:
    pairs = [("x-a", "1"), ("x-a", "2"), ("cookie", "a=1"), ("cookie", "b=2"), ("x_request_id", "not mine")]

    class Pairs(dict[str, str]):
        def items(self) -> Any:
            return pairs

    environ = environ_of(Scope("/é", headers=Pairs(), server="[::1]:80", authority=None))
    assert (environ["HTTP_X_A"], environ["HTTP_COOKIE"]) == ("1,2", "a=1;b=2")
    assert "HTTP_X_REQUEST_ID" not in environ
    assert environ["PATH_INFO"].encode("latin-1").decode() == "/é"
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == ("::1", "80")


class Long:
    """A response in parts, as Django's streaming ones are."""

    streaming = True

    def __init__(self, parts: int) -> None:
        self.parts, self.given, self.is_closed = parts, 0, False

    def __iter__(self) -> Any:
        for _ in range(self.parts):
            self.given += 1
            yield b"x" * 10_000

    def close(self) -> None:
        self.is_closed = True

    def steps(self, environ: dict[str, Any]) -> None:
        """No read of vectors."""

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Long:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return self


@pytest.mark.parametrize(("parts", "blocks"), [(0, 0), (3, 0), (50, 8)])
def test_a_long_answer_is_sent_in_blocks_and_a_short_one_at_once(parts: int, blocks: int) -> None:
    async def work() -> None:
        long, told = Long(parts), Told()
        application = Application(long, at_work=1, at_once=2)  # type: ignore[arg-type]
        application._loop = asyncio.get_running_loop()
        await application.__rsgi__(Scope("/x"), told)
        assert len(told.body) + sum(map(len, told.blocks)) == 10_000 * parts
        assert len(told.blocks) == blocks
        assert all(len(block) >= BLOCK_BYTES for block in told.blocks[:-1])
        assert long.is_closed
        assert not application._slots.locked()

    asyncio.run(work())


def test_a_caller_that_leaves_in_the_middle_of_a_long_answer_ends_it() -> None:
    class Gone(Told):
        async def send_bytes(self, block: bytes) -> None:
            if len(self.blocks) == 2:
                raise Unavailable("it has gone")
            self.blocks.append(block)

    async def work() -> None:
        long, told = Long(10_000), Gone()
        application = Application(long, at_work=1, at_once=2)  # type: ignore[arg-type]
        application._loop = asyncio.get_running_loop()
        await application.__rsgi__(Scope("/x"), told)
        assert long.is_closed
        assert long.given < 50
        assert application._inside == 0

    asyncio.run(work())


def test_while_a_long_answer_is_sent_others_are_worked_at() -> None:
    """Its caller may be slow: it has a thread, and no slot."""
    sent, go_on = asyncio.Event(), asyncio.Event()

    class Slow(Told):
        async def send_bytes(self, block: bytes) -> None:
            sent.set()
            await go_on.wait()
            await super().send_bytes(block)

    async def work() -> None:
        application = Application(Long(20), at_work=1, at_once=2, seconds_to_wait=5)  # type: ignore[arg-type]
        application._loop = asyncio.get_running_loop()
        slow = asyncio.create_task(application.__rsgi__(Scope("/x"), Slow()))
        await sent.wait()
        application._hot = Long(2)  # type: ignore[assignment]
        quick = Told()
        await asyncio.wait_for(application.__rsgi__(Scope("/y"), quick), 5)
        assert len(quick.body) == 20_000
        go_on.set()
        await slow

    asyncio.run(work())


def test_a_body_is_closed_with_its_request(hub: Hub) -> None:
    bodies_made: list[io.BytesIO] = []

    class Keeping(Long):
        def __call__(self, environ: dict[str, Any], start_response: Any) -> Long:
            bodies_made.append(environ["wsgi.input"])
            return super().__call__(environ, start_response)

    async def work() -> None:
        application = Application(Keeping(1))  # type: ignore[arg-type]
        application._loop = asyncio.get_running_loop()
        await application.__rsgi__(scope_of("POST", "/x", b"abc"), Told((b"abc",)))

    asyncio.run(work())
    assert bodies_made[0].closed
