"""The shared state in pools: workers of every kind, and the host, see one another's entries."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from conftest import APPS, DEADLINE, eventually, http_scope, pool_options, whole
from redis_kit import redis_server

from subpool import AppError, Pool, PoolClosed, StateFull, state

pytestmark = pytest.mark.anyio

STATE = "state_app:run"


@pytest.fixture(scope="module")
async def shared(make_pool: Any, anyio_backend: str) -> AsyncIterator[Any]:
    """A pool of four workers."""
    async with make_pool("state_app:app", workers=4) as pool:
        yield pool


def folder(pool: Any) -> str:
    """Where its entries are."""
    return str(pool._setup["state"]["place"])


async def on_all(pool: Any, function: str, *args: Any, workers: int = 4) -> dict[int, Any]:
    """Call until every worker has answered once; their answers."""
    found: dict[int, Any] = {}

    async def ask(affinity: int) -> None:
        worker, answer = await pool.call("state_app:told", function, *args)
        found[worker] = answer

    with anyio.fail_after(DEADLINE):
        while len(found) < workers:
            async with anyio.create_task_group() as group:
                for number in range(8):
                    group.start_soon(ask, number)
    return found


async def test_what_one_sets_all_see(shared: Any) -> None:
    await shared.call(STATE, "set", ("a", 1), {"list": [1, None, "x"], "n": 2**63})
    for found in (await on_all(shared, "get", ("a", 1))).values():
        assert found == {"list": [1, None, "x"], "n": 2**63}
    assert state.get(("a", 1)) == shared.state.get(("a", 1)) == {"list": [1, None, "x"], "n": 2**63}
    shared.state.set("host", b"bytes")
    assert set((await on_all(shared, "get", "host")).values()) == {b"bytes"}
    assert await shared.call("state_app:arun", "get_multi", ["host", "none"]) == {"host": b"bytes", "none": None}
    assert await shared.call("state_app:arun", "keys", "ho") == ["host"]
    assert await shared.call("state_app:arun", "compare_and_set", "host", b"bytes", 1)
    assert state.get("host") == 1
    for name, args in (("set", ("x", 1)), ("set_multi", ({"y": 2},)), ("delete", ("x",)), ("decr", ("y",))):
        await shared.call("state_app:arun", name, *args)
    assert state.get_multi(["x", "y"]) == {"x": None, "y": 1}
    assert await shared.call("state_app:arun", "clear") >= 3
    assert await shared.call("state_app:arun", "clear") == 0


async def count_up(pool: Any, function: str, each: int, calls: int) -> set[int]:
    """Count in many calls at a time; the workers that did."""
    pool.state.delete("n")
    workers = set()

    async def one() -> None:
        workers.add(await pool.call(function, "n", each))

    async with anyio.create_task_group() as group:
        for _ in range(calls):
            group.start_soon(one)
    return workers


@pytest.mark.parametrize("function", ["count", "acount"])
async def test_counts_are_exact(shared: Any, function: str) -> None:
    workers = await count_up(shared, f"state_app:{function}", 250, 40)
    assert len(workers) > 1
    assert shared.state.get("n") == 10_000


@pytest.mark.soak
@pytest.mark.parametrize("function", ["count", "acount"])
async def test_long_counts_are_exact(shared: Any, function: str) -> None:
    await count_up(shared, f"state_app:{function}", 1000, 100)
    assert shared.state.get("n") == 100_000


@pytest.mark.parametrize("url", ["sqlite", "redis"])
async def test_other_stores(make_pool: Any, tmp_path: Path, url: str) -> None:
    if url == "redis":
        with redis_server(tmp_path) as server:
            await _with_store(make_pool, server.url)
    else:
        await _with_store(make_pool, f"sqlite:///{tmp_path}/site.db")
        async with make_pool(None, workers=1, state=f"sqlite:///{tmp_path}/site.db") as pool:
            assert pool.state.get("n") is None, "another pool's namespace"
        async with make_pool("state_app:app", workers=1, state=f"sqlite:///{tmp_path}/site.db") as pool:
            assert pool.state.get("n") == 1000
            assert await pool.call(STATE, "get", "list") == [1, {"a": None}]


async def _with_store(make_pool: Any, url: str) -> None:
    async with make_pool("state_app:app", state=url) as pool:
        await count_up(pool, "state_app:count", 50, 10)
        await pool.call("state_app:acount", "n", 500)
        assert pool.state.get("n") == 1000
        await pool.call(STATE, "set", "list", [1, {"a": None}])
        assert await pool.call("state_app:arun", "get", "list") == [1, {"a": None}]
        assert pool.state.cached(str, 5, key="five") == await pool.call(STATE, "get", "five") == "5"


async def test_errors_name_the_key(shared: Any) -> None:
    for function in (STATE, "state_app:arun"):
        with pytest.raises(AppError, match=r"ValueError: state 'big': it takes 9000000 bytes"):
            await shared.call(function, "set", "big", b"x" * 9_000_000)
    async with Pool(None, **pool_options("thread", workers=1, state="memory:?max_entries=1")) as pool:
        await pool.call(STATE, "set", "a", 1)
        with pytest.raises(StateFull, match="state 'b': the state is full: max_entries=1"):
            await pool.call(STATE, "set", "b", 1)


async def test_a_pool_that_uses_none_pays_nothing(make_pool: Any) -> None:
    async with make_pool("asgi_app:app", workers=1) as pool:
        await pool.run_asgi(http_scope("/"))
        assert not os.path.exists(folder(pool))
        if pool.isolation != "thread":
            assert await pool.call("state_app:loaded") == []
            assert await pool.call(STATE, "incr", "a") == 1
            assert await pool.call("state_app:loaded") == ["sqlite3", "subpool.state.sqlite"]


async def test_it_goes_with_the_pool(make_pool: Any) -> None:
    async with make_pool(None, workers=1) as pool:
        await pool.call(STATE, "incr", "a")
        place = folder(pool)
        assert os.path.isdir(place)
        assert os.stat(place).st_mode & 0o777 == 0o700
        assert pool.state.get("a") == 1
    assert not os.path.exists(place)
    with pytest.raises(PoolClosed):
        assert pool.state


async def test_several_pools(make_pool: Any) -> None:
    async with make_pool(None, workers=1) as one, make_pool(None, workers=1) as two:
        one.state.set("a", 1)
        assert two.state.get("a") is None
        assert await two.call(STATE, "get", "a") is None
        assert await one.call(STATE, "get", "a") == 1
        if one.isolation != "thread":  # where workers are threads of the host, the host's calls are the last one's
            with pytest.raises(RuntimeError, match="pools are open here: say which"):
                state.get("a")
    options = {"workers": 1, "state": "memory:common"}
    async with make_pool(None, **options) as one, make_pool(None, **options) as two:
        async with make_pool(None, **options, state_namespace="own") as three:
            one.state.set("a", 1)
            assert await two.call(STATE, "get", "a") == 1
            assert await three.call(STATE, "get", "a") is None
            await three.call(STATE, "clear")
        place = folder(one)
        assert await two.call(STATE, "get", "a") == 1
    assert not os.path.exists(place)


async def test_blocking_pools_have_it() -> None:
    def use() -> None:
        with Pool.blocking(None, **pool_options("thread", workers=1)) as pool:
            assert pool.state.incr("a") == pool.call(STATE, "get", "a") == 1

    await anyio.to_thread.run_sync(use)


async def test_it_outlives_workers(make_pool: Any) -> None:
    if make_pool(None).options.isolation == "thread":
        pytest.skip("threads share one app, which is not recycled")
    async with make_pool("state_app:app", workers=2) as pool:
        await on_all(pool, "incr", "n", workers=2)
        before = pool.state.get("n")
        await pool.call(STATE, "set", "list", [1])
        for _ in range(2):
            await pool.recycle()
        assert pool.state.get("starts") == 6
        assert await pool.call(STATE, "incr", "n") == before + 1
        assert await pool.call(STATE, "get", "list") == [1]


async def test_a_worker_that_dies_in_its_turn_holds_nobody_up() -> None:
    async with Pool(None, **pool_options("process")) as pool:
        with pytest.raises(Exception, match="ended"):
            await pool.call("state_app:die_in_turn")
        assert await pool.call(STATE, "incr", "died") == 2
        await eventually(lambda: whole(pool))


async def test_a_handler_that_is_interrupted_leaves_the_store_whole(make_pool: Any) -> None:
    async with make_pool(None, workers=2, timeout=0.2, grace=0.05) as pool:
        with pytest.raises(TimeoutError):
            await pool.call("state_app:count", "n", 10**9)
        value = pool.state.get("n")
        await eventually(lambda: sum(worker.in_flight for worker in pool.stats().workers) == 0)
        value = pool.state.get("n")
        assert pool.state.incr("n") == value + 1


@pytest.mark.parametrize("function", ["cached_slow", "acached_slow"])
async def test_one_computes_for_all(make_pool: Any, fifo: Any, function: str) -> None:
    started, go = fifo("started"), fifo("go")
    async with make_pool(None, workers=3) as pool:
        answers = []

        async def one() -> None:
            answers.append(await pool.call(f"state_app:{function}", str(started), str(go)))

        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(one)
            await started.wait()
            await eventually(lambda: sum(worker.in_flight for worker in pool.stats().workers) == 3)
            go.release()
        assert len(set(answers)) == 1
        assert pool.state.get("runs") == 1
        assert await pool.call(f"state_app:{function}", str(started), str(go)) == answers[0]
        found = pool.state.cache_stats()
        assert found["misses"] == 1
        assert found["hits"] + found["waits"] == 3
        assert found["hits"] >= 1
        pool.state.delete("slow")
        go.release()
        await pool.call(f"state_app:{function}", str(started), str(go))
        assert pool.state.get("runs") == 2


async def test_who_dies_computing_holds_nobody_up(fifo: Any) -> None:
    started, go = fifo("started"), fifo("go")
    async with Pool(None, **pool_options("process")) as pool:
        async with anyio.create_task_group() as group:

            async def dies() -> None:
                with pytest.raises(Exception, match="ended"):
                    await pool.call("state_app:cached_slow", str(started), str(go))

            group.start_soon(dies)
            await started.wait()
            busy = next(worker for worker in pool.stats().workers if worker.in_flight)
            member = next(one for one in pool.engine.crew.members if one.id == busy.id)
            os.kill(member.handle._process.pid, signal.SIGKILL)
        go.release()
        assert type(await pool.call("state_app:cached_slow", str(started), str(go))) is int
        assert pool.state.get("runs") == 2


async def test_what_raises_is_not_kept(shared: Any) -> None:
    shared.state.clear()
    for _ in range(2):
        with pytest.raises(AppError, match="ValueError: no result"):
            await shared.call("state_app:cached_fails")
    assert shared.state.get("runs") == 2


async def test_keys_of_results(shared: Any) -> None:
    space = shared.state
    space.clear()
    assert state.cached(str, 5) == state.cached(str, 5) == "5"
    assert state.cached(str, 6) == "6"
    assert state.cached(str, [1, None]) == "[1, None]"
    assert len(state.keys(("cached", "builtins.str"))) == 3
    assert state.clear(("cached",)) == 3
    for function in (lambda: 1, shared.stats, partial(str, 5)):
        with pytest.raises(ValueError, match="give key="):
            state.cached(function)
        assert state.cached(str, 7, key=("own", 1)) == "7"
    with pytest.raises(TypeError, match=r"the arguments of str make no key: .*give key="):
        state.cached(str, object())
    with pytest.raises(TypeError, match="is no function"):
        state.cached(5, key="a")  # type: ignore[arg-type]


async def test_the_names_of_the_guides(shared: Any) -> None:
    from subpool import compat

    shared.state.clear()
    assert compat.state_incr("views") == 1
    assert compat.state_decr("views", 3) == -2
    compat.state_set("cache", [1], ttl=300)
    assert compat.state_get("cache") == [1]
    assert compat.state_get("none") is None
    assert compat.state_get_multi(["cache", "none"]) == {"cache": [1], "none": None}
    assert compat.state_keys("c") == ["cache"]
    assert compat.state_delete("cache")
    before = compat.cache_stats()
    calls = []

    class Model:
        def encode(self, text: str) -> list[int]:
            calls.append(text)
            return [len(text)]

    Model.encode.__qualname__ = "Model.encode"
    for _ in range(3):
        assert compat.cached_inference(Model().encode, "abc") == [3]
    assert compat.cached_inference(Model().encode, "abc", cache_prefix="other", ttl=5) == [3]
    assert calls == ["abc"] * 2
    after = compat.cache_stats()
    assert (after["hits"] - before["hits"], after["misses"] - before["misses"]) == (2, 2)
    assert 0 < after["hit_rate"] < 1


def test_a_killed_host_leaves_what_the_next_one_sweeps(tmp_path: Path) -> None:
    code = f"""
import sys, anyio
from subpool import Pool
async def main():
    async with Pool(None, workers=1, isolation="subinterpreter", pythonpath=[{APPS!r}]) as pool:
        await pool.call("state_app:run", "incr", "a")
        print(pool._setup["state"]["place"], flush=True)
        if sys.argv[1] == "wait":
            await anyio.sleep(60)
anyio.run(main)
"""
    command = [sys.executable, "-c", code]
    with subprocess.Popen([*command, "wait"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        left = process.stdout.readline().strip()
        assert os.path.isdir(left)
        process.kill()
    assert os.path.isdir(left)
    done = subprocess.run([*command, "end"], capture_output=True, text=True, timeout=25, check=True)
    assert not os.path.exists(done.stdout.strip())
    assert not os.path.exists(left)
