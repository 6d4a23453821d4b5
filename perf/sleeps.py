"""Handlers that sleep for milliseconds, on asyncio's selector and on ours, with `asyncio.sleep` and with `aio.sleep`.

    python -m perf.sleeps [--seconds 0.5] [--rounds 3] [--workers 2] [--only errors,many]

errors   by how much sleeps in a worker are too long, alone and beside 16 callers of hello
many     sleeps of 1 ms a second, and the CPU of one, of 16, 64 and 512 tasks on one loop
calls    calls of `run_asgi` a second, and microseconds of CPU that one cost the process (host and workers)
served   the same through `subpool serve`, with wrk (one thread)
idle     hello beside 1,000 timers of 30 s in each worker: what who never sleeps briefly pays
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from statistics import median
from typing import Any, NamedTuple

from perf import ROOT, about, scope, servers

DELAYS = (1, 2, 5, 10)  # ms
CLIENTS = (16, 64)


class Side(NamedTuple):
    """One of those that are compared."""

    name: str
    path: str
    preload: tuple[str, ...]


SIDES = (
    Side("stock, asyncio.sleep", "/sleep", ("perf.stock_loop",)),
    Side("ours, asyncio.sleep", "/sleep", ()),
    Side("ours, aio.sleep", "/aio", ()),
)


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


def pool_of(side: Side, args: argparse.Namespace, workers: int) -> Any:
    from subpool import Pool

    return Pool("perf.sleeps:app", workers=workers, isolation=args.isolation, pythonpath=[ROOT], lifespan="off",
                preload=side.preload)  # fmt: skip


async def load(pool: Any, request: dict[str, Any], clients: int, seconds: float) -> tuple[float, float]:
    """Calls a second, and microseconds of CPU of this process for each."""
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
    return done / (clock() - start), (time.process_time() - used) / done * 1e6


def table(found: dict[tuple[str, ...], list[tuple[float, float]]]) -> None:
    """Medians; ratios are the medians of those within the rounds, to the first side."""
    for key, rows in found.items():
        first = found[(SIDES[0].name, *key[1:])]
        rate, cpu = (median(column) for column in zip(*rows, strict=True))
        times = median(mine[0] / theirs[0] for mine, theirs in zip(rows, first, strict=True))
        spent = median(mine[1] / theirs[1] for mine, theirs in zip(rows, first, strict=True))
        print(f"  {' '.join(key[1:]):20} {key[0]:21} {rate:8,.0f}/s x{times:.2f}   {cpu:6.1f} us CPU x{spent:.2f}")


async def measure_errors(args: argparse.Namespace) -> None:
    print("errors of 1 ms, in a worker")
    async with AsyncExitStack() as stack:
        pools = [await stack.enter_async_context(pool_of(side, args, 1)) for side in SIDES]
        found: dict[tuple[str, str], list[float]] = {}
        for turn in range(args.rounds + 1):
            for where in ("alone", "beside hello"):
                for side, pool in zip(SIDES, pools, strict=True):
                    over = asyncio.Event()

                    async def hello(pool: Any = pool, over: asyncio.Event = over) -> None:
                        while not over.is_set():
                            await pool.run_asgi(scope())
                            await asyncio.sleep(0.002)

                    others = [asyncio.create_task(hello()) for _ in range(16 if where != "alone" else 0)]
                    answer = await pool.run_asgi(scope("/errors", side.path.encode()))
                    over.set()
                    await asyncio.gather(*others)
                    if turn:
                        found.setdefault((where, side.name), []).extend(map(float, answer.body.split()))
        for (where, name), each in found.items():
            each.sort()
            print(f"  {where:20} {name:21} median {median(each):5.0f} us   p99 {each[len(each) * 99 // 100]:5.0f}"
                  f"   least {each[0]:4.1f}")  # fmt: skip


def measure_many(args: argparse.Namespace) -> None:
    from subpool import aio
    from subpool.timed_loop import Loop

    async def tasks(sleep: Callable[[float], Awaitable[object]], count: int) -> tuple[float, float]:
        clock, done = time.perf_counter, 0
        end = clock() + args.seconds

        async def task() -> None:
            nonlocal done
            while clock() < end:
                await sleep(0.001)
                done += 1

        start, used = clock(), time.thread_time()
        await asyncio.gather(*(task() for _ in range(count)))
        return done / (clock() - start), (time.thread_time() - used) / done * 1e6

    print("tasks that sleep 1 ms again and again, on one loop")
    found: dict[tuple[str, ...], list[tuple[float, float]]] = {}
    for _ in range(args.rounds):
        for count in (16, 64, 512):
            for side in SIDES:
                factory = asyncio.SelectorEventLoop if side.preload else Loop
                with asyncio.Runner(loop_factory=factory) as runner:
                    row = runner.run(tasks(aio.sleep if side.path == "/aio" else asyncio.sleep, count))
                found.setdefault((side.name, f"{count} tasks"), []).append(row)
    table(found)


async def measure_calls(args: argparse.Namespace) -> None:
    print(f"run_asgi, {args.workers} workers")
    found: dict[tuple[str, ...], list[tuple[float, float]]] = {}
    async with AsyncExitStack() as stack:
        pools = [await stack.enter_async_context(pool_of(side, args, args.workers)) for side in SIDES]
        for turn in range(args.rounds + 1):
            for delay in DELAYS:
                for clients in CLIENTS:
                    for side, pool in zip(SIDES, pools, strict=True):
                        request = scope(side.path, b"%g" % (delay / 1000))
                        row = await load(pool, request, clients, args.seconds if turn else 0.1)
                        if turn:
                            found.setdefault((side.name, f"{delay} ms, {clients} clients"), []).append(row)
    table(found)


async def measure_idle(args: argparse.Namespace) -> None:
    print(f"hello beside 1,000 timers of 30 s, {args.workers} workers")
    found: dict[tuple[str, ...], list[tuple[float, float]]] = {}
    sides = SIDES[:2]
    async with AsyncExitStack() as stack:
        pools = [await stack.enter_async_context(pool_of(side, args, args.workers)) for side in sides]
        for pool in pools:
            await asyncio.gather(*(pool.run_asgi(scope("/timers", b"100")) for _ in range(10 * args.workers)))
        for turn in range(2 * args.rounds + 1):
            for side, pool in zip(sides, pools, strict=True):
                for clients in (4, 64):
                    row = await load(pool, scope(), clients, 2 * args.seconds if turn else 0.1)
                    if turn:
                        found.setdefault((side.name, f"{clients} clients"), []).append(row)
    table(found)


def measure_served(args: argparse.Namespace) -> None:
    if shutil.which("wrk") is None:
        print("served: needs wrk (Debian: apt install wrk)")
        return
    print(f"subpool serve, {args.workers} workers, wrk")
    environment = {**os.environ, "PYTHONPATH": ROOT}
    environment.pop("PYTHONUNBUFFERED", None)
    found: dict[tuple[str, ...], list[tuple[float, float]]] = {}
    running: list[tuple[Side, subprocess.Popen[bytes], int]] = []
    try:
        for side in SIDES:
            port = servers.free_port()
            line = servers.command("subpool", "perf.sleeps:app", port, args.workers, wsgi=False)
            line += ["--isolation", args.isolation, *(word for one in side.preload for word in ("--preload", one))]
            running.append((side, subprocess.Popen(line, env=environment), port))
            if not servers.answers(port):
                sys.exit(f"it did not start: {' '.join(line)}")
        for turn in range(args.rounds + 1):
            for delay in DELAYS:
                for clients in CLIENTS:
                    for side, process, port in running:
                        path = f"{side.path}?{delay / 1000:g}"
                        if turn or (delay, clients) == (DELAYS[0], CLIENTS[0]):
                            one = servers.load(port, path, 1, process.pid, clients)
                            if one.failed:
                                sys.exit(f"requests of {path} failed")
                            if turn:
                                key = (side.name, f"{delay} ms, {clients} clients")
                                found.setdefault(key, []).append((one.requests, one.cpu))
    finally:
        for _, process, _ in running:
            process.terminate()
        for _, process, _ in running:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
    table(found)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m perf.sleeps", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--isolation", default="subinterpreter", choices=["subinterpreter", "thread", "process"])
    parser.add_argument("--only", default="errors,many,calls,idle,served")
    args = parser.parse_args()
    print(about())
    wanted = args.only.split(",")
    if "errors" in wanted:
        asyncio.run(measure_errors(args))
    if "many" in wanted:
        measure_many(args)
    if "calls" in wanted:
        asyncio.run(measure_calls(args))
    if "idle" in wanted:
        asyncio.run(measure_idle(args))
    if "served" in wanted:
        measure_served(args)


if __name__ == "__main__":
    main()
