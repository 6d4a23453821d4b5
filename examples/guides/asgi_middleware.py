"""ASGI middleware: apps around an app. One tells how long an answer took, one names each request.

subpool serve asgi_middleware:app --pythonpath examples/guides
curl -i http://127.0.0.1:8000/
"""

from __future__ import annotations

import time
import uuid
from typing import Any

import asgi_hello


class ServerTiming:
    """Adds the milliseconds up to the answer's start (W3C Server Timing)."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":  # lifespan and WebSockets pass
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()

        async def timed(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                value = f"app;dur={(time.perf_counter() - began) * 1000:.2f}"
                message = {**message, "headers": [*message.get("headers", ()), (b"server-timing", value.encode())]}
            await send(message)

        await self.app(scope, receive, timed)


class RequestId:
    """Names each request: as its x-request-id says, or anew. The app finds the name in the scope."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"x-request-id", b"")
        name = given if given.isalnum() and len(given) <= 64 else uuid.uuid4().hex.encode()

        async def named(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), (b"x-request-id", name)]}
            await send(message)

        await self.app({**scope, "request_id": name.decode()}, receive, named)


app = ServerTiming(RequestId(asgi_hello.app))
