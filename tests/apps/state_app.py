"""Functions for `pool.call`, and ASGI and WSGI apps, that use the shared state."""

from __future__ import annotations

import os
import sys
from typing import Any

from subpool import here, state
from subpool.state import aio


def run(name: str, *args: Any, **options: Any) -> Any:
    """A function of `subpool.state`, by its name."""
    return getattr(state, name)(*args, **options)


async def arun(name: str, *args: Any, **options: Any) -> Any:
    """The same of `subpool.state.aio`."""
    return await getattr(aio, name)(*args, **options)


def told(name: str, *args: Any) -> tuple[int, Any]:
    """Which worker answers, and what."""
    return worker(), run(name, *args)


def worker() -> int:
    """Which worker this is."""
    return int(here.worker().id)


def count(key: Any, times: int) -> int:
    """Add 1 so often; which worker did."""
    for _ in range(times):
        state.incr(key)
    return worker()


async def acount(key: Any, times: int) -> int:
    """The same in an async app."""
    for _ in range(times):
        await aio.incr(key)
    return worker()


def loaded() -> list[str]:
    """Modules of the store that are here."""
    names = ("sqlite3", "msgpack", "redis", "subpool.state.sqlite")
    return [name for name in names if name in sys.modules]


def slow(started: str, go: str) -> int:
    """Say that it began, wait, and answer the pid. It counts its runs."""
    state.incr("runs")
    with open(started, "wb", buffering=0) as file:
        file.write(b".")
    with open(go, "rb", buffering=0) as file:
        file.read(1)
    return os.getpid()


def cached_slow(started: str, go: str) -> Any:
    return state.cached(slow, started, go, key="slow", ttl=60)


async def aslow(started: str, go: str) -> int:
    import asyncio

    return await asyncio.to_thread(slow, started, go)


async def acached_slow(started: str, go: str) -> Any:
    return await state.acached(aslow, started, go, key="slow", ttl=60)


def fails() -> None:
    state.incr("runs")
    raise ValueError("no result")


def cached_fails() -> Any:
    return state.cached(fails, key="fails")


def die_in_turn() -> None:
    """End the process while it holds the writers' lock."""
    state.incr("died")
    from subpool.state import spaces

    own = spaces.current().store._own()  # type: ignore[attr-defined]
    own.turn.take(1.0)
    os._exit(3)


def pass_on(request: Any) -> None:
    """A hook that lets every request through."""


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Count the requests of this mount; /start has what lifespan saw; a WebSocket is told the count."""
    if scope["type"] == "lifespan":
        await receive()
        scope["state"]["start"] = state.incr("starts")
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    value = await aio.incr("hits")
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": str(value)})
        await send({"type": "websocket.close"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"%d" % value})


def wsgi(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Count the requests of this mount."""
    value = state.incr("hits")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"%d" % value]
