"""The demo's ASGI app: no framework, four paths. Each answer names the worker that gave it."""

from __future__ import annotations

import hashlib
import json
from typing import Any


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer /json, /upload, /stream and /error; 404 for the rest (ASGI HTTP spec 2.5)."""
    if scope["type"] != "http":
        raise RuntimeError(f"this app serves http, not {scope['type']}")
    worker = scope["extensions"]["subpool"]["worker"]
    headers = [(b"content-type", b"application/json"), (b"x-worker", str(worker).encode())]

    async def answer(status: int, value: object) -> None:
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(value).encode()})

    match scope["path"].removeprefix(scope.get("root_path", "")):
        case "/json":
            numbers = json.loads(await read(receive))["numbers"]
            await answer(200, {"sum": sum(numbers)})
        case "/upload":
            body = await read(receive)
            await answer(201, {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()})
        case "/stream":
            await send({"type": "http.response.start", "status": 200, "headers": headers[1:]})
            for part in (b"one ", b"two ", b"three"):
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        case "/error":
            raise ValueError(f"this handler always fails (worker {worker})")
        case path:
            await answer(404, {"no such path": path})


async def read(receive: Any) -> bytes:
    """The whole request body."""
    parts = []
    more = True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)
