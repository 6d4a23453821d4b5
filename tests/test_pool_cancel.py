"""Callers that go away: nothing of theirs stays behind."""

from __future__ import annotations

import gc
import os
import random
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from conftest import BOTH, environ, eventually, http_scope, in_flight

pytestmark = pytest.mark.anyio

FDS = Path("/proc/self/fd") if Path("/proc/self/fd").exists() else Path("/dev/fd")


def open_fds() -> int:
    return len(os.listdir(FDS))


async def cancel_at_random(pool: Any, number: int, *, at_once: int = 50) -> None:
    """Start `number` calls of several sorts and cancel each after a random number of turns of the loop."""
    chance = random.Random(number)
    limiter = anyio.Semaphore(at_once)
    sorts = [
        lambda: pool.run_asgi(http_scope("/hello")),
        lambda: pool.run_asgi(http_scope("/echo", method="POST"), b"x" * 100),
        lambda: pool.run_asgi(http_scope("/echo", method="POST"), b"x" * 50_000),
        lambda: pool.run_asgi(http_scope("/big", query_string=b"200000")),
        lambda: pool.run_asgi(http_scope("/forever")),
        lambda: pool.run_wsgi(environ("/hello"), app="wsgi_app:app"),
        lambda: pool.call("functions:add", 1),
    ]

    async def one(sort: Any, turns: int) -> None:
        async with limiter:
            with anyio.CancelScope() as scope:

                async def end() -> None:
                    for _ in range(turns):
                        await anyio.lowlevel.checkpoint()
                    scope.cancel()

                async with anyio.create_task_group() as group:
                    group.start_soon(end)
                    await sort()

    async with anyio.create_task_group() as group:
        for _ in range(number):
            group.start_soon(one, chance.choice(sorts), chance.randrange(60))


@BOTH
async def test_cancelled_calls_leave_nothing(make_pool: Any) -> None:
    async with make_pool() as pool:
        await cancel_at_random(pool, 50)
        await eventually(lambda: in_flight(pool) == 0 and pool.stats().pending == 0)
        gc.collect()
        before = open_fds()
        await cancel_at_random(pool, 500)
        await eventually(lambda: in_flight(pool) == 0 and pool.stats().pending == 0)
        assert (await pool.run_asgi(http_scope("/echo", method="POST"), b"own")).body == b"own"
        gc.collect()
        assert open_fds() <= before
        assert pool.stats().abandoned == 0


@pytest.mark.soak
async def test_ten_thousand_cancelled_calls_leave_nothing(make_pool: Any) -> None:
    async with make_pool() as pool:
        await cancel_at_random(pool, 100)
        before = open_fds()
        await cancel_at_random(pool, 10_000)
        await eventually(lambda: in_flight(pool) == 0 and pool.stats().pending == 0)
        gc.collect()
        assert open_fds() <= before


@BOTH
async def test_the_app_is_cancelled_with_its_caller(make_pool: Any, fifo: Any) -> None:
    started, cancelled = fifo("started"), fifo("cancelled")
    async with make_pool(workers=1) as pool:
        scope = http_scope("/forever", query_string=f"started={started}&cancelled={cancelled}".encode())
        async with anyio.create_task_group() as group:
            group.start_soon(pool.run_asgi, scope)
            await started.wait()
            group.cancel_scope.cancel()
        assert await cancelled.wait() == b"."
        await eventually(lambda: in_flight(pool) == 0)


async def test_a_cancelled_calls_answer_reaches_nobody_else(make_pool: Any, fifo: Any) -> None:
    """One worker, one blocked call, whose caller leaves; its late answer must not become another's."""
    started, gate = fifo("started"), fifo("gate")
    async with make_pool(workers=1, grace=5.0) as pool:
        scope = http_scope("/block", query_string=f"started={started}&gate={gate}".encode())
        async with anyio.create_task_group() as leaving:
            leaving.start_soon(pool.run_asgi, scope)
            await started.wait()
            leaving.cancel_scope.cancel()
        answers: dict[int, bytes] = {}

        async def one(number: int) -> None:
            answers[number] = (await pool.run_asgi(http_scope("/echo", method="POST"), b"%d" % number)).body

        async with anyio.create_task_group() as group:
            for number in range(40):
                group.start_soon(one, number)
            await anyio.lowlevel.checkpoint()
            gate.release()
        assert answers == {number: b"%d" % number for number in range(40)}


async def test_what_waits_on_the_host_is_taken_out_of_the_queue(make_pool: Any, fifo: Any) -> None:
    started, gate = fifo("started"), fifo("gate")
    async with make_pool(workers=1, window=1, max_pending=10) as pool, anyio.create_task_group() as group:
        scope = http_scope("/block", query_string=f"started={started}&gate={gate}".encode())
        group.start_soon(pool.run_asgi, scope)
        await started.wait()
        for _ in range(5):
            async with anyio.create_task_group() as leaving:
                for _ in range(8):
                    leaving.start_soon(pool.run_asgi, http_scope("/hello"))
                await eventually(lambda: pool.stats().pending >= 7)
                leaving.cancel_scope.cancel()
            await eventually(lambda: pool.stats().pending == 0)
        gate.release()
