"""Calls between hosts, by a real Redis, with a host in another process: answers, errors, streams, every way to fail."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import host_functions
import pytest
from conftest import APPS, DEADLINE, eventually, free_threaded, in_flight, pool_options
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis_kit import RedisServer, redis_server

from subpool import (
    AppError,
    BusUnavailable,
    NodeLost,
    Pool,
    PoolClosed,
    SubpoolError,
    UnknownFunction,
    UnknownNode,
)  # fmt: skip

pytest.importorskip("redis")
pytest.importorskip("msgpack")

from subpool.services import nodes as nodes_part
from subpool.services import redis_nodes
from subpool.services.packing import encode

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@contextmanager
def far_host(server: RedisServer, node: str, mark: str = "") -> Iterator[subprocess.Popen[str]]:
    """Another host, in a process of its own."""
    command = [sys.executable, str(Path(APPS) / "far_host.py"), server.url, node, mark]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.stdin.close()
        try:
            process.wait(DEADLINE)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


@pytest.fixture(scope="module")
def far(server: RedisServer) -> Iterator[subprocess.Popen[str]]:
    with far_host(server, "gpu-1") as process:
        yield process


def here(server: RedisServer, isolation: str = "thread", **options: Any) -> Any:
    options = {"workers": 1, "bus": server.url, "node": "web-1", "lifespan": "off", **options}
    return Pool("services_app:app", **pool_options(isolation, **options))


@pytest.fixture(scope="module")
async def pool(server: RedisServer, far: Any, isolation: str, anyio_backend: str) -> AsyncIterator[Any]:
    """For tests that leave nothing behind."""
    async with here(server, isolation) as pool:
        yield pool


@pytest.fixture(scope="module")
async def near(server: RedisServer, far: Any, anyio_backend: str) -> AsyncIterator[Any]:
    """The same of one kind, where workers do not matter."""
    async with here(server) as pool:
        yield pool


async def ask(pool: Any, *args: Any, way: str = "ask", **kwargs: Any) -> Any:
    with anyio.fail_after(DEADLINE):
        return await pool.call(f"services_app:{way}", *args, node="gpu-1", **kwargs)


async def nothing_left(pool: Any) -> None:
    """No call is under way, on either side."""
    await eventually(lambda: in_flight(pool) == 0)
    node = {"name": "web-1", "up": True, "asked": 0, "taken": 0}
    await eventually(lambda: pool.stats().services.node == node)


# what goes well


@pytest.mark.parametrize("way", ["ask", "aask", "ask_on_thread"])
@pytest.mark.parametrize("name", ["add", "iadd", "aadd"])
async def test_an_answer(pool: Any, far: Any, way: str, name: str) -> None:
    assert await ask(pool, name, 20, b=22, way=way) == 42
    assert await ask(pool, "awhere", way=way) == far.pid
    await nothing_left(pool)


async def test_plain_data_comes_back_as_it_was(pool: Any) -> None:
    value = [None, True, -1, 2**70, 1.5, 1 + 2j, "ä\0", b"\xff", (1, (2,)), {1: "a", (1, 2): {3}}, frozenset({4})]
    back = await ask(pool, "iadd", [value], [], way="aask")
    assert back == [value]
    assert [type(one) for one in back[0]] == [type(one) for one in value]


@pytest.mark.parametrize("way", ["read", "aread"])
@pytest.mark.parametrize("name", ["count", "acount"])
async def test_a_stream(pool: Any, way: str, name: str) -> None:
    """More items than are sent ahead."""
    assert await ask(pool, name, 100, way=way) == list(range(100))
    assert await ask(pool, name, 0, way=way) == []
    await nothing_left(pool)


@pytest.mark.parametrize("name", ["endless", "aendless"])
async def test_a_reader_holds_the_generator_back_and_closes_it(
    pool: Any, name: str, fifo: Any, tmp_path: Path
) -> None:
    taken, ended = tmp_path / "taken", fifo("ended")
    assert await ask(pool, name, str(taken), str(ended), way="aread", most=5) == [0, 1, 2, 3, 4]
    await ended.wait()
    assert int(taken.read_text() or 0) <= 5 + 16 + 4
    await nothing_left(pool)


async def test_a_cast(pool: Any, fifo: Any, caplog: pytest.LogCaptureFixture) -> None:
    started, go = fifo("started"), fifo("go")
    await ask(pool, "awaits", str(started), str(go), way="cast")
    await started.wait()
    go.release()
    await ask(pool, "afails", "cast", way="cast")
    await eventually(lambda: "a cast to function 'afails' failed: KeyError: 'cast'" in caplog.text)
    await nothing_left(pool)


async def test_who_lives(pool: Any, server: RedisServer) -> None:
    for _ in range(2):
        assert await pool.nodes() == ["gpu-1", "web-1"]
    assert await pool.call("services_app:nodes") == await pool.call("services_app:anodes") == ["gpu-1", "web-1"]
    async with here(server, node="web-2") as other:
        assert await pool.nodes() == ["gpu-1", "web-1", "web-2"]
        assert await other.invoke("aadd", 1, 2, node="gpu-1") == 3
    assert await pool.nodes() == ["gpu-1", "web-1"]
    with pytest.raises(UnknownNode):
        await pool.invoke("aadd", 1, 2, node="web-2")


async def test_its_own_name_is_this_host(near: Any, server: RedisServer) -> None:
    async with here(server, node="solo") as pool:
        pool.register("own", os.getpid, inline=True)
        assert await pool.invoke("own", node="solo") == os.getpid()
        assert await pool.call("services_app:ask", "own", node="solo") == os.getpid()


async def test_hosts_of_one_name_take_turns(near: Any, server: RedisServer) -> None:
    """And when one has gone, the others have all calls: none fails."""
    with far_host(server, "pair", "a") as first, far_host(server, "pair", "b"):
        marks = [await near.invoke("mark", node="pair") for _ in range(6)]
        assert marks in (["a", "b"] * 3, ["b", "a"] * 3)
        assert first.stdin is not None
        first.stdin.close()
        await anyio.to_thread.run_sync(first.wait)
        assert [await near.invoke("mark", node="pair") for _ in range(3)] == ["b"] * 3


async def test_many_at_a_time(near: Any, figure: Any) -> None:
    with anyio.fail_after(DEADLINE):
        begun = time.perf_counter()
        answers = await asyncio.gather(*(near.invoke("iadd", at, 1, node="gpu-1") for at in range(2000)))
        assert answers == list(range(1, 2001))
        figure(f"{2000 / (time.perf_counter() - begun):.0f} calls/s to another process, 2000 together")
        times = []
        for at in range(200):
            begun = time.perf_counter()
            await near.invoke("iadd", at, 1, node="gpu-1")
            times.append(time.perf_counter() - begun)
        figure(f"{sorted(times)[100] * 1e6:.0f} us a call to another process, one at a time")


async def test_two_processes_share_counters_a_chat_room_and_calls(
    server: RedisServer, isolation: str, far: Any
) -> None:
    """Two pools, on what stands for two machines; a worker of each counts, hears, speaks and calls the other's host."""
    options = {"state": server.url, "state_namespace": "shared", "workers": 2, "node": "desk"}
    async with here(server, isolation, **options) as pool, anyio.create_task_group() as group:
        pool.register("home", os.getpid, inline=True)
        counted: list[int] = []
        heard: dict[str, Any] = {}

        async def count(node: str | None) -> None:
            if node is None:
                counted.append(await pool.call("services_app:counted", f"visits {isolation}", 200))
            else:
                counted.append(await pool.invoke("in_worker", "counted", f"visits {isolation}", 200, node=node))

        async def hear(node: str | None) -> None:
            if node is None:
                heard["here"] = await pool.call("services_app:hear", "room", 2)
            else:
                heard["there"] = await pool.invoke("in_worker", "hear", "room", 2, node=node)

        with anyio.fail_after(DEADLINE):
            async with anyio.create_task_group() as counting:
                for node in (None, None, "gpu-1"):
                    counting.start_soon(count, node)
            assert max(counted) == 600
            async with pool.subscribe("ready") as ready:
                group.start_soon(hear, None)
                group.start_soon(hear, "gpu-1")
                assert [await anext(ready), await anext(ready)] == ["room", "room"]
                await pool.call("services_app:publish", "room", "from here")
                await pool.invoke("in_worker", "publish", "room", "from there", node="gpu-1")
            await eventually(lambda: len(heard) == 2)
            for ((*messages,),) in heard.values():
                assert sorted(messages) == ["from here", "from there"]
            assert await pool.call("services_app:aask", "in_worker", "aask", "awhere", node="gpu-1") == far.pid
            assert await pool.invoke("back", "desk", "home", node="gpu-1") == os.getpid()
            assert {"desk", "gpu-1"} <= set(await pool.invoke("in_worker", "nodes", node="gpu-1"))


# what fails


@pytest.mark.parametrize("way", ["ask", "aask", "ask_on_thread"])
async def test_there_is_no_such_node(pool: Any, way: str) -> None:
    with anyio.fail_after(DEADLINE), pytest.raises(UnknownNode) as caught:
        await pool.call(f"services_app:{way}", "add", 1, node="gpu-7")
    assert str(caught.value) == "no node 'gpu-7' answers; those that do: gpu-1, web-1"
    await nothing_left(pool)


async def test_what_the_function_raises(pool: Any) -> None:
    for name in ("fails", "afails"):
        with pytest.raises(AppError) as caught:
            await ask(pool, name, "this")
        assert (caught.value.type_name, caught.value.message) == ("KeyError", "'this'")
        assert "host_functions.py" in caught.value.remote_traceback
    with pytest.raises(UnknownFunction, match=r"node 'gpu-1': the host has no function 'nobody'; registered: .*aadd"):
        await ask(pool, "nobody")
    with pytest.raises(AppError, match="the answer of 'no_data' is no plain data"):
        await ask(pool, "no_data")
    with pytest.raises(AppError, match="KeyError: 'broken'"):
        await ask(pool, "breaks", 3, way="read")
    await nothing_left(pool)


async def test_what_is_too_large(pool: Any) -> None:
    most = nodes_part.MOST_BYTES
    assert len(await ask(pool, "repeat", b"x", most)) == most
    with pytest.raises(AppError, match=r"ValueError: the answer of 'repeat' takes .* bytes; .* are the most between"):
        await ask(pool, "repeat", b"x", most + 2048)
    assert await ask(pool, "size", b"x" * most) == most
    with pytest.raises(AppError, match=r"what 'size' is called with takes .* are the most between machines"):
        await ask(pool, "size", b"x" * (most + 2048))
    with pytest.raises(AppError, match=r"an item of 'large_items' takes .* are the most between machines"):
        await ask(pool, "large_items", nodes_part.MOST_ITEM + 2048, way="read")
    with pytest.raises(AppError) as caught:
        await ask(pool, "fails", "long " * 10**6)
    assert len(caught.value.message) < 10**5
    await nothing_left(pool)


async def test_what_cannot_leave_the_machine(near: Any) -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(AppError, match="what 'size' is called with cannot leave the machine"):
        await near.invoke("size", value, node="gpu-1")
    with pytest.raises(AppError, match="cannot leave the machine"):
        await near.invoke("size", "\ud800", node="gpu-1")
    with pytest.raises(TypeError, match="node is 7"):
        await near.invoke("size", "", node=7)
    with pytest.raises(AppError, match="node is 7; it must be the name of a host"):
        await near.call("services_app:ask", "size", "", node=7)
    await nothing_left(near)


async def test_a_caller_that_waits_no_longer(pool: Any, fifo: Any) -> None:
    """After its time, and when it is cancelled: the function there is cancelled, on the loop and in the helper."""
    for name in ("waits", "spins"):
        started, ended = fifo(f"{name} started"), fifo(f"{name} ended")
        with pytest.raises(AppError, match=f"PoolTimeout: '{name}' on node 'gpu-1' did not answer within 0.5 s"):
            await ask(pool, name, str(started), str(ended), timeout=0.5)
        await started.wait()
        await ended.wait()
    started, ended = fifo("given up"), fifo("given up ended")
    assert await pool.call("services_app:give_up", 0.3, "waits", str(started), str(ended), node="gpu-1") == "cancelled"
    await ended.wait()
    started, ended = fifo("host"), fifo("host ended")
    with anyio.move_on_after(0.3) as scope:
        await pool.invoke("waits", str(started), str(ended), node="gpu-1")
    assert scope.cancelled_caught
    await ended.wait()
    await nothing_left(pool)


@pytest.mark.skipif(free_threaded(), reason="the helper is threads of its host")
async def test_the_helper_there_dies(near: Any) -> None:
    with pytest.raises(SubpoolError, match="the helper process ended"):
        await near.invoke("dies", node="gpu-1")
    assert await near.invoke("add", 1, 2, node="gpu-1") == 3


async def test_a_node_that_is_killed(near: Any, server: RedisServer, fifo: Any, figure: Any) -> None:
    started, ended = fifo("started"), fifo("ended")
    with far_host(server, "brief") as process, anyio.fail_after(DEADLINE):
        call = asyncio.create_task(near.invoke("waits", str(started), str(ended), node="brief"))
        await started.wait()
        process.kill()
        begun = time.monotonic()
        with pytest.raises(NodeLost, match="node 'brief' has gone; whether 'waits' ran is unknown"):
            await call
        figure(f"a killed node is noticed after {time.monotonic() - begun:.2f} s")
        assert "brief" not in await near.nodes()
        with pytest.raises(UnknownNode, match="no node 'brief' answers"):
            await near.invoke("waits", "", "", node="brief")
    await nothing_left(near)


async def test_a_node_that_is_stopped(near: Any, server: RedisServer, fifo: Any, figure: Any) -> None:
    """It is there, its connections are, and it says nothing: as one whose machine lost its power."""
    with far_host(server, "frozen") as process, anyio.fail_after(DEADLINE):
        assert await near.invoke("iadd", 1, 2, node="frozen") == 3
        process.send_signal(signal.SIGSTOP)
        try:
            begun = time.monotonic()
            with pytest.raises(NodeLost, match="node 'frozen' has gone"):
                await near.invoke("iadd", 1, 2, node="frozen")
            figure(f"a stopped node is noticed after {time.monotonic() - begun:.2f} s")
            with pytest.raises(UnknownNode):
                await near.invoke("iadd", 1, 2, node="frozen")
        finally:
            process.send_signal(signal.SIGCONT)
        while "frozen" not in await near.nodes():  # noqa: ASYNC110  it has no event
            await anyio.sleep(0.05)
        assert await near.invoke("iadd", 1, 2, node="frozen") == 3
    await nothing_left(near)


async def test_a_caller_whose_host_is_killed(near: Any, server: RedisServer, fifo: Any) -> None:
    """What it had called is cancelled."""
    started, ended = fifo("started"), fifo("ended")
    near.register("waits", host_functions.waits)
    with far_host(server, "caller") as process, anyio.fail_after(DEADLINE):
        call = asyncio.create_task(near.invoke("back", "web-1", "waits", str(started), str(ended), node="caller"))
        await started.wait()
        process.kill()
        with pytest.raises(NodeLost):
            await call
        await ended.wait()
    await nothing_left(near)


async def test_a_node_that_ends(near: Any, server: RedisServer, fifo: Any) -> None:
    started = fifo("started")
    with far_host(server, "ends") as process, anyio.fail_after(DEADLINE):
        call = asyncio.create_task(near.invoke("waits", str(started), "", node="ends"))
        await started.wait()
        assert process.stdin is not None
        process.stdin.close()
        with pytest.raises(PoolClosed, match="node 'ends' ends"):
            await call
    await nothing_left(near)


async def test_redis_dies_and_comes_back(tmp_path: Path, fifo: Any) -> None:
    started, ended = fifo("started"), fifo("ended")
    with redis_server(tmp_path) as server, far_host(server, "gpu-1"):
        async with here(server) as pool:
            with anyio.fail_after(DEADLINE):
                call = asyncio.create_task(pool.invoke("waits", str(started), str(ended), node="gpu-1"))
                await started.wait()
                server.kill()
                with pytest.raises(BusUnavailable, match="whether 'waits' ran on node 'gpu-1' is unknown"):
                    await call
                await ended.wait()  # cancelled there, for its answer could not come
                with pytest.raises(BusUnavailable, match="cannot be reached; nothing was sent"):
                    await pool.invoke("iadd", 1, node="gpu-1")
                with pytest.raises(BusUnavailable):
                    await pool.nodes()
                with pytest.raises(BusUnavailable):
                    await pool.call("services_app:nodes")
                server.start()
                await eventually(lambda: pool.stats().services.node["up"])
                while "gpu-1" not in await pool.nodes():  # noqa: ASYNC110  it has no event
                    await anyio.sleep(0.05)
                assert await pool.invoke("iadd", 1, 2, node="gpu-1") == 3


async def test_a_redis_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_nodes, "PATIENCE", 1.0)
    with redis_server(tmp_path) as server:
        async with here(server) as pool, here(server, node="web-2") as other:
            other.register("iadd", lambda a, b: a + b, inline=True)
            assert await pool.invoke("iadd", 1, 2, node="web-2") == 3
            assert server._process is not None
            server._process.send_signal(signal.SIGSTOP)
            with anyio.fail_after(DEADLINE), pytest.raises(BusUnavailable, match="is unknown"):
                await pool.invoke("iadd", 1, 2, node="web-2")


async def test_there_is_no_bus() -> None:
    async with Pool("services_app:app", **pool_options("thread", workers=1, lifespan="off")) as pool:
        for ask in (
            lambda: pool.invoke("add", 1, node="gpu-1"),
            lambda: pool.call("services_app:ask", "add", 1, node="gpu-1"),
            pool.nodes,
            lambda: pool.call("services_app:nodes"),
        ):
            with pytest.raises(SubpoolError, match=r"there is no bus, .* set the option bus to a Redis"):
                await ask()
        assert pool.stats().services.node is None


async def test_a_redis_that_is_not_there() -> None:
    options = pool_options("thread", workers=1, bus="redis://127.0.0.1:1/0", lifespan="off")
    async with Pool("services_app:app", **options) as pool:
        with pytest.raises(BusUnavailable, match="nothing was sent"):
            await pool.invoke("add", 1, node="gpu-1")
        assert not pool.stats().services.node["up"]


async def test_the_bus_is_that_of_the_state(server: RedisServer) -> None:
    """Unless it is said that there is none."""
    options = {"bus": None, "state": server.url}
    async with here(server, **options) as one, here(server, **options, node="web-2") as two:
        two.register("where", os.getpid, inline=True)
        assert await one.invoke("where", node="web-2") == os.getpid()
        async with one.subscribe("news") as messages:
            two.publish("news", 1)
            with anyio.fail_after(DEADLINE):
                assert await anext(messages) == 1
    async with here(server, state=server.url, bus="none") as pool:
        with pytest.raises(BusUnavailable, match="there is no bus"):
            await pool.nodes()


def test_the_names(server: RedisServer) -> None:
    for name, error in (("a b", ValueError), ("", ValueError), ("x" * 101, ValueError), (7, TypeError)):
        with pytest.raises(error, match="node is"):
            Pool(None, node=name)


async def test_a_host_has_a_name_without_one(server: RedisServer) -> None:
    async with here(server, node=None) as one, here(server, node=None) as two:
        names = [pool.stats().services.node["name"] for pool in (one, two)]
        assert len(set(names)) == 2
        assert all(f"-{os.getpid()}" in name for name in names)
        assert set(names) <= set(await one.nodes())


# what others say


HOSTILE = (
    b"", b"\xc1", b"short", b"\x91" * 3000, encode([]), encode({}), encode([1, 2, 3]), encode([9, "0" * 16, 1]),
    encode([1, "0" * 16, 1]), encode([1, "../../../../../..", 1, "iadd", [], {}, 0, 0]),
    encode([1, "0" * 16, 1, "iadd", [1], {1: 2}, 0, 0]), encode([1, "0" * 16, 1, "iadd", 7, {}, 0, 0]),
    encode([1, "0" * 16, 1, "iadd", [], {}, 99, 0]), encode([1, "0" * 16, 1, "iadd", [], {}, 2, 10**9]),
    encode([1, "0" * 16, -1, "iadd", [], {}, 0, 0]), encode([1, "0" * 16, 1, b"iadd", [], {}, 0, 0]),
    encode([2, "0" * 16, 1]), encode([3, "0" * 16, 1, "x"]), encode([4, "0" * 16, 1, "x"]), encode([5, "0" * 16, 1]),
)  # fmt: skip


async def test_what_others_say_is_no_harm(server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is run, what is under way goes on; and a flood of it is not a flood of the log."""
    from redis.asyncio import Redis

    ran: list[Any] = []
    redis, pool, other = Redis.from_url(server.url), here(server, node="web-3"), here(server, node="web-2")
    async with redis, pool, other:
        pool.register("iadd", lambda *args, **kwargs: ran.append((args, kwargs)), inline=True)
        nodes = pool._services._nodes
        with caplog.at_level(logging.WARNING, "subpool"):
            for data in HOSTILE * 20:
                assert await redis.publish(f"subpool:host:{nodes.own}", data) == 1
            other.register("ping", lambda: "pong", inline=True)
            assert await pool.invoke("ping", node="web-2") == "pong"
        assert ran == []
        assert await other.invoke("iadd", 7, node="web-3") is None
        assert ran == [((7,), {})]
        assert 1 <= caplog.text.count("is none of ours") <= 5


async def test_only_who_was_asked_may_answer(server: RedisServer, fifo: Any) -> None:
    from redis.asyncio import Redis

    started, go = fifo("started"), fifo("go")
    redis, pool, other = Redis.from_url(server.url), here(server, node="web-3"), here(server, node="web-2")
    async with redis, pool, other:
        other.register("awaits", "host_functions:awaits")
        task = asyncio.create_task(pool.invoke("awaits", str(started), str(go), node="web-2"))
        await started.wait()
        (number,) = pool._services._nodes._asked
        for host in ("0" * 16, pool._services._nodes.own):
            await redis.publish(f"subpool:host:{pool._services._nodes.own}", encode([4, host, number, "false"]))
        await pool.nodes()
        go.release()
        with anyio.fail_after(DEADLINE):
            assert await task == "went"


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60) | st.lists(st.integers(0, 9) | st.text(max_size=3) | st.just("0" * 16)).map(encode))
def test_any_bytes_are_taken(data: bytes) -> None:
    from subpool.services import Services

    services = Services({})
    services.bind(_Clock())
    nodes = nodes_part.Nodes(services, "node")
    nodes.post = _Nowhere()
    nodes.arrived(data)
    assert not nodes._taken


class _Clock:
    def time(self) -> float:
        return 0.0


class _Nowhere:
    up = True

    def send(self, *args: Any) -> bool:
        return True

    def look(self, seen: Any) -> None:
        seen({})


# servers


def test_servers(server: RedisServer) -> None:
    """By the command line, the environment and the Redis of their state; and what their status says."""
    for module in ("click", "pydantic", "yaml", "httptools"):
        pytest.importorskip(module)
    from ops_kit import serve, short_folder

    from subpool.remote import Remote, live_servers
    from subpool.status_table import table

    with short_folder() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(folder))
        options = ("--state", server.url, "--function", "awhere=host_functions:awhere")
        with (
            serve(*options, "--node", "srv-1", app="services_app:wsgi") as first,
            serve(*options, app="services_app:wsgi", SUBPOOL_NODE="srv-2") as second,
        ):
            assert first.get("/far?srv-2+awhere") == (200, str(second.pid))
            assert second.get("/far?srv-1+awhere") == (200, str(first.pid))
            assert first.get("/far?srv-1+awhere") == (200, str(first.pid))
            (path,) = [path for path in live_servers() if str(first.pid) in path]
            with Remote(path) as remote:
                status = remote.ask("status")
            assert status["services"]["node"] == {"name": "srv-1", "up": True, "asked": 0, "taken": 0}
            assert "node: srv-1, up, 0 calls to others, 0 for others" in table(status)
