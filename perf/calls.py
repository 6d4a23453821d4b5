"""Calls of a pool: run_asgi, run_wsgi and pool.call beside the executors that Python has, and beside no pool at all.

64 in flight, 1 worker. The executors are driven as cheaply as it goes: raw futures, a window of 64, no event loop;
ours are awaited on asyncio, and so is `anyio.to_interpreter`. `pool.call` runs `perf:hello_call`, which drives the
app with a `receive` and a `send` that check nothing; "pool.call of the runner" runs the default runner, so that both
sides do the same work for the app. "direct" is the runner in this thread: what is left when nothing is crossed.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import marshal
import os
import threading
import time
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import runners.asgi
import runners.wsgi
from perf import MIB, ROOT, environ, hello, hello_call, scope, wsgi
from perf.frame import Session, Turn, awaited, counted, loop
from subpool import Pool, _interpreters

IN_FLIGHT = 64


def pool_of(session: Session, app: str, workers: int = 1, **options: Any) -> Pool:
    """A pool of an app of perf/__init__.py."""
    options = {"isolation": session.isolation, "pythonpath": [ROOT], "lifespan": "off", **options}
    return Pool(f"perf:{app}", workers=workers, **options)


def submitted(executor: concurrent.futures.Executor) -> Turn:
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

    return counted(measure, IN_FLIGHT)


@contextlib.asynccontextmanager
async def executors() -> AsyncIterator[tuple[dict[str, Turn], dict[str, str]]]:
    """The executors that this interpreter has, one worker each, started; and why some are not there."""
    made: dict[str, concurrent.futures.Executor] = {"ThreadPoolExecutor": concurrent.futures.ThreadPoolExecutor(1)}
    left = {}
    made["ProcessPoolExecutor"] = concurrent.futures.ProcessPoolExecutor(1)
    if hasattr(concurrent.futures, "InterpreterPoolExecutor"):
        path = f"import sys; sys.path.insert(0, {ROOT!r})"
        made["InterpreterPoolExecutor"] = concurrent.futures.InterpreterPoolExecutor(
            1, initializer=exec, initargs=(path, {})
        )
    else:
        left["InterpreterPoolExecutor"] = "Python has it from 3.14 on"
    try:
        for executor in made.values():
            assert executor.submit(hello_call, scope(), b"").result(30)[2] == b"Hello, World!"
        yield {name: submitted(executor) for name, executor in made.items()}, left
    finally:
        for executor in made.values():
            executor.shutdown(wait=True, cancel_futures=True)


def to_interpreter() -> Turn:
    """`anyio.to_interpreter`, one worker."""
    import anyio
    import anyio.to_interpreter

    limiter = anyio.CapacityLimiter(1)
    request = scope()
    return awaited(lambda: anyio.to_interpreter.run_sync(hello_call, request, b"", limiter=limiter), IN_FLIGHT)


def direct_asgi() -> Turn:
    request = scope()

    def call() -> None:
        coro = runners.asgi.run_asgi(hello, {**request}, b"")
        try:
            coro.send(None)
        except StopIteration:
            return
        raise RuntimeError("the hello app never waits")

    return loop(call)


def direct_wsgi() -> Turn:
    env = environ()
    del env["wsgi.input"]

    def call() -> None:
        status: list[Any] = []
        body = wsgi({**env}, lambda *words: status.append(words))
        assert b"".join(body)

    return loop(call)


async def run(session: Session) -> None:
    if session.wanted("hello"):
        await small(session)
    if session.wanted("cpu"):
        await cpu(session)
    if session.wanted("8 MiB"):
        await large(session)


async def small(session: Session) -> None:
    """Hello, 64 in flight, 1 worker."""
    request, env = scope(), environ()
    async with pool_of(session, "hello") as pool, pool_of(session, "wsgi") as other, executors() as (turns, left):
        await session.compare(
            "hello",
            f"Hello, {IN_FLIGHT} in flight, 1 worker ({session.isolation}).",
            {
                "run_asgi": awaited(lambda: pool.run_asgi(request)),
                "run_wsgi": awaited(lambda: other.run_wsgi(env)),
                "pool.call": awaited(lambda: pool.call("perf:hello_call", request, b"")),
                "pool.call of the runner": awaited(lambda: pool.call("perf:hello_run", request, b"")),
                "direct ASGI": direct_asgi(),
                "direct WSGI": direct_wsgi(),
                **turns,
                "anyio.to_interpreter": to_interpreter(),
            },
            left=left,
            seconds=0.4,
            note="ThreadPoolExecutor shares the GIL with its caller, and isolates nothing.",
        )


async def cpu(session: Session) -> None:
    """Pure-Python work on two workers and on one."""
    request = scope("/work", b"100000")
    async with pool_of(session, "app") as one, pool_of(session, "app", 2) as two:
        await session.compare(
            "cpu",
            "Handlers that compute, 8 in flight.",
            {
                "2 workers": awaited(lambda: two.run_asgi(request), 8),
                "1 worker": awaited(lambda: one.run_asgi(request), 8),
            },
            seconds=0.8,
            note=f"There are {os.cpu_count()} CPUs, and the host's loop needs its part of them.",
        )


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


async def large(session: Session) -> None:
    """8 MiB answers, one at a time."""
    request, size = scope("/big", b"%d" % (8 * MIB)), 8 * MIB

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        len(message.get("body", b""))

    async with pool_of(session, "app") as pool:
        obvious = Marshalled(size)
        try:
            assert len((await pool.run_asgi(request)).body) == size
            await session.compare(
                "8 MiB",
                "An answer of 8 MiB, one at a time.",
                {
                    "run_asgi": awaited(lambda: pool.run_asgi(request), 1),
                    "handle_asgi": awaited(lambda: pool.handle_asgi(request, receive, send), 1),
                    "inside marshal": awaited(obvious.call, 1),
                    "hello": awaited(lambda: pool.run_asgi(scope()), 1),
                },
                note="handle_asgi hands on the app's own buffer, as it goes to a socket; run_asgi copies it once; "
                "hello is the way without the bytes.",
            )
        finally:
            obvious.close()
