"""How long small requests wait beside a caller that keeps a worker of the pool busy.

Two workers. One caller asks again and again for a handler that burns 20 ms of CPU; 16 others ask for hello, one call
after another. Without take-back, what waits behind the burning handler waits with it, and the p90 is most of 20 ms.
In turns with it: the same 16 callers alone, and the same with take-back switched off.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from perf import environ, scope
from perf.calls import pool_of
from perf.frame import Session, Turn, patched_turn, percentiles
from subpool import router

CALLERS: Final = 16
BURN: Final = 0.02  # seconds of CPU
Call = Callable[[], Awaitable[Any]]


def waited(hello: Call, burning: Call | None) -> Turn:
    """A turn of the callers; what it costs is how long a call takes."""

    async def turn(seconds: float) -> dict[str, float]:
        latencies: list[float] = []
        clock = time.perf_counter
        end = clock() + seconds

        async def caller() -> None:
            while (start := clock()) < end:
                await hello()
                latencies.append(clock() - start)

        async def burner() -> None:
            while burning is not None and clock() < end:
                await burning()

        async with asyncio.TaskGroup() as group:
            group.create_task(burner())
            for _ in range(CALLERS):
                group.create_task(caller())
        return percentiles(latencies)

    return turn


async def run(session: Session) -> None:
    hello, burning = scope(), scope("/burn", b"%f" % BURN)
    light, heavy = environ(), environ("/burn", f"{BURN:f}")
    async with pool_of(session, "app", 2) as asgi, pool_of(session, "wsgi", 2) as wsgi:
        calls: dict[str, tuple[Call, Call]] = {
            "ASGI": (lambda: asgi.run_asgi(hello), lambda: asgi.run_asgi(burning)),
            "WSGI": (lambda: wsgi.run_wsgi(light), lambda: wsgi.run_wsgi(heavy)),
        }
        for name, (small, large) in calls.items():
            beside = waited(small, large)
            await session.compare(
                name,
                f"{CALLERS} callers of hello beside one of {BURN * 1e3:g} ms of CPU, 2 workers.",
                {
                    "beside it": beside,
                    "alone": waited(small, None),
                    "beside it, without take-back": patched_turn(beside, (router, "SILENCE", 1e9)),
                },
                seconds=2.0,
                rounds=3,
            )
