"""What a pool leaves behind: after bursts of lent buffers, calls cancelled at random, recycles.

    python -m perf.loans [--loans 2000] [--bursts 5] [--cancels 10000] [--recycles 1000] [--isolation subinterpreter]

0 leaves a part out. Memory is this process's resident memory, in MB of 10^6 bytes; a burst is made once before the
first figure, so that growth is what comes on top of what the allocator keeps for itself anyway.
`tests/test_soak.py` holds the outcomes of the same functions.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio

from perf import KIB, ROOT, about, environ, fds, rss, scope
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
    return rss() / 1e6


async def main(args: argparse.Namespace) -> None:
    print(about())

    def pool(workers: int = 2, **options: Any) -> Pool:
        options = {"isolation": args.isolation, "pythonpath": [ROOT], "lifespan": "off", **options}
        return Pool("perf:app", workers=workers, max_pending=10 * args.loans + 1024, timeout=60.0, **options)

    if args.loans:
        print(f"\nBursts of {args.loans} answers and {args.loans} requests of {SIZE // KIB} KiB, all at once")
        async with pool() as one:
            before, open_fds = memory(), fds()
            for turn in range(args.bursts + 1):
                start = time.perf_counter()
                await burst(one, args.loans)
                seconds = time.perf_counter() - start
                print(f"  burst {turn}: {seconds:5.2f} s, RSS {before:.1f} MB before all, {memory():.1f} MB now")
            print(f"  held: {await settled(one) or 'nothing'}; fds {fds() - open_fds:+d}")
        print(f"  after the close: RSS {memory():.1f} MB")
        for _ in range(3):
            other = pool()
            async with other:
                start = time.perf_counter()
                pieces = await slow_readers(other, 40)
                seconds = time.perf_counter() - start
            print(f"  closed under 40 slow readers: {seconds:.2f} s, {pieces} pieces read, RSS {memory():.1f} MB")

    if args.cancels:
        print(f"\n{args.cancels} calls cancelled at random")
        async with pool() as one:
            await cancels(one, 200)
            await settled(one)
            before, open_fds = memory(), fds()
            start = time.perf_counter()
            ended = await cancels(one, args.cancels)
            seconds = time.perf_counter() - start
            left = await settled(one)
            print(f"  {seconds:.1f} s, {ended} others ended by themselves; RSS {before:.1f} -> {memory():.1f} MB")
            stats = one.stats()
            print(f"  held: {left or 'nothing'}; fds {fds() - open_fds:+d}; abandoned {stats.abandoned}")
            print(f"  restarts {[worker.restarts for worker in stats.workers]}, taken back {stats.taken_back}")

    if args.recycles:
        print(f"\n{args.recycles} recycles, 1 worker")
        async with pool(1) as one:
            await recycles(one, 10)
            before, open_fds = memory(), fds()
            start = time.perf_counter()

            def report(count: int) -> None:
                if count % max(args.recycles // 10, 1) == 0:
                    each = (time.perf_counter() - start) / count
                    now = memory()
                    print(f"  {count:5}: RSS {before:.1f} -> {now:.1f} MB, {each * 1e3:.0f} ms each", flush=True)

            await recycles(one, args.recycles, report)
            growth = memory() - before
            print(f"  growth {growth:.1f} MB, wanted on 3.14 after 1000: < 20; fds {fds() - open_fds:+d}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m perf.loans")
    parser.add_argument("--loans", type=int, default=2000)
    parser.add_argument("--bursts", type=int, default=5)
    parser.add_argument("--cancels", type=int, default=10_000)
    parser.add_argument("--recycles", type=int, default=1000)
    parser.add_argument("--isolation", default="subinterpreter")
    asyncio.run(main(parser.parse_args()))
