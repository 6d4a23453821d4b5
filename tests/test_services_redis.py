"""Topics of several processes, by a real Redis: order, its death and return, what it cannot carry."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
from conftest import DEADLINE, eventually, pool_options
from hypothesis import given, settings
from hypothesis import strategies as st
from redis_kit import RedisServer, redis_server

from subpool import BusUnavailable, ConfigError, Pool

pytest.importorskip("redis")
pytest.importorskip("msgpack")

from subpool.services.hub import Hub
from subpool.services.packing import decode, encode
from subpool.services.redis_bus import RedisBus

pytestmark = pytest.mark.anyio

ATOMS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
    | st.complex_numbers(allow_nan=False)
)  # fmt: skip
KEYS = st.integers() | st.text() | st.tuples(st.integers(), st.text())
PLAIN = st.recursive(
    ATOMS,
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(KEYS, inner, max_size=3)
    | st.sets(st.integers() | st.text(), max_size=3) | st.frozensets(st.integers(), max_size=3),
    max_leaves=10,
)  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@settings(max_examples=50)
@given(PLAIN)
def test_what_crosses_comes_back(value: Any) -> None:
    back = decode(encode(value))
    assert back == value
    assert type(back) is type(value)


@given(st.binary(max_size=50))
def test_any_bytes_are_a_value_or_a_value_error(data: bytes) -> None:
    try:
        decode(data)
    except ValueError:
        pass


async def bus_of(server: RedisServer) -> tuple[Hub, RedisBus]:
    """A hub as a process has it, joined to the others."""
    hub, bus = Hub(), RedisBus(server.url)
    await bus.start(hub.spread)
    hub.bus = bus
    return hub, bus


async def test_pools_of_several_processes(server: RedisServer, isolation: str, tmp_path: Any) -> None:
    """Two pools stand for two processes: each has services of its own. A worker of each hears the other's host."""
    options = pool_options(isolation, workers=1, bus=server.url)
    async with Pool("asgi_app:app", **options) as one, Pool("asgi_app:app", **options) as two:
        async with one.subscribe("ready") as ready, anyio.create_task_group() as group:
            heard = []

            async def hear(pool: Any) -> None:
                heard.append(await pool.call("services_app:hear", "news", 100))

            group.start_soon(hear, one)
            group.start_soon(hear, two)
            with anyio.fail_after(DEADLINE):
                assert [await anext(ready), await anext(ready)] == ["news", "news"]
            for number in range(100):
                assert two.publish("news", (number, {1: b"x"})) == 1
        assert heard == [[[(number, {1: b"x"}) for number in range(100)]]] * 2
        assert one.stats().services.bus == {"up": True, "waiting": 0, "dropped": 0}


async def test_redis_dies_and_comes_back(server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    options = pool_options("thread", workers=1, bus=server.url)
    async with Pool("asgi_app:app", **options) as one, Pool("asgi_app:app", **options) as two:
        async with one.subscribe("news") as far, two.subscribe("news") as near:

            async def next_of(messages: Any) -> Any:
                with anyio.fail_after(DEADLINE):
                    return await anext(messages)

            two.publish("news", "before")
            assert [await next_of(far), await next_of(near)] == ["before", "before"]
            with caplog.at_level(logging.WARNING, "subpool"):
                server.kill()
                await eventually(lambda: not two.stats().services.bus["up"] and not one.stats().services.bus["up"])
                for number in range(1100):
                    assert two.publish("news", number) == 1
                    assert await next_of(near) == number
                bus = two.stats().services.bus
                assert bus["waiting"] <= 1000
                assert bus["waiting"] + bus["dropped"] == 1100
                server.start()
                await eventually(lambda: two.stats().services.bus["up"] and one.stats().services.bus["up"])
                assert caplog.text.count("Redis cannot be reached") <= 4
                assert "Redis is back" in caplog.text
            await eventually(lambda: two.stats().services.bus["waiting"] == 0)
            two.publish("news", "after")
            while await next_of(far) != "after":
                pass
        async with one.subscribe("fresh") as fresh:
            two.publish("fresh", 1)
            assert await next_of(fresh) == 1


async def test_only_what_is_wanted_is_heard(server: RedisServer) -> None:
    from redis.asyncio import Redis

    options = pool_options("thread", workers=1, bus=server.url)
    async with Redis.from_url(server.url) as redis, Pool("asgi_app:app", **options) as pool:

        async def wanted() -> list[bytes]:
            return sorted(await redis.pubsub_channels("subpool:topic:*"))

        async with pool.subscribe("a"), pool.subscribe("a"), pool.subscribe("b"):
            assert await wanted() == [b"subpool:topic:a", b"subpool:topic:b"]
        for _ in range(1000):
            if not await wanted():
                break
        assert await wanted() == []


async def test_what_others_say_is_no_harm(server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    from redis.asyncio import Redis

    options = pool_options("thread", workers=1, bus=server.url)
    async with Redis.from_url(server.url) as redis, Pool("asgi_app:app", **options) as pool:
        async with pool.subscribe("news") as messages:
            for data in (
                b"",
                b"short",
                b"12345678",
                b"12345678\xc1",
                b"12345678" + b"\x91" * 3000,
                b"12345678\xc7\1\x63x",
            ):
                await redis.publish("subpool:topic:news", data)
            await redis.publish("subpool:topic:news", b"12345678" + encode("good"))
            with anyio.fail_after(DEADLINE):
                assert await anext(messages) == "good"
    assert caplog.text.count("is none of ours") == 6


async def test_what_cannot_cross(server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    value: list[Any] = []
    value.append(value)
    async with Pool("asgi_app:app", **pool_options("thread", workers=1, bus=server.url)) as pool:
        async with pool.subscribe("news") as messages:
            assert pool.publish("news", value) == 1
            with anyio.fail_after(DEADLINE):
                back = await anext(messages)
            assert back[0] is back
    assert "a message to 'news' cannot leave this process" in caplog.text


async def test_a_redis_that_is_not_there(caplog: pytest.LogCaptureFixture) -> None:
    """The pool starts, and works within itself."""
    options = pool_options("thread", workers=1, bus="redis://127.0.0.1:1/0")
    async with Pool("asgi_app:app", **options) as pool, pool.subscribe("news") as messages:
        assert pool.publish("news", 1) == 1
        assert await anext(messages) == 1
    assert "Redis cannot be reached" in caplog.text
    assert not [task for task in asyncio.all_tasks() if "Redis" in repr(task)]


@pytest.mark.parametrize("anyio_backend", ["trio"], scope="module")
async def test_trio_has_none(anyio_backend: str, server: RedisServer) -> None:
    with pytest.raises(ConfigError, match="it needs asyncio"):
        async with Pool("asgi_app:app", **pool_options("thread", workers=1, bus=server.url)):
            pass
    async with Pool("asgi_app:app", **pool_options("thread", workers=1, state=server.url)) as pool:
        with pytest.raises(BusUnavailable, match="only where asyncio runs"):
            await pool.nodes()


def test_urls() -> None:
    with pytest.raises(ValueError, match="bus is no URL of Redis"):
        Pool(None, bus="http://secret@host")
    with pytest.raises(TypeError, match="bus is int"):
        Pool(None, bus=7)
