"""Handlers that sleep for milliseconds: on asyncio's selector ("before") and on ours ("after"), and with `aio.sleep`.

By how much sleeps in a worker are too long, alone and beside 16 callers of hello; tasks that sleep on one loop; calls
of a pool and requests through a server whose handlers sleep; and hello beside 1,000 timers of 30 s in each worker:
what those pay who never sleep briefly. Linux alone has a selector of ours.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from statistics import median
from typing import Any, NamedTuple

from perf import ROOT, scope


class Side(NamedTuple):
    """One of those that are compared."""

    path: str
    preload: tuple[str, ...]


SIDES = {
    "after": Side("/sleep", ()),
    "before": Side("/sleep", ("perf.off.timed_loop",)),
    "aio.sleep": Side("/aio", ()),
}


# What workers run


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """`/hello`, `/sleep?seconds`, `/aio?seconds`, `/errors?name` (of 300 sleeps, in microseconds), `/timers?count`."""
    path, body = scope["path"], b"done"
    if path == "/sleep":
        await asyncio.sleep(float(scope["query_string"]))
    elif path == "/aio":
        from subpool import aio

        await aio.sleep(float(scope["query_string"]))
    elif path == "/errors":
        body = b" ".join([b"%.1f" % late for late in await errors(scope["query_string"].decode())])
    elif path == "/timers":
        loop = asyncio.get_running_loop()
        for number in range(int(scope["query_string"])):
            loop.call_later(30 + number / 100, int)
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def errors(name: str) -> list[float]:
    from subpool import aio

    sleep: Callable[[float], Awaitable[object]] = aio.sleep if name == "/aio" else asyncio.sleep
    found, clock = [], time.perf_counter
    for _ in range(300):
        start = clock()
        await sleep(0.001)
        found.append((clock() - start - 0.001) * 1e6)
    return found


# What is measured


def pool_of(session: Any, side: Side, workers: int) -> Any:
    from subpool import Pool

    return Pool(
        "perf.sleeps:app", workers=workers, isolation=session.isolation, pythonpath=[ROOT], lifespan="off",
        preload=side.preload,
    )  # fmt: skip


@asynccontextmanager
async def pools(session: Any, workers: int, names: tuple[str, ...] = tuple(SIDES)) -> AsyncIterator[dict[str, Any]]:
    from contextlib import AsyncExitStack

    async with AsyncExitStack() as stack:
        yield {name: await stack.enter_async_context(pool_of(session, SIDES[name], workers)) for name in names}


def calling(pool: Any, request: dict[str, Any], clients: int) -> Any:
    """A turn of that many callers: seconds by the clock, and of CPU of this process, workers and all."""

    async def turn(seconds: float) -> dict[str, float]:
        clock, done = time.perf_counter, 0
        end = clock() + seconds

        async def client() -> None:
            nonlocal done
            while clock() < end:
                await pool.run_asgi(request)
                done += 1

        start, used = clock(), time.process_time()
        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(client())
        return {"time": (clock() - start) / done, "cpu": (time.process_time() - used) / done}

    return turn


def erring(pool: Any, side: Side, callers: int) -> Any:
    """A turn of 300 sleeps of 1 ms in a worker, with callers of hello beside it."""

    async def turn(seconds: float) -> dict[str, float]:
        over = asyncio.Event()

        async def hello() -> None:
            while not over.is_set():
                await pool.run_asgi(scope())
                await asyncio.sleep(0.002)

        async with asyncio.TaskGroup() as group:
            for _ in range(callers):
                group.create_task(hello())
            try:
                answer = await pool.run_asgi(scope("/errors", side.path.encode()))
            finally:
                over.set()
        each = sorted(float(one) / 1e6 for one in answer.body.split())
        return {"error": max(0.0, median(each)), "p99 of it": max(0.0, each[len(each) * 99 // 100])}

    return turn


def sleeping(side: Side, count: int) -> Any:
    """A turn of tasks that sleep 1 ms again and again, on a loop of their own."""
    from subpool import aio
    from subpool.timed_loop import Loop

    sleep: Callable[[float], Awaitable[object]] = aio.sleep if side.path == "/aio" else asyncio.sleep
    factory = asyncio.SelectorEventLoop if side.preload else Loop

    async def tasks(seconds: float) -> dict[str, float]:
        clock, done = time.perf_counter, 0
        end = clock() + seconds

        async def task() -> None:
            nonlocal done
            while clock() < end:
                await sleep(0.001)
                done += 1

        start, used = clock(), time.thread_time()
        await asyncio.gather(*(task() for _ in range(count)))
        return {"time": (clock() - start) / done, "cpu": (time.thread_time() - used) / done}

    def run(seconds: float) -> dict[str, float]:
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(tasks(seconds))

    async def turn(seconds: float) -> dict[str, float]:
        return await asyncio.to_thread(run, seconds)

    return turn


async def run(session: Any) -> None:
    from perf.frame import Left

    if sys.platform != "linux":
        raise Left("the workers' loop is asyncio's own but on Linux")
    await one_worker(session)
    for count in (16, 512):
        title = f"{count} tasks that sleep 1 ms again and again, on one loop: what a sleep costs."
        turns = {name: sleeping(side, count) for name, side in SIDES.items()}
        await session.compare(f"{count} tasks", title, turns, seconds=0.4, rounds=3)
    async with pools(session, session.workers) as made:
        for delay in (1, 10):
            turns = {
                name: calling(pool, scope(SIDES[name].path, b"%g" % (delay / 1000)), 64) for name, pool in made.items()
            }
            title = f"run_asgi of a handler that sleeps {delay} ms, 64 in flight, {session.workers} workers."
            await session.compare(f"calls of {delay} ms", title, turns, seconds=0.4, rounds=3)
    async with pools(session, session.workers, ("after", "before")) as made:
        for pool in made.values():
            asked = (pool.run_asgi(scope("/timers", b"100")) for _ in range(10 * session.workers))
            await asyncio.gather(*asked)
        turns = {name: calling(pool, scope(), 64) for name, pool in made.items()}
        title = f"Hello beside 1,000 timers of 30 s, 64 in flight, {session.workers} workers."
        await session.compare("hello beside timers", title, turns, seconds=0.4)
    await served(session)


async def one_worker(session: Any) -> None:
    """By how much sleeps are too long. The first case is that of the promise."""
    async with pools(session, 1) as made:
        for name, callers in (("asyncio.sleep(0.001)", 0), ("asyncio.sleep(0.001) beside hello", 16)):
            turns = {one: erring(pool, SIDES[one], callers) for one, pool in made.items()}
            title = "By how much 300 sleeps of 1 ms in a worker are too long, in the middle"
            title += f", beside {callers} callers of hello." if callers else "."
            await session.compare(name, title, turns, warm=False)


async def served(session: Any) -> None:
    from perf.load import wrk
    from perf.machine import without
    from perf.peers import Peer
    from perf.servers import compare, serving

    if not session.wanted("served") or without("wrk", "wrk"):
        return
    peers = {
        name: Peer(
            "subpool", app="perf.sleeps:app", workers=session.workers, isolation=session.isolation,
            options=tuple(word for one in side.preload for word in ("--preload", one)),
        )
        for name, side in SIDES.items()
    }  # fmt: skip

    async def load(delay: int, server: Any, seconds: float) -> dict[str, Any]:
        path = "/aio" if server is servers.get("aio.sleep") else "/sleep"
        return await wrk(server, f"{path}?{delay / 1000:g}", seconds)

    async with serving(session, peers) as (servers, left):
        for delay in (1, 10):
            title = f"A handler that sleeps {delay} ms, through subpool serve, {session.workers} workers."
            await compare(session, f"served, {delay} ms", title, servers, left, partial(load, delay))
