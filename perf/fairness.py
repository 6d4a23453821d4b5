"""How long small requests wait beside a caller that keeps a worker busy.

    python -m perf.fairness [--seconds 5] [--rounds 3] [--callers 16] [--burn 0.02] [--isolation subinterpreter]

Two workers. One caller asks again and again for a handler that burns 20 ms of CPU; 16 others ask for hello, one call
after another. Without take-back, what waits behind the burning handler waits with it, and the p90 is most of 20 ms.
Beside it, in turns: the same 16 callers alone.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable
from statistics import median
from typing import Any

from perf import ROOT, about, environ, scope
from subpool import Pool

Call = Callable[[], Awaitable[Any]]


async def one_round(hello: Call, burning: Call | None, callers: int, seconds: float) -> tuple[list[float], int]:
    """The latencies of hello in seconds, sorted, and how often the burning handler ran meanwhile."""
    latencies: list[float] = []
    clock = time.perf_counter
    end = clock() + seconds
    burnt = 0

    async def caller() -> None:
        while (start := clock()) < end:
            await hello()
            latencies.append(clock() - start)

    async def burner() -> None:
        nonlocal burnt
        while burning is not None and clock() < end:
            await burning()
            burnt += 1

    async with asyncio.TaskGroup() as group:
        group.create_task(burner())
        for _ in range(callers):
            group.create_task(caller())
    return sorted(latencies), burnt


async def measure(name: str, pool: Pool, hello: Call, burning: Call, args: argparse.Namespace) -> None:
    """Print percentiles in ms, the median of the rounds."""
    await one_round(hello, burning, args.callers, min(1.0, args.seconds))
    before = pool.stats().taken_back
    found: dict[str, list[tuple[float, ...]]] = {"alone": [], "beside it": []}
    for _ in range(args.rounds):
        for label, other in (("alone", None), ("beside it", burning)):
            each, burnt = await one_round(hello, other, args.callers, args.seconds)
            last = len(each) - 1
            ranks = [each[round(last * part)] * 1e3 for part in (0.5, 0.9, 0.99, 0.999)]
            found[label].append((*ranks, each[-1] * 1e3, len(each) / args.seconds, burnt / args.seconds))
    for label, rows in found.items():
        p50, p90, p99, p999, most, rate, burns = (median(column) for column in zip(*rows, strict=True))
        print(
            f"  {name:5} {label:9}  p50 {p50:6.2f}  p90 {p90:6.2f}  p99 {p99:6.2f}  p99.9 {p999:6.2f}"
            f"  max {most:6.1f} ms   {rate:7,.0f} hello/s  {burns:4.1f} burnt/s"
        )
        if label == "beside it":
            verdict = "yes" if p90 <= 3.0 and p99 <= 10.0 else "NO"
            taken = (pool.stats().taken_back - before) / (args.seconds * args.rounds)
            print(f"        wanted: p90 <= 3 ms, p99 <= 10 ms: {verdict}   taken back: {taken:,.0f}/s")


async def main(args: argparse.Namespace) -> None:
    print(f"{about()}; {args.callers} callers of hello, 1 of {args.burn * 1e3:g} ms of CPU, 2 workers")
    options = {"workers": 2, "isolation": args.isolation, "pythonpath": [ROOT], "lifespan": "off"}
    async with Pool("perf:app", **options) as pool:
        hello, burning = scope(), scope("/burn", b"%f" % args.burn)
        await measure("ASGI", pool, lambda: pool.run_asgi(hello), lambda: pool.run_asgi(burning), args)
    async with Pool("perf:wsgi", **options) as pool:
        light, heavy = environ(), environ("/burn", f"{args.burn:f}")
        await measure("WSGI", pool, lambda: pool.run_wsgi(light), lambda: pool.run_wsgi(heavy), args)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m perf.fairness")
    parser.add_argument("--seconds", type=float, default=5.0, help="of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--callers", type=int, default=16)
    parser.add_argument("--burn", type=float, default=0.02, help="seconds of CPU")
    parser.add_argument("--isolation", default="subinterpreter")
    asyncio.run(main(parser.parse_args()))
