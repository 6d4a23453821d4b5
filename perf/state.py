"""How long the functions of the shared state take in four workers at once.

    python -m perf.state [--isolation subinterpreter] [--workers 4] [--calls 20000] [--rounds 3] [--store memory:]

Each worker calls in a loop without a pause, all of them on one key: the worst that can be. Beside it the same loop with
`nothing`, a call of an empty function: where there are more workers than CPUs, what keeps that waiting is the system,
which lets another run. `--store redis://127.0.0.1:6379/0` measures another store (it is cleared).
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from array import array
from statistics import median
from typing import Any

if __name__ != "__main__":  # in workers
    from subpool import state

OPERATIONS = ("nothing", "get", "incr", "set", "get a list", "cached")


def calls(operation: str, count: int, begin: float) -> bytes:
    """From the moment `begin` on call so often; how long each took, in seconds. For `pool.call`."""
    run: Any = {
        "nothing": lambda: None,
        "get": lambda: state.get("counter"),
        "incr": lambda: state.incr("counter"),
        "set": lambda: state.set("text", "some text"),
        "get a list": lambda: state.get("list"),
        "cached": lambda: state.cached(len, key="cached"),
    }[operation]
    run()
    clock = time.perf_counter
    found = array("d", bytes(8 * count))
    while time.monotonic() < begin:
        pass
    for at in range(count):
        start = clock()
        run()
        found[at] = clock() - start
    return found.tobytes()


async def one_round(pool: Any, operation: str, workers: int, count: int) -> tuple[list[float], float]:
    """All latencies, sorted, and calls a second."""
    begin = time.monotonic() + 0.2
    found = array("d")
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(pool.call("perf.state:calls", operation, count, begin)) for _ in range(workers)]
    for task in tasks:
        found.frombytes(task.result())
    return sorted(found), workers * count / (time.monotonic() - begin)


async def main(args: argparse.Namespace) -> None:
    from perf import ROOT, about
    from subpool import Pool

    print(about())
    options = {"isolation": args.isolation, "workers": args.workers, "window": 1, "pythonpath": [ROOT]}
    async with Pool(None, **options, timeout=None, state=args.store) as pool:
        pool.state.clear()
        pool.state.set_multi({"list": [1, "two", None], "cached": 0})
        print(f"{args.workers} {pool.isolation} workers, {args.store}, {args.calls} calls each, in us")
        print(f"  {'':12}{'median':>9}{'p99':>10}{'p99.9':>10}{'longest':>10}{'calls/s':>12}")
        for operation in OPERATIONS:
            rounds = [await one_round(pool, operation, args.workers, args.calls) for _ in range(args.rounds)]
            size = len(rounds[0][0])
            row = [median(found[int(size * at)] for found, _ in rounds) for at in (0.5, 0.99, 0.999)]
            row.append(max(found[-1] for found, _ in rounds))
            rate = median(rate for _, rate in rounds)
            tail = "".join(f"{one * 1e6:10.0f}" for one in row[1:])
            print(f"  {operation:12}{row[0] * 1e6:9.1f}{tail}{rate:12,.0f}")
        counted = pool.state.get("counter")
    exact = args.rounds * args.workers * (args.calls + 1)
    print(f"counted {counted:,} of {exact:,}")
    if counted != exact:
        sys.exit("increments were lost")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m perf.state")
    parser.add_argument("--isolation", default="subinterpreter")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--store", default="memory:")
    asyncio.run(main(parser.parse_args()))
