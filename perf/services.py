"""A call from a worker to a function of the host, an item of a stream, a message from the host to a worker.

One after another, from one worker, each timed by itself where it was asked for. `subpool`: a function on the host's
loop, which is the floor of it; beside it the same in the helper process. A message is timed from `pool.publish` to its
subscriber, by the clock that both have (`time.monotonic`).
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perf.frame import Session

WAYS = {
    "subpool": ("awaiting", "inline"),
    "an async function": ("awaiting", "async"),
    "the thread waits": ("blocking", "inline"),
    "in the helper": ("awaiting", "helper"),
    "in the helper, the thread waits": ("blocking", "helper"),
}


def same(value: int) -> int:
    """A trivial function of the host."""
    return value


async def asame(value: int) -> int:
    return value


def count(stop: int) -> Any:
    yield from range(stop)


# What runs in the worker


def blocking(function: str, calls: int) -> list[float]:
    from subpool import call

    times, clock = [], time.perf_counter
    for number in range(calls):
        start = clock()
        call(function, number)
        times.append(clock() - start)
    return times


async def awaiting(function: str, calls: int) -> list[float]:
    from subpool import acall

    times, clock = [], time.perf_counter
    for number in range(calls):
        start = clock()
        await acall(function, number)
        times.append(clock() - start)
    return times


def streaming(function: str, calls: int) -> float:
    from subpool import stream

    start = time.perf_counter()
    if sum(1 for _ in stream(function, calls)) != calls:
        raise RuntimeError("items were lost")
    return time.perf_counter() - start


async def hearing(topic: str, calls: int) -> list[float]:
    from subpool import pubsub

    times: list[float] = []
    async with pubsub.subscribe(topic) as messages:
        await pubsub.apublish(f"{topic}?", "ready")
        async for sent in messages:
            times.append(time.monotonic() - sent)
            if len(times) == calls:
                break
    return times


async def publishing(topic: str, calls: int) -> list[float]:
    from subpool import pubsub

    times, clock = [], time.perf_counter
    for number in range(calls):
        start = clock()
        await pubsub.apublish(topic, number)
        times.append(clock() - start)
    return times


# What is measured


def timed(pool: Any, way: str, name: str) -> Any:
    """A turn of calls; a call takes about 100 us."""
    from perf.frame import percentiles

    async def turn(seconds: float) -> dict[str, float]:
        return percentiles(await pool.call(f"perf.services:{way}", name, max(50, int(seconds * 10_000))))

    return turn


def streamed(pool: Any, name: str) -> Any:
    from perf.frame import counted

    async def measure(number: int) -> float:
        return float(await pool.call("perf.services:streaming", name, number))

    return counted(measure, 16)


def published(pool: Any) -> Any:
    """A turn of messages, one in a millisecond: no queue is measured."""
    from perf.frame import percentiles

    async def turn(seconds: float) -> dict[str, float]:
        calls = max(50, int(seconds * 1000))
        async with pool.subscribe("ping?") as ready:
            heard = asyncio.create_task(pool.call("perf.services:hearing", "ping", calls))
            await anext(ready)
            for _ in range(calls):
                pool.publish("ping", time.monotonic())
                await asyncio.sleep(0.001)
            return percentiles(await heard)

    return turn


async def run(session: Session) -> None:
    from perf import ROOT
    from perf.computing import hello_beside
    from subpool import Pool

    pool = Pool(None, workers=1, isolation=session.isolation, pythonpath=[ROOT], timeout=None)
    pool.register("inline", same, inline=True)
    pool.register("async", "perf.services:asame")
    pool.register("helper", "perf.services:same")
    pool.register("count", "perf.services:count")
    pool.register("icount", count, inline=True)
    async with pool:
        for name in ("async", "helper"):
            await pool.invoke(name, 0)
        turns = {contestant: timed(pool, way, name) for contestant, (way, name) in WAYS.items()}
        await session.compare("call", "A call from a worker to a trivial function of the host.", turns)
        turns = {"subpool": streamed(pool, "icount"), "in the helper": streamed(pool, "count")}
        await session.compare("stream", "An item of a stream, in a worker.", turns)
        turns = {"subpool": published(pool), "publish from a worker": timed(pool, "publishing", "nobody")}
        await session.compare("publish", "A message from the host to a worker; beside it, publish() itself.", turns)
    await hello_beside(session)
