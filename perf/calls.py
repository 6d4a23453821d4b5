"""Calls a second of `run_asgi`, `run_wsgi` and `pool.call` beside the executors of the standard library.

    python -m perf.calls [--rounds 7] [--calls 4000] [--only small,cpu,large] [--isolation subinterpreter]

Everything takes its turn in every round. A figure is the median of the rounds; a ratio is the median of the ratios
within the rounds, so that what slows the machine for a while slows both sides. The executors are driven as cheaply as
it goes: raw futures, 64 in flight, no event loop. `InterpreterPoolExecutor` needs 3.14.
"""

from __future__ import annotations

import argparse
import asyncio
import concurrent.futures
import marshal
import os
import random
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable
from statistics import median
from typing import Any

from perf import MIB, ROOT, about, environ, hello_call, scope
from subpool import Pool, _interpreters

IN_FLIGHT = 64
Measure = Callable[[int], Awaitable[float]]  # a number of calls -> seconds


def pool_of(app: str, isolation: str, workers: int = 1) -> Pool:
    return Pool(f"perf:{app}", workers=workers, isolation=isolation, pythonpath=[ROOT], lifespan="off")


def awaited(call: Callable[[], Awaitable[Any]], in_flight: int = IN_FLIGHT) -> Measure:
    """`in_flight` tasks, each calling one time after another."""

    async def measure(calls: int) -> float:
        async def caller() -> None:
            for _ in range(calls // in_flight):
                await call()

        start = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(in_flight):
                group.create_task(caller())
        return time.perf_counter() - start

    return measure


def submitted(executor: concurrent.futures.Executor) -> Measure:
    """A window of `IN_FLIGHT` futures."""

    async def measure(calls: int) -> float:
        request = scope()
        start = time.perf_counter()
        futures = deque(executor.submit(hello_call, request, b"") for _ in range(IN_FLIGHT))
        for _ in range(calls - IN_FLIGHT):
            futures.popleft().result()
            futures.append(executor.submit(hello_call, request, b""))
        for future in futures:
            future.result()
        return time.perf_counter() - start

    return measure


def executors() -> dict[str, concurrent.futures.Executor]:
    """The executors that this interpreter has, one worker each, started."""
    made: dict[str, concurrent.futures.Executor] = {}
    made["ProcessPoolExecutor"] = concurrent.futures.ProcessPoolExecutor(1)
    if hasattr(concurrent.futures, "InterpreterPoolExecutor"):
        path = f"import sys; sys.path.insert(0, {ROOT!r})"
        made["InterpreterPoolExecutor"] = concurrent.futures.InterpreterPoolExecutor(
            1, initializer=exec, initargs=(path, {})
        )
    for executor in made.values():
        assert executor.submit(hello_call, scope(), b"").result()[2] == b"Hello, World!"
    return made


async def rounds(number: int, measures: dict[str, tuple[Measure, int]]) -> dict[str, list[float]]:
    """Calls a second of each, for each round, in an order that changes; a quarter as many go before, uncounted."""
    found: dict[str, list[float]] = {name: [] for name in measures}
    order = list(measures.items())
    chance = random.Random(number)
    for _ in range(number):
        chance.shuffle(order)
        for name, (measure, calls) in order:
            await measure(max(calls // 4, IN_FLIGHT))  # what ran before has cooled or heated the machine
            found[name].append(calls / await measure(calls))
    return found


def ratio(found: dict[str, list[float]], left: str, right: str, target: float | None = None) -> None:
    """Print how many times faster `left` is."""
    if left in found and right in found:
        each = sorted(a / b for a, b in zip(found[left], found[right], strict=True))
        value = median(each)
        wanted = "" if target is None else f"   wanted {target:g}: {'yes' if value >= target else 'NO'}"
        print(f"  {left} : {right} = {value:.2f}   ({each[0]:.2f} to {each[-1]:.2f}){wanted}")


async def small(args: argparse.Namespace) -> None:
    """Hello, 64 in flight, 1 worker."""
    print(f"\nHello, {IN_FLIGHT} in flight, 1 worker ({args.isolation}); calls/s, us a call")
    made = executors()
    request, env = scope(), environ()
    async with pool_of("hello", args.isolation) as pool, pool_of("wsgi", args.isolation) as wsgi:
        measures = {
            "run_asgi": (awaited(lambda: pool.run_asgi(request)), args.calls),
            "run_wsgi": (awaited(lambda: wsgi.run_wsgi(env)), args.calls),
            "pool.call": (awaited(lambda: pool.call("perf:hello_call", request, b"")), args.calls),
            "pool.call of the runner": (awaited(lambda: pool.call("perf:hello_run", request, b"")), args.calls),
            **{name: (submitted(executor), args.calls // 4) for name, executor in made.items()},
        }
        found = await rounds(args.rounds, measures)
    for executor in made.values():
        executor.shutdown()
    for name, each in found.items():
        print(f"  {name:24} {median(each):9,.0f}   {1e6 / median(each):6.1f} us")
    ratio(found, "run_asgi", "InterpreterPoolExecutor", 4)
    ratio(found, "run_asgi", "ProcessPoolExecutor", 6)
    ratio(found, "pool.call", "InterpreterPoolExecutor", 3)
    ratio(found, "run_asgi", "pool.call", 1.2)
    ratio(found, "run_asgi", "pool.call of the runner")
    ratio(found, "run_wsgi", "InterpreterPoolExecutor")


async def cpu(args: argparse.Namespace) -> None:
    """Pure-Python work on two workers and on one."""
    request = scope("/work", b"100000")
    async with pool_of("app", args.isolation) as one, pool_of("app", args.isolation, 2) as two:
        measures = {
            "2 workers": (awaited(lambda: two.run_asgi(request), 8), 160),
            "1 worker": (awaited(lambda: one.run_asgi(request), 8), 160),
        }
        found = await rounds(args.rounds, measures)
    print("\nCPU-bound handlers, 8 in flight; calls/s")
    for name, each in found.items():
        print(f"  {name:24} {median(each):9,.0f}   {1e3 / median(each):6.2f} ms")
    ratio(found, "2 workers", "1 worker", 1.8)


class Marshalled:
    """The obvious way for a large answer: inside `marshal`, through an interpreter queue, woken by a pipe."""

    def __init__(self, size: int) -> None:
        self._interpreter = _interpreters.load().create()
        self._queue = _interpreters.create_queue()
        self._asked, ask = os.pipe()
        answered, self._answer = os.pipe()
        self._ask, self._answered = ask, answered
        code = f"""if True:
            import sys; sys.path.insert(0, {ROOT!r})
            import marshal, os
            from subpool import _interpreters
            put = _interpreters.queue_calls()[0]
            body = bytes({size})
            while os.read({self._asked}, 1):
                put({self._queue}, marshal.dumps([(20, 1, 200, [], body)]))
                os.write({self._answer}, b'.')
            """
        self._thread = threading.Thread(target=self._interpreter.exec, args=(code,))
        self._thread.start()
        self._get = _interpreters.queue_calls()[1]

    async def call(self) -> None:
        os.write(self._ask, b".")
        os.read(self._answered, 1)
        marshal.loads(self._get(self._queue)[0])

    def close(self) -> None:
        os.close(self._ask)
        self._thread.join()
        for fd in (self._asked, self._answer, self._answered):
            os.close(fd)
        self._interpreter.close()
        _interpreters.destroy_queue(self._queue)


async def large(args: argparse.Namespace) -> None:
    """8 MiB answers, one at a time."""
    request, size = scope("/big", b"%d" % (8 * MIB)), 8 * MIB
    obvious = Marshalled(size)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        len(message.get("body", b""))

    async with pool_of("app", args.isolation) as pool:
        assert len((await pool.run_asgi(request)).body) == size
        measures = {
            "run_asgi": (awaited(lambda: pool.run_asgi(request), 1), 64),
            "handle_asgi": (awaited(lambda: pool.handle_asgi(request, receive, send), 1), 64),
            "inside marshal": (awaited(obvious.call, 1), 64),
            "hello": (awaited(lambda: pool.run_asgi(scope()), 1), 64),
        }
        found = await rounds(args.rounds, measures)
    obvious.close()
    print("\nAn 8 MiB answer, one at a time; calls/s (handle_asgi: as it goes to a socket; hello: the way without it)")
    for name, each in found.items():
        print(f"  {name:24} {median(each):9,.0f}   {1e3 / median(each):6.3f} ms")
    ratio(found, "run_asgi", "inside marshal", 4)
    ratio(found, "handle_asgi", "inside marshal", 4)


async def main(args: argparse.Namespace) -> None:
    print(about())
    for part in args.only.split(","):
        await {"small": small, "cpu": cpu, "large": large}[part](args)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m perf.calls")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=4096, help="in a round; the executors do a quarter")
    parser.add_argument("--only", default="small,cpu,large")
    parser.add_argument("--isolation", default="subinterpreter")
    asyncio.run(main(parser.parse_args()))
