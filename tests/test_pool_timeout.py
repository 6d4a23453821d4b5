"""Time limits: cancel the task, interrupt the interpreter, abandon it. Nothing of it hits another request."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import anyio
import pytest
from conftest import BOTH, DEADLINE, environ, eventually, free_threaded, http_scope, in_flight, whole

pytestmark = pytest.mark.anyio


def query(**values: Any) -> bytes:
    return "&".join(f"{name}={value}" for name, value in values.items()).encode()


@BOTH
async def test_a_waiting_handler_is_cancelled(make_pool: Any, fifo: Any) -> None:
    from subpool import PoolTimeout

    cancelled = fifo("cancelled")
    async with make_pool(workers=1, grace=0.2) as pool:
        with pytest.raises(PoolTimeout) as caught:
            await pool.run_asgi(http_scope("/forever", query_string=query(cancelled=cancelled)), timeout=0.1)
        assert caught.value.started is True
        assert isinstance(caught.value, TimeoutError)
        assert await cancelled.wait() == b"."
        assert (await pool.run_asgi(http_scope("/hello"))).status == 200
        stats = pool.stats()
        assert stats.abandoned == 0
        assert stats.workers[0].restarts == 0


async def test_the_pools_own_limit_holds(make_pool: Any) -> None:
    from subpool import PoolTimeout

    async with make_pool(workers=1, grace=0.2, timeout=0.1) as pool:
        with pytest.raises(PoolTimeout):
            await pool.run_asgi(http_scope("/forever"))


async def test_what_never_started_says_so(make_pool: Any, fifo: Any) -> None:
    from subpool import PoolTimeout

    started, gate = fifo("started"), fifo("gate")
    async with make_pool(workers=1, window=1) as pool, anyio.create_task_group() as group:
        scope = http_scope("/block", query_string=query(started=started, gate=gate))
        group.start_soon(pool.run_asgi, scope)
        await started.wait()
        for _ in range(3):
            with pytest.raises(PoolTimeout) as caught:
                await pool.run_asgi(http_scope("/calls"), timeout=0.1)
            assert caught.value.started is False
        gate.release()
        # Held up and given up, they were never run: the app has seen /block and this one.
        assert (await pool.run_asgi(http_scope("/hello"))).status == 200
        assert pool.stats().pending == 0


@pytest.mark.parametrize("interface", ["asgi", "wsgi"])
async def test_a_python_loop_is_interrupted(make_pool: Any, fifo: Any, interface: str) -> None:
    from subpool import PoolTimeout

    started = fifo("started")
    async with make_pool(f"{interface}_app:app", workers=1, grace=0.3) as pool:
        for _ in range(3):
            with anyio.fail_after(DEADLINE), pytest.raises(PoolTimeout) as caught:
                if interface == "asgi":
                    await pool.run_asgi(http_scope("/spin", query_string=query(started=started)), timeout=0.3)
                else:
                    await pool.run_wsgi(environ("/spin", query=query(started=started).decode()), timeout=0.3)
            assert caught.value.started is True
            assert await started.wait()
            for _ in range(5):
                if interface == "asgi":
                    assert (await pool.run_asgi(http_scope("/hello"))).status == 200
                else:
                    assert (await pool.run_wsgi(environ("/hello"))).status == "200 OK"


@pytest.mark.parametrize("interface", ["asgi", "wsgi"])
async def test_what_hears_nothing_is_abandoned_and_replaced(
    make_pool: Any, fifo: Any, tmp_path: Path, interface: str, isolation: str
) -> None:
    from subpool import PoolTimeout

    stop, started = tmp_path / "stop", fifo("started")
    try:
        async with make_pool(f"{interface}_app:app", workers=1, grace=0.2, close_timeout=2.0) as pool:
            args = query(stop=stop, started=started)
            with anyio.fail_after(DEADLINE), pytest.raises(PoolTimeout) as caught:
                if interface == "asgi":
                    await pool.run_asgi(http_scope("/deaf", query_string=args), timeout=0.3)
                else:
                    await pool.run_wsgi(environ("/deaf", query=args.decode()), timeout=0.3)
            assert caught.value.started is True
            with anyio.fail_after(DEADLINE):
                if interface == "asgi":
                    assert (await pool.run_asgi(http_scope("/hello"))).status == 200
                else:
                    assert (await pool.run_wsgi(environ("/hello"))).status == "200 OK"
            await eventually(lambda: whole(pool, 1))
            worker = pool.stats().workers[0]
            assert worker.restarts >= 1
            if isolation != "process":
                assert pool.stats().abandoned >= 1
            stop.touch()
    finally:
        stop.touch()


@pytest.mark.parametrize("path", ["/gil", "/nibble"])
async def test_a_steward_without_a_turn(make_pool: Any, tmp_path: Path, isolation: str, path: str) -> None:
    """A C call that keeps the GIL; a loop that gives it up for a moment again and again: the worker is replaced."""
    from subpool import PoolTimeout

    if isolation == "thread":
        pytest.skip("would hold the test's own interpreter")
    if isolation == "subinterpreter" and path == "/gil" and free_threaded():
        pytest.skip("no GIL to keep; and a C call that never detaches holds up what stops the world (CPython)")
    stop = tmp_path / "stop"
    try:
        async with make_pool(workers=1, grace=0.2, close_timeout=2.0) as pool:
            with anyio.fail_after(DEADLINE), pytest.raises(PoolTimeout) as caught:
                await pool.run_asgi(http_scope(path, query_string=query(stop=stop)), timeout=0.3)
            assert caught.value.started is True
            with anyio.fail_after(DEADLINE):
                assert (await pool.run_asgi(http_scope("/hello"))).status == 200
            assert pool.stats().workers[0].restarts == 1
            stop.touch()
    finally:
        stop.touch()


async def test_a_handler_that_swallows_its_cancellation(make_pool: Any, fifo: Any) -> None:
    from subpool import PoolTimeout

    gate, started = fifo("gate"), fifo("started")
    async with make_pool(workers=1, grace=0.2) as pool:
        with anyio.fail_after(DEADLINE), pytest.raises(PoolTimeout):
            await pool.run_asgi(http_scope("/stubborn", query_string=query(gate=gate, started=started)), timeout=0.2)
        assert await started.wait()
        with anyio.fail_after(DEADLINE):
            assert (await pool.run_asgi(http_scope("/hello"))).status == 200
        gate.release(4)
        with anyio.fail_after(DEADLINE):
            assert (await pool.run_asgi(http_scope("/hello"))).body == b"Hello, World!"


async def test_others_on_the_same_worker_live_on(make_pool: Any, fifo: Any) -> None:
    """A handler that waits beside one which times out is not disturbed."""
    from subpool import PoolTimeout

    gate, started = fifo("gate"), fifo("started")
    async with make_pool(workers=1, grace=0.3) as pool, anyio.create_task_group() as group:
        answers: list[bytes] = []

        async def patient() -> None:
            scope = http_scope("/gate", query_string=query(gate=gate, started=started))
            answers.append((await pool.run_asgi(scope)).body)

        group.start_soon(patient)
        await started.wait()
        with pytest.raises(PoolTimeout):
            await pool.run_asgi(http_scope("/forever"), timeout=0.1)
        gate.release()
        await eventually(lambda: answers == [b"through"])


@pytest.mark.parametrize("rounds", [30, pytest.param(400, marks=pytest.mark.soak)])
async def test_an_interrupt_never_hits_the_next_request(make_pool: Any, rounds: int) -> None:
    """Handlers that burn CPU for about as long as their limit: some are interrupted, nothing else ever is."""
    from subpool import PoolTimeout

    chance = random.Random(7)
    timed_out = 0
    async with make_pool(workers=1, grace=0.02) as pool:
        for _ in range(rounds):
            seconds = 0.08 + chance.uniform(-0.03, 0.03)
            try:
                answer = await pool.run_asgi(http_scope("/burn", query_string=b"%f" % seconds), timeout=0.06)
                assert answer.body == b"burnt"
            except PoolTimeout:
                timed_out += 1
            for _ in range(3):
                assert (await pool.run_asgi(http_scope("/hello"), timeout=10)).body == b"Hello, World!"
        assert timed_out
        assert in_flight(pool) == 0


async def test_call_has_a_limit_too(make_pool: Any, fifo: Any) -> None:
    from subpool import PoolTimeout

    started, gate = fifo("started"), fifo("gate")
    async with make_pool(None, workers=1, grace=0.2, timeout=0.3) as pool:
        with anyio.fail_after(DEADLINE), pytest.raises(PoolTimeout):
            await pool.call("functions:block", str(started), str(gate))
        gate.release(4)
        with anyio.fail_after(DEADLINE):
            await eventually(lambda: whole(pool, 1))


@pytest.mark.parametrize("value", [0, -1, "1", float("nan")])
async def test_a_bad_limit_is_refused(pool: Any, value: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="timeout"):
        await pool.run_asgi(http_scope("/hello"), timeout=value)
