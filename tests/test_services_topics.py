"""Publish and subscribe: between workers of every kind and the host, in all ways to wait."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from conftest import BOTH, DEADLINE, environ, eventually, in_flight, pool_options

from subpool import Pool
from subpool.services.hub import MOST, WINDOW, Backlog, Hub, WorkerFeed

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def pair(isolation: str, anyio_backend: str) -> AsyncIterator[Any]:
    """A pool of two workers: for tests that leave nothing behind."""
    async with Pool("asgi_app:app", **pool_options(isolation, threads=3, max_concurrency=3)) as pool:
        pool.register("add", "host_functions:add")
        yield pool


async def ask(pool: Any, way: str, *args: Any, **kwargs: Any) -> Any:
    with anyio.fail_after(DEADLINE):
        return await pool.call(f"services_app:{way}", *args, **kwargs)


def subscribers(pool: Any) -> int:
    return int(pool.stats().services.subscribers)


async def nothing_left(pool: Any) -> None:
    gc.collect()
    await eventually(lambda: in_flight(pool) == 0)
    await eventually(lambda: subscribers(pool) == 0 and pool.stats().services.topics == 0)
    for member in pool.engine.crew.members:
        assert member.desk is None or (not member.desk.asked and not member.desk._feeds)


class Heard:
    """What was heard in a worker, by a call that runs beside the test."""

    def __init__(self, pool: Any, way: str, *args: Any) -> None:
        self.pool, self.way, self.args = pool, way, args
        self.answer: Any = None

    async def __call__(self) -> None:
        self.answer = await ask(self.pool, self.way, *self.args)


@pytest.mark.parametrize("way", ["hear", "hear_blocking", "hear_on_thread"])
@pytest.mark.parametrize("publisher", ["host", "publish", "publish_blocking"])
async def test_from_anyone_to_anyone(pair: Any, way: str, publisher: str) -> None:
    """In order, none lost, with the number of subscribers."""
    messages = [{"n": number, "of": [1.5, b"x", None]} for number in range(50)]
    async with pair.subscribe("ready") as ready, anyio.create_task_group() as group:
        heard = Heard(pair, way, "news", len(messages))
        group.start_soon(heard)
        with anyio.fail_after(DEADLINE):
            assert await anext(ready) == "news"
        if publisher == "host":
            assert [pair.publish("news", message) for message in messages] == [1] * len(messages)
        else:
            assert await ask(pair, publisher, "news", *messages) == [1] * len(messages)
    assert heard.answer == ([messages] if way == "hear" else messages)
    await nothing_left(pair)


async def test_many_subscribers_hear_all_in_one_order(pair: Any) -> None:
    """Of two workers and the host, while three publish at once: no message lost, none twice, one order."""
    count = 200
    async with pair.subscribe("ready") as ready, pair.subscribe("all") as own, anyio.create_task_group() as group:
        hearers = [Heard(pair, "hear", "all", 3 * count, 5) for _ in range(4)]
        for one in hearers:
            group.start_soon(one)
        with anyio.fail_after(DEADLINE):
            for _ in range(20):
                await anext(ready)
        assert subscribers(pair) == 22
        for name in range(3):
            group.start_soon(ask, pair, "publish", "all", *[(name, number) for number in range(count)])
        with anyio.fail_after(DEADLINE):
            mine = [await anext(own) for _ in range(3 * count)]
    assert own.lost == 0
    for name in range(3):
        assert [number for by, number in mine if by == name] == list(range(count))
    for one in hearers:
        assert all(heard == mine for heard in one.answer)
    await nothing_left(pair)


async def test_nobody_hears_it(pair: Any) -> None:
    assert pair.publish("nobody", 1) == 0
    assert await ask(pair, "publish", "nobody", 1, 2) == [0, 0]
    assert await ask(pair, "hear_nothing", "nobody") == "no message of 'nobody' within 0.05 s"
    await nothing_left(pair)


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("message", "TypeError: the message to 'topic', a list, is no plain data"),
        ("topic", "TypeError: a topic is a str, not int"),
        ("large", "ValueError: the message to 'topic', a bytes, takes 17825797 bytes; 16777216 are the most"),
        ("queue", "ValueError: queue is 0; it must be at least 1"),
    ],
)
async def test_what_cannot_be_said(pair: Any, what: str, text: str) -> None:
    assert (await ask(pair, "wrong", what)).startswith(text)


async def test_what_the_host_cannot_say(pair: Any) -> None:
    with pytest.raises(TypeError, match="no plain data"):
        pair.publish("topic", object())
    with pytest.raises(TypeError, match="a topic is a str"):
        pair.publish(b"topic", 1)
    with pytest.raises(TypeError, match="a topic is a str"):
        pair.subscribe(7)


async def test_a_slow_subscriber_loses_the_oldest_and_is_told(pair: Any, fifo: Any) -> None:
    """Its loop is held while more comes than it may keep."""
    go, count = fifo("go"), 3000
    async with pair.subscribe("ready") as ready, anyio.create_task_group() as group:
        heard = Heard(pair, "hear_late", "much", 100, count - 1, str(go))
        group.start_soon(heard)
        with anyio.fail_after(DEADLINE):
            await anext(ready)
        for number in range(count):
            pair.publish("much", number)
        go.release()
    assert heard.answer == (100, count - 100)
    await nothing_left(pair)


async def test_a_worker_that_holds_its_loop_is_sent_no_more_than_it_can_keep(pair: Any, fifo: Any) -> None:
    """Large messages: the host keeps the newest, within its bound, and says how many it dropped."""
    go, data = fifo("go"), b"x" * 100_000
    before = pair.stats().services.dropped
    async with pair.subscribe("ready") as ready, anyio.create_task_group() as group:
        heard = Heard(pair, "hear_late", "large", 10_000, "end", str(go))
        group.start_soon(heard)
        with anyio.fail_after(DEADLINE):
            await anext(ready)
        for _ in range(500):
            pair.publish("large", data)
        pair.publish("large", "end")
        dropped = pair.stats().services.dropped - before
        assert 400 < dropped < 470
        go.release()
    count, lost = heard.answer
    assert count + lost == 501
    assert lost >= dropped
    await nothing_left(pair)


async def test_a_slow_subscriber_on_the_host(pair: Any) -> None:
    async with pair.subscribe("slow") as messages:
        for number in range(MOST + 500):
            assert pair.publish("slow", number) == 1
        assert messages.lost == 500
        assert await anext(messages) == 500
    await nothing_left(pair)


@pytest.mark.parametrize("way", ["abandon", "abandon_blocking"])
async def test_subscriptions_that_nobody_ends(pair: Any, way: str) -> None:
    """They end with the task that began them, or when nobody holds them any more."""

    async def news() -> None:
        for _ in range(20):
            pair.publish("abandoned", 1)
            await anyio.sleep(0.005)

    async with anyio.create_task_group() as group:
        group.start_soon(news)
        for _ in range(3):
            await ask(pair, way, "abandoned")
    await nothing_left(pair)


async def test_one_that_the_host_lets_go_of(pair: Any) -> None:
    messages = pair.subscribe("held")
    pair.publish("held", 0)
    iterator = aiter(messages)
    async with anyio.create_task_group() as group:
        group.start_soon(anext, iterator)
        await eventually(lambda: subscribers(pair) == 1)
        pair.publish("held", 1)
    del messages, iterator
    await nothing_left(pair)


async def test_an_end_wakes_who_waits(pair: Any) -> None:
    messages = pair.subscribe("end")
    async with anyio.create_task_group() as group:

        async def hear() -> None:
            async with messages:
                assert [message async for message in messages] == [1]

        group.start_soon(hear)
        await eventually(lambda: subscribers(pair) == 1)
        pair.publish("end", 1)
        messages.close()
    with pytest.raises(RuntimeError, match="entered once"):
        await messages.__aenter__()
    await nothing_left(pair)


@pytest.mark.parametrize("threads", [1, 3])
async def test_wsgi(isolation: str, threads: int) -> None:
    async with Pool("services_app:wsgi", **pool_options(isolation, workers=1, threads=threads)) as pool:
        async with pool.subscribe("ready") as ready, anyio.create_task_group() as group:
            answers = []

            async def hear() -> None:
                answers.append((await pool.run_wsgi(environ("/hear", query="news"))).body)

            group.start_soon(hear)
            with anyio.fail_after(DEADLINE):
                await anext(ready)
            assert pool.publish("news", "fresh") == 1
        assert answers == [b"['fresh']"]
        await nothing_left(pool)


async def test_a_worker_that_ends_has_no_subscribers(isolation: str) -> None:
    async with Pool("asgi_app:app", **pool_options(isolation, workers=1, close_timeout=2.0)) as pool:
        async with pool.subscribe("ready") as ready, anyio.create_task_group() as group:

            async def lost() -> None:
                with pytest.raises(Exception, match=r"."):
                    await pool.call("services_app:hear", "news", 5)

            group.start_soon(lost)
            with anyio.fail_after(DEADLINE):
                await anext(ready)
            assert pool.publish("news", 1) == 1
            await pool.engine.close(0.0)
            services = pool.services_of()
            await eventually(lambda: services.hub.subscribers() == 1)
            assert services.hub.publish("news", b"1") == 0


async def test_what_a_recycled_app_began(isolation: str) -> None:
    """Its subscriptions end, though its interpreter may live on (3.13)."""
    async with Pool("asgi_app:app", **pool_options(isolation, workers=1)) as pool:
        await ask(pool, "hear_for_ever", "news")
        await eventually(lambda: pool.stats().services is not None and subscribers(pool) == 1)
        with anyio.fail_after(DEADLINE):
            await pool.recycle()
        await eventually(lambda: subscribers(pool) == 0)
        await ask(pool, "hear_for_ever", "news")
        await eventually(lambda: subscribers(pool) == 1)


def test_a_blocking_pool(isolation: str) -> None:
    with Pool.blocking("asgi_app:app", **pool_options(isolation, workers=1)) as pool:
        pool.register("add", lambda a, b: a + b, inline=True)
        assert pool.invoke("add", 1, 2) == pool.call("services_app:ask", "add", 1, 2) == 3
        with pool.subscribe("news") as messages:
            assert pool.call("services_app:publish", "news", 1, 2) == [1, 1]
            assert pool.publish("news", 3) == 1
            heard = iter(messages)
            assert [next(heard) for _ in range(3)] == [1, 2, 3]
            assert messages.lost == 0
        assert pool.publish("news", 3) == 0


@BOTH
async def test_on_both_loops(anyio_backend_name: str) -> None:
    async with Pool("asgi_app:app", **pool_options("subinterpreter", workers=1)) as pool:
        async with pool.subscribe("ready") as ready, anyio.create_task_group() as group:
            heard = Heard(pool, "hear", "news", 3)
            group.start_soon(heard)
            with anyio.fail_after(DEADLINE):
                assert await anext(ready) == "news"
            for number in range(3):
                assert pool.publish("news", number) == 1
        assert heard.answer == [[0, 1, 2]]
        await nothing_left(pool)


# the host's parts


class Desk:
    """Keeps what would be sent."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def send(self, how: int, frame: Any) -> None:
        self.sent.append(frame)


def test_a_backlog_drops_the_oldest() -> None:
    backlog = Backlog()
    for number in range(MOST + 2):
        backlog.put(b"%d" % number)
    assert (len(backlog), backlog.missed, backlog.dropped) == (MOST, 2, 2)
    assert backlog.take() == (b"2", 2)
    assert backlog.take() == (b"3", 0)
    large = Backlog()
    for number in range(3):
        large.put(bytes([number]) * 3_000_000)
    assert (len(large), large.dropped) == (1, 2)
    large.put(b"x" * 5_000_000)
    assert (len(large), large.take()[1]) == (1, 3)


def test_a_feed_keeps_to_its_window() -> None:
    desk: Any = Desk()
    feed = WorkerFeed(desk, "topic", 0)
    for _ in range(100):
        feed.put(b"x" * (WINDOW // 10))
    assert len(desk.sent) == 10
    feed.heard(2 * (WINDOW // 10 + 64))
    assert len(desk.sent) == 12
    assert [frame[4] for frame in desk.sent[10:]] == [0, 0]


def test_a_hub_counts() -> None:
    hub, desk = Hub(), Desk()
    feed: Any = WorkerFeed(desk, "topic", 0)  # type: ignore[arg-type]
    feed.count = 3
    told: list[int] = []
    hub.add("topic", feed, lambda: told.append(1))
    assert (hub.publish("topic", b"1"), hub.publish("other", b"1"), hub.subscribers(), len(hub)) == (3, 0, 3, 1)
    hub.remove("topic", feed)
    hub.remove("topic", feed)
    assert (hub.publish("topic", b"1"), hub.subscribers(), len(hub), told) == (0, 0, 0, [1])
