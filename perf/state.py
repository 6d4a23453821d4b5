"""How long the functions of the shared state take in four workers at once.

Each worker calls in a loop without a pause, all of them on one key: the worst that can be. Beside it the same loop with
`nothing`, a call of an empty function: where there are more workers than CPUs, what keeps that waiting is the system,
which lets another run.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from typing import Any

WORKERS = 4
OPERATIONS = ("nothing", "get", "incr", "set", "get a list", "cached")


def calls(operation: str, count: int, begin: float) -> bytes:
    """From the moment `begin` on call so often; how long each took, in seconds. For `pool.call`."""
    from subpool import state

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


def turn(pool: Any, operation: str, counted: list[int]) -> Any:
    """A turn of `WORKERS` workers, all at once. `counted`: how many calls were made by now."""
    rate = 2000.0  # calls a second of one worker, as far as is known

    from perf.frame import percentiles

    async def one(seconds: float) -> dict[str, float]:
        nonlocal rate
        count = max(100, int(rate * seconds))
        found, rate = await one_round(pool, operation, WORKERS, count)
        rate /= WORKERS
        counted[0] += WORKERS * (count + 1)
        return {**percentiles(found), "longest": found[-1]}

    return one


async def run(session: Any) -> None:
    from perf import ROOT
    from subpool import Pool

    options = {"isolation": session.isolation, "workers": WORKERS, "window": 1, "pythonpath": [ROOT]}
    async with Pool(None, **options, timeout=None, state="memory:") as pool:
        pool.state.clear()
        pool.state.set_multi({"list": [1, "two", None], "cached": 0})
        counted = [0]
        for operation in OPERATIONS[1:]:
            await session.compare(
                operation,
                f"{operation}, {WORKERS} workers at once, all on one key, without a pause.",
                {
                    "subpool": turn(pool, operation, counted if operation == "incr" else [0]),
                    "an empty function": turn(pool, "nothing", [0]),
                },
                seconds=0.4,
            )
        if (pool.state.get("counter") or 0) != counted[0]:
            raise RuntimeError(f"increments were lost: {pool.state.get('counter')} of {counted[0]}")
