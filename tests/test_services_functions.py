"""Functions of the host, called from workers of every kind: on the loop, on threads, in other loops."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import host_functions as h
import pytest
from conftest import APPS, BOTH, DEADLINE, environ, eventually, free_threaded, http_scope, in_flight, pool_options
from gates import wait

import subpool
from subpool import AppError, AppLoadError, Pool, PoolOverloaded, PoolTimeout, UnknownFunction, WorkerLost
from subpool.services import helper as helper_part
from subpool.services.registry import spec_of

pytestmark = pytest.mark.anyio
HELPED = ("add", "size", "where", "fails", "leaves", "dies", "no_data", "blocks", "spins", "count", "breaks", "endless")
HOSTED = ("aadd", "awhere", "afails", "waits", "awaits", "acount", "aendless", "aholds")


def register(pool: Any) -> Any:
    for name in (*HELPED, *HOSTED, "calls_back", "tells"):
        pool.register(name, getattr(h, name))
    pool.register("iadd", h.add, inline=True)
    pool.register("ifails", h.fails, inline=True)
    pool.register("icount", h.count, inline=True)
    pool.register("holds", h.holds, inline=True)
    pool.register("model", h.Model)
    pool.register("named", "host_functions:add")
    pool.register("anamed", "host_functions:awhere")
    pool.register("gone", "host_functions:nothing")
    return pool


@pytest.fixture(scope="module")
async def services(isolation: str, anyio_backend: str) -> AsyncIterator[Any]:
    """A pool of one worker: for tests that leave nothing behind."""
    async with register(Pool("services_app:app", **pool_options(isolation, workers=1))) as pool:
        yield pool


async def ask(pool: Any, *args: Any, way: str = "ask", **kwargs: Any) -> Any:
    with anyio.fail_after(DEADLINE):
        return await pool.call(f"services_app:{way}", *args, **kwargs)


async def nothing_left(pool: Any) -> None:
    """No call, no subscriber, no thread, no task: on either side."""
    await eventually(lambda: in_flight(pool) == 0)
    with anyio.fail_after(DEADLINE):
        while await pool.call("services_app:counts") != (0, 0, []):  # noqa: ASYNC110  it has no event
            await anyio.sleep(0.01)
    for member in pool.engine.crew.members:
        assert member.desk is None or not member.desk.asked
    await eventually(lambda: pool.stats().services.under_way == 0)


WAYS = ("ask", "aask", "ask_on_thread")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["add", "iadd", "aadd", "named"])
async def test_an_answer(services: Any, way: str, name: str) -> None:
    assert await ask(services, name, 20, b=22, way=way) == 42
    await nothing_left(services)


async def test_where_each_runs(services: Any) -> None:
    helper = await ask(services, "where")
    assert (helper == os.getpid()) == free_threaded()
    assert await ask(services, "where", way="aask") == helper
    assert await ask(services, "awhere") == await ask(services, "anamed") == os.getpid()


async def test_many_at_a_time(services: Any) -> None:
    for name in ("add", "aadd", "iadd"):
        assert await ask(services, name, 300, way="ask_many") == list(range(300))
    await nothing_left(services)


async def test_a_class_is_made_once(services: Any) -> None:
    text, made, _ = await ask(services, "model.predict", "a")
    assert (text, made == 1 or free_threaded()) == ("A", True)  # its module is of this process there
    first = (await ask(services, "model.predict", "b"))[2]
    assert await ask(services, "model.predict", "c", way="aask") == ("C", made, first + 1)
    assert await ask(services, "model.apredict", "D") == "d"
    assert await ask(services, "model.words", "a b c", way="read") == ["a", "b", "c"]
    with pytest.raises(UnknownFunction, match="'model' has no method 'nothing'; its methods: apredict, predict, words"):
        await ask(services, "model.nothing")
    with pytest.raises(UnknownFunction, match="cannot be called itself"):
        await ask(services, "model")
    with pytest.raises(UnknownFunction, match=r"no function 'model\._secret'"):
        await ask(services, "model._secret")


@pytest.mark.parametrize("way", WAYS[:2])
@pytest.mark.parametrize("name", ["fails", "ifails", "afails"])
async def test_an_exception_by_name_and_text(services: Any, way: str, name: str) -> None:
    with pytest.raises(AppError) as caught:
        await ask(services, name, "this", way=way)
    assert (caught.value.type_name, caught.value.message) == ("KeyError", "'this'")
    assert "host_functions.py" in caught.value.remote_traceback
    await nothing_left(services)


async def test_what_no_answer_is(services: Any) -> None:
    with pytest.raises(UnknownFunction, match=r"no function 'nobody'; registered: .*aadd.*where"):
        await ask(services, "nobody")
    with pytest.raises(AppError) as caught:
        await ask(services, "no_data")
    assert caught.value.type_name == "TypeError"
    assert "the answer of 'no_data' is no plain data" in caught.value.message
    with pytest.raises(AppError, match="the answer of 'count' is no plain data"):
        await ask(services, "count", 3)
    with pytest.raises(AppLoadError, match="'nothing'"):
        await ask(services, "gone")
    with pytest.raises(AppError) as caught:
        await ask(services, "leaves")
    assert caught.value.type_name == "SystemExit"
    assert await ask(services, "add", 1) == 1
    await nothing_left(services)


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("name", "TypeError: a function of the host is called by its name, a str, not 7"),
        ("object", "TypeError: argument 2 of 'iadd', a object, is no plain data"),
        ("keyword", "TypeError: argument 'b' of 'iadd', a builtin_function_or_method, is no plain data"),
        ("timeout", "ValueError: timeout is 0; it must be more than 0 seconds"),
        ("huge", "ValueError: what 'iadd' is called with takes 68157"),
        ("deep", "TypeError: argument 1 of 'iadd', a list, is no plain data: object too deeply nested"),
        ("itself", "1"),
    ],
)
async def test_arguments_that_cannot_be(services: Any, what: str, text: str) -> None:
    assert (await ask(services, what, way="wrong")).startswith(text)
    await nothing_left(services)


async def test_large_ones(services: Any) -> None:
    data = os.urandom(3_000_000)
    for name in ("add", "iadd"):
        assert await ask(services, name, data, b"!") == data + b"!"


@pytest.mark.parametrize("way", WAYS[:2])
@pytest.mark.parametrize("name", ["waits", "spins"])
async def test_a_time_limit_ends_the_function_too(services: Any, fifo: Any, way: str, name: str) -> None:
    started, ended = fifo("started"), fifo("ended")
    with pytest.raises(AppError, match=r"PoolTimeout: '\w+' on the host did not answer within 0\.3 s"):
        await ask(services, name, str(started), str(ended), timeout=0.3, way=way)
    assert await started.wait()
    assert await ended.wait()
    await nothing_left(services)


@pytest.mark.parametrize("name", ["waits", "spins"])
async def test_a_call_that_is_cancelled_ends_the_function_too(services: Any, fifo: Any, name: str) -> None:
    started, ended = fifo("started"), fifo("ended")
    assert await ask(services, 0.3, name, str(started), str(ended), way="give_up") == "cancelled"
    assert await started.wait()
    assert await ended.wait()
    await nothing_left(services)


async def test_a_cast(services: Any, fifo: Any, caplog: pytest.LogCaptureFixture) -> None:
    started, go = fifo("started"), fifo("go")
    for name in ("blocks", "awaits"):
        await ask(services, name, str(started), str(go), way="cast")
        assert await started.wait()
        go.release()
        await nothing_left(services)
    with caplog.at_level(logging.ERROR, "subpool"):
        await ask(services, "nobody", way="cast")
        await eventually(lambda: "a cast to function 'nobody' failed" in caplog.text)
    await nothing_left(services)


async def test_functions_may_ask_and_publish(services: Any) -> None:
    assert await ask(services, "calls_back", 41) == 42
    async with services.subscribe("progress") as messages:
        assert await ask(services, "tells", "progress", {"done": 0.5}) == 1
        with anyio.fail_after(DEADLINE):
            assert await anext(messages) == {"done": 0.5}
    await nothing_left(services)


async def test_what_holds_the_loop_is_logged(services: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "subpool"):
        await ask(services, "holds", 0.06)
        await ask(services, "aholds", 0.06)
    assert "function 'holds' held the event loop for" in caplog.text
    assert "function 'aholds' held the event loop for" in caplog.text


async def test_the_host_calls_too(services: Any) -> None:
    with anyio.fail_after(DEADLINE):
        for name in ("add", "iadd", "aadd"):
            assert await services.invoke(name, 20, b=22) == 42
        with pytest.raises(AppError, match="KeyError"):
            await services.invoke("fails")
        with pytest.raises(UnknownFunction):
            await services.invoke("nobody")
    with pytest.raises(TypeError, match="argument 1 of 'add'"):
        await services.invoke("add", object())


# streams


@pytest.mark.parametrize("way", ["read", "aread"])
@pytest.mark.parametrize("name", ["count", "icount", "acount"])
async def test_a_stream(services: Any, way: str, name: str) -> None:
    for number in (0, 1, 7, 100):
        assert await ask(services, name, number, way=way) == list(range(number))
    assert await ask(services, name, 100, way=way, most=5) == [0, 1, 2, 3, 4]
    await nothing_left(services)


@pytest.mark.parametrize("way", ["read", "aread"])
async def test_a_stream_that_breaks(services: Any, way: str) -> None:
    with pytest.raises(AppError, match="KeyError: 'broken'"):
        await ask(services, "breaks", 3, way=way)
    with pytest.raises(AppError, match="'int' object is not iterable"):
        await ask(services, "add", 3, way=way)
    with pytest.raises(UnknownFunction):
        await ask(services, "nobody", 3, way=way)
    await nothing_left(services)


@pytest.mark.parametrize("name", ["endless", "aendless"])
async def test_a_generator_waits_for_its_reader_and_ends_with_it(
    services: Any, fifo: Any, tmp_path: Path, name: str
) -> None:
    taken, ended, go = tmp_path / "taken", fifo("ended"), fifo("go")
    async with anyio.create_task_group() as group:
        group.start_soon(ask_into, [], services, str(go), name, str(taken), str(ended))
        await eventually(lambda: taken.exists() and taken.read_text() == "16")
        assert await ask(services, "iadd", 1) == 1
        assert taken.read_text() == "16"
        assert ended.empty()
        go.release()
    assert await ended.wait()
    await nothing_left(services)


async def ask_into(answers: list[Any], pool: Any, *args: Any) -> None:
    answers.append(await ask(pool, *args, way="read_slowly"))


@pytest.mark.parametrize("name", ["endless", "aendless"])
async def test_a_generator_that_nobody_holds_any_more(services: Any, fifo: Any, tmp_path: Path, name: str) -> None:
    ended = fifo("ended")
    assert await ask(services, name, str(tmp_path / "taken"), str(ended), way="drop") == 0
    assert await ended.wait()
    await nothing_left(services)


# apps


async def test_an_app_asks_while_it_starts(services: Any) -> None:
    assert (await services.run_asgi(http_scope("/started"))).body == b"[42, 3]"


@pytest.mark.parametrize("threads", [1, 3])
async def test_wsgi(isolation: str, threads: int) -> None:
    async with register(Pool("services_app:wsgi", **pool_options(isolation, threads=threads))) as pool:
        with anyio.fail_after(DEADLINE):
            assert (await pool.run_wsgi(environ("/call", query="awhere"))).body == repr(os.getpid()).encode()
            assert (await pool.run_wsgi(environ("/count", query="100"))).body == b"4950"
            answer = (await pool.run_wsgi(environ("/loop", query="awhere"))).body
            assert answer == repr((os.getpid(), 1, 5)).encode()
        await nothing_left(pool)


@pytest.mark.parametrize("threads", [1, 3])
async def test_a_request_out_of_time_gets_out_of_its_call(isolation: str, fifo: Any, threads: int) -> None:
    started, ended = fifo("started"), fifo("ended")

    async def never() -> None:
        await h.waits(str(started), str(ended))

    options = pool_options(isolation, workers=1, threads=threads, grace=2.0)
    async with Pool("services_app:wsgi", **options) as pool:
        pool.register("never", never)
        for _ in range(2):
            with pytest.raises(PoolTimeout):
                await pool.run_wsgi(environ("/call", query="never"), timeout=0.5)
            assert await started.wait()
            assert await ended.wait()
            with anyio.fail_after(DEADLINE):
                assert (await pool.run_wsgi(environ("/hello"))).status == "200 OK"
        assert (await pool.call("services_app:counts"))[:2] == (0, 0)
        assert pool.stats().restarts == pool.stats().abandoned == 0


async def test_a_request_out_of_time_that_holds_the_loop(isolation: str, fifo: Any) -> None:
    started, ended = fifo("started"), fifo("ended")

    async def never() -> None:
        await h.waits(str(started), str(ended))

    async with register(Pool("services_app:app", **pool_options(isolation, workers=1, grace=2.0))) as pool:
        pool.register("never", never)
        with pytest.raises(PoolTimeout):
            await pool.run_asgi(http_scope("/call", query_string=b"never"), timeout=0.3)
        assert await ended.wait()
        with anyio.fail_after(DEADLINE):
            assert (await pool.run_asgi(http_scope("/hello"))).status == 200
        await nothing_left(pool)


@pytest.mark.parametrize("way", ["aask", "ask", "ask_on_thread"])
async def test_a_worker_that_ends_leaves_nothing(isolation: str, fifo: Any, way: str) -> None:
    """Its calls are refused, and cancelled on the host; so nothing keeps it from its end."""
    started, ended = fifo("started"), fifo("ended")
    options = pool_options(isolation, workers=1)
    async with register(Pool("services_app:app", **options)) as pool:
        async with anyio.create_task_group() as group:

            async def lost() -> None:
                with pytest.raises((WorkerLost, AppError, subpool.PoolClosed)):
                    await pool.call(f"services_app:{way}", "waits", str(started), str(ended))

            group.start_soon(lost)
            assert await started.wait()
            await pool.close(0.1)
            assert await ended.wait()
            assert pool.engine.crew.abandoned == 0


@BOTH
async def test_on_both_loops(anyio_backend_name: str) -> None:
    async with register(Pool("services_app:app", **pool_options("subinterpreter", workers=1))) as pool:
        for name in ("add", "aadd", "iadd"):
            assert await ask(pool, name, 1, 2, way="aask") == 3
            with anyio.fail_after(DEADLINE):
                assert await pool.invoke(name, 1, 2) == 3
        for name in ("count", "acount"):
            assert await ask(pool, name, 50, way="aread") == list(range(50))
        with pytest.raises(AppError):
            await ask(pool, "afails", way="aask")
        assert await ask(pool, 0.1, "waits", "", "", way="give_up") == "cancelled"
        await nothing_left(pool)


# registering


def test_what_can_be_registered() -> None:
    pool = register(Pool(None))
    with pytest.raises(ValueError, match="'add' is registered already"):
        pool.register("add", h.add)
    for name in ("", "a b", ".a", "a.", "1"):
        with pytest.raises(ValueError, match="is no name of a function"):
            pool.register(name, h.add)
    with pytest.raises(TypeError, match="is a str, not 7"):
        pool.register(7, h.add)
    with pytest.raises(TypeError, match="which cannot be called"):
        pool.register("x", 7)
    with pytest.raises(ValueError, match="'module:callable'"):
        pool.register("x", "nothing")

    def local() -> None: ...

    for function, why in (
        (lambda: 1, "this is a lambda"),
        (local, "this is made inside a function"),
        (h.Model().predict, "host_functions:Model.predict is something else"),
        (register.__call__, "this has no name there"),
    ):
        with pytest.raises(TypeError, match=why):
            pool.register("x", function)
    local.__module__, local.__qualname__ = "__main__", "local"
    with pytest.raises(TypeError, match=r"this is of the program itself, not of a module; put it into a module"):
        spec_of("x", local)
    pool.register("x", lambda: 1, inline=True)


async def test_a_closed_pool(isolation: str) -> None:
    pool = register(Pool("services_app:app", **pool_options(isolation, workers=1)))
    with pytest.raises(subpool.PoolClosed):
        await pool.invoke("add", 1)
    async with pool:
        assert await pool.invoke("iadd", 1) == 1
    with pytest.raises(subpool.PoolClosed):
        await pool.invoke("iadd", 1)


def test_outside_of_workers() -> None:
    """In a process of its own: one that has workers of threads takes any thread for theirs."""
    program = "import subpool; subpool.call('add', 1)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=25, check=False)
    assert "RuntimeError: this works in a worker of subpool only, and no worker runs in this interpreter" in done.stderr


def test_nothing_is_made_for_who_uses_none(tmp_path: Path) -> None:
    """Neither on the host nor in a worker."""
    program = f"""if True:
        import asyncio, sys
        from subpool import Pool
        async def main():
            async with Pool("asgi_app:app", workers=1, isolation="thread", pythonpath=[{APPS!r}]) as pool:
                await pool.run_asgi({{"type": "http", "path": "/hello"}})
                assert pool.stats().services is None
        asyncio.run(main())
        print([name for name in sys.modules if name.startswith("subpool.") and any(part in name for part in
              ("services", "topics", "inlet", "helping", "functions", "pubsub", "jobs"))])
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=25, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")


# the helper


needs_process = pytest.mark.skipif(free_threaded(), reason="the helper is threads there, which end with this process")


@pytest.fixture
async def helped(anyio_backend: str) -> AsyncIterator[Any]:
    """A pool for tests that harm its helper."""
    async with register(Pool("services_app:app", **pool_options("subinterpreter", workers=1))) as pool:
        yield pool


def helper_pid(pool: Any) -> int:
    return int(pool.services_of().helper._pool.engine.crew.members[0].handle._process.pid)


@needs_process
async def test_a_helper_that_dies(helped: Any, fifo: Any) -> None:
    started, go = fifo("started"), fifo("go")
    first = await ask(helped, "where")
    async with anyio.create_task_group() as group:

        async def lost(way: str, *args: Any) -> None:
            with pytest.raises(WorkerLost, match=r"the helper process ended: .*killed by signal 9"):
                await ask(helped, *args, way=way)

        group.start_soon(lost, "aask", "blocks", str(started), str(go))
        assert await started.wait()
        os.kill(first, signal.SIGKILL)
    second = await ask(helped, "where")
    assert second != first
    assert helped.stats().services.helper.restarts == 1
    with pytest.raises(WorkerLost, match="status 7"):
        await ask(helped, "dies")
    assert await ask(helped, "where") not in (first, second)
    await nothing_left(helped)


@needs_process
async def test_a_generator_in_a_helper_that_dies(helped: Any, fifo: Any, tmp_path: Path) -> None:
    taken, go = tmp_path / "taken", fifo("go")
    async with anyio.create_task_group() as group:

        async def lost() -> None:
            with pytest.raises(WorkerLost):
                await ask(helped, "held", str(taken), str(go), way="aread")

        helped.register("held", "host_functions:held")
        await ask(helped, "where")
        group.start_soon(lost)
        await eventually(taken.exists)
        os.kill(helper_pid(helped), signal.SIGKILL)
    assert await ask(helped, "count", 3, way="read") == [0, 1, 2]
    await nothing_left(helped)


@needs_process
async def test_functions_that_never_return(helped: Any, fifo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """When they hold every thread, another helper takes the place of this one."""
    started, go = fifo("started"), fifo("go")
    monkeypatch.setattr("subpool.worker.helping.PATIENCE", 0.5)  # where the helper is threads of this process
    services = helped.services_of()
    services._options["threads"] = 2
    helped.register("hurries", h.hurries)
    await ask(helped, "hurries", 0.5)
    first = await ask(helped, "where")
    for _ in range(2):
        with pytest.raises(AppError, match="PoolTimeout"):
            await ask(helped, "blocks", str(started), str(go), timeout=0.1)
        assert await started.wait()
    with anyio.fail_after(DEADLINE):
        while True:
            try:
                if await ask(helped, "where", timeout=10.0) != first:
                    break
            except WorkerLost:
                pass
    await nothing_left(helped)


@needs_process
async def test_a_helper_that_never_stays_alive(helped: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Callers get errors, soon; after a while it is tried again."""
    monkeypatch.setattr(helper_part, "PAUSE", 0.3)
    helped.services_of()._options["max_restarts"] = 2
    with anyio.fail_after(DEADLINE):
        while True:
            with pytest.raises(subpool.SubpoolError) as caught:
                await ask(helped, "dies")
            if "rests for" in str(caught.value):
                break
        while True:
            try:
                assert await ask(helped, "add", 1) == 1
                break
            except subpool.SubpoolError:
                await anyio.sleep(0.05)
    await nothing_left(helped)


async def test_a_flood(helped: Any, fifo: Any) -> None:
    """More than may be under way is refused, at once."""
    go = fifo("go")

    async def slow(_: int) -> bytes:
        return await wait(str(go))

    helped.register("slow", slow)
    with pytest.raises(PoolOverloaded, match="4096 calls to the host under way already"):
        await ask(helped, "slow", 5000, way="ask_many")
    go.release(4096)
    await nothing_left(helped)


async def test_a_helper_of_threads(helped: Any, fifo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a free-threaded build: threads that never end are left to themselves, and others take their place."""
    monkeypatch.setattr(helper_part._interpreters, "free_threaded", lambda: True)
    monkeypatch.setattr("subpool.worker.helping.PATIENCE", 0.1)
    started, go = fifo("started"), fifo("go")
    helped.services_of()._options["threads"] = 1
    assert await ask(helped, "where") == os.getpid()
    assert await ask(helped, "count", 30, way="read") == list(range(30))
    with pytest.raises(AppError, match="PoolTimeout"):
        await ask(helped, "blocks", str(started), str(go), timeout=0.1)
    assert await ask(helped, "where", timeout=10.0) == os.getpid()
    go.release()
    await nothing_left(helped)
