"""What a pool leaves behind: after bursts of lent buffers, calls cancelled at random, recycles.

Memory is the resident memory of this process. Everything is done once before the first figure, so that growth is what
comes on top of what the allocator keeps for itself anyway. Nothing here takes turns: the figures before and after
belong to one process. What is still held when a part is over is an error. `tests/test_soak.py` holds the outcomes of
the same functions.
"""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio

from perf import KIB, environ, fds, rss, scope
from perf.calls import pool_of
from perf.frame import Session
from subpool import Pool, SubpoolError

SIZE = 200 * KIB


async def burst(pool: Pool, number: int, size: int = SIZE) -> None:
    """`number` answers of `size` bytes asked for at once, then as many requests with a body of that size."""
    answer, length = scope("/new", b"%d" % size), scope("/length")
    body = bytes(size)

    async def download() -> None:
        assert len((await pool.run_asgi(answer)).body) == size

    async def upload() -> None:
        assert (await pool.run_asgi(length, body)).body == b"%d" % size

    for one in (download, upload):
        async with anyio.create_task_group() as group:
            for _ in range(number):
                group.start_soon(one)


async def slow_readers(pool: Pool, number: int, size: int = SIZE) -> int:
    """Close `pool` while `number` readers of streams hold lent pieces; how many pieces they still got."""
    holding, pieces = 0, 0
    enough, closed = anyio.Event(), anyio.Event()

    async def reader() -> None:
        nonlocal holding, pieces
        with suppress(SubpoolError):
            async with pool.stream_asgi(scope("/stream", b"%d" % size)) as answer:
                kept = []
                async for piece in answer:
                    kept.append(piece)
                    if len(kept) == 1:
                        holding += 1
                        if holding == number:
                            enough.set()
                        await closed.wait()
                    pieces += 1
                    assert len(bytes(kept[0])) == size  # what was read stays readable

    async with anyio.create_task_group() as group:
        for _ in range(number):
            group.start_soon(reader)
        await enough.wait()
        await pool.close(0.0)
        closed.set()
    return pieces


async def cancels(pool: Pool, number: int, seed: int = 1, callers: int = 24) -> int:
    """Calls of all kinds, each cancelled after a random while, until `number` were; how many ended before."""
    choose = random.Random(seed)
    cancelled = ended = 0
    body = bytes(100 * KIB)

    async def stream() -> None:
        async with pool.stream_asgi(scope("/stream", b"%d" % (40 * KIB)), body) as answer:
            async for _ in answer:
                pass

    kinds: list[Callable[[], Awaitable[Any]]] = [
        lambda: pool.run_asgi(scope()),
        lambda: pool.run_asgi(scope("/sleep", b"0.01")),
        lambda: pool.run_asgi(scope("/burn", b"0.001")),
        lambda: pool.run_asgi(scope("/new", b"100000")),
        lambda: pool.run_asgi(scope("/length"), body),
        lambda: pool.run_wsgi(environ(), app="perf:wsgi"),
        lambda: pool.run_wsgi(environ("/big", "100000"), app="perf:wsgi"),
        lambda: pool.run_wsgi(environ("/burn", "0.001"), app="perf:wsgi"),
        lambda: pool.call("perf:count", 10_000),
        stream,
    ]

    async def caller() -> None:
        nonlocal cancelled, ended
        while cancelled < number:
            with anyio.move_on_after(choose.random() ** 2 * 0.03) as limit:
                await choose.choice(kinds)()
            if limit.cancelled_caught:
                cancelled += 1
            else:
                ended += 1

    async with anyio.create_task_group() as group:
        for _ in range(callers):
            group.start_soon(caller)
    return ended


def held(pool: Pool) -> dict[str, int]:
    """What the host's side of the pool holds; every figure is 0 when nothing is under way."""
    engine = pool._engine
    assert engine is not None
    members = engine.crew.members
    return {
        "pending": len(engine.router.pending),
        "deadlines": len(engine.clock),
        "lent by the host": engine.lent,
        "in flight": sum(member.in_flight for member in members),
        "waiting": sum(member.waiting for member in members),
        "calls": sum(len(member.calls) for member in members),
        "given up": sum(len(member.overdue) for member in members),
        "lenders": sum(len(member.lenders) for member in members),
        "unsent": sum(member.link.unsent() for member in members),
        "credits": sum(member.link._returned for member in members),
    }


async def settled(pool: Pool, seconds: float = 10.0) -> dict[str, int]:
    """What host and workers hold after at most `seconds`; empty if nothing. Cancelled calls need a while to end."""
    end = time.monotonic() + seconds
    while True:
        found = {name: value for name, value in held(pool).items() if value}
        if not found:
            for _ in range(4 * len(pool.stats().workers)):  # all workers, however the calls fall
                for name, value in (await pool.call("perf:leftovers")).items():
                    if value and not (name == "tasks" and value == 1):
                        found[f"{name} in a worker"] = value
        if not found or time.monotonic() > end:
            return found
        await anyio.sleep(0.02)


async def recycles(pool: Pool, number: int, each: Callable[[int], None] = lambda count: None) -> None:
    """Replace every worker `number` times, a call between; `each` is told how often by now."""
    for count in range(1, number + 1):
        await pool.recycle()
        assert (await pool.run_asgi(scope())).status == 200
        each(count)


def memory() -> float:
    gc.collect()
    return rss()


async def run(session: Session) -> None:
    share = session.effort.share
    parts = {"bursts": bursts, "cancels": cancelled, "recycles": renewed}
    for name, part in parts.items():
        if session.wanted(name):
            await part(session, share)


async def clean(pool: Pool, descriptors: int) -> None:
    """Raise if the pool still holds something, or if descriptors were left open."""
    left = await settled(pool)
    if left or fds() > descriptors:
        raise RuntimeError(f"still held: {left or 'nothing'}, descriptors {fds() - descriptors:+d}")


async def bursts(session: Session, share: float) -> None:
    number = max(200, int(2000 * share))
    case = session.case("bursts", f"{number} answers and {number} requests of {SIZE // KIB} KiB, all at once.")
    async with pool_of(session, "app", 2, max_pending=10 * number + 1024, timeout=60.0) as pool:
        await burst(pool, number)
        open_fds = fds()
        case.add("before", "rss", 0, memory())
        for turn in range(session.effort.of(5)):
            start = time.perf_counter()
            await burst(pool, number)
            case.add("after", "time", turn, (time.perf_counter() - start) / number / 2)
        case.add("after", "rss", 0, memory())
        await clean(pool, open_fds)


async def cancelled(session: Session, share: float) -> None:
    number = max(500, int(10_000 * share))
    case = session.case("cancels", f"{number} calls of ten kinds cancelled after a random while; 2 workers.")
    async with pool_of(session, "app", 2, timeout=60.0) as pool:
        await cancels(pool, 500)
        await settled(pool)
        open_fds = fds()
        case.add("before", "rss", 0, memory())
        start = time.perf_counter()
        ended = await cancels(pool, number)
        case.add("after", "time", 0, (time.perf_counter() - start) / (number + ended))
        await clean(pool, open_fds)
        case.add("after", "rss", 0, memory())


async def renewed(session: Session, share: float) -> None:
    number = max(20, int(1000 * share))
    case = session.case("recycles", f"{number} recycles with a call between; 1 worker.")
    case.note = "3.13 never gives an interpreter's memory back; there a sub-interpreter is reset in place."
    async with pool_of(session, "app", 1, timeout=60.0) as pool:
        await recycles(pool, 10)
        case.add("before", "rss", 0, memory())
        start = time.perf_counter()
        await recycles(pool, number)
        case.add("after", "time", 0, (time.perf_counter() - start) / number)
        case.add("after", "rss", 0, memory())
        await settled(pool)
