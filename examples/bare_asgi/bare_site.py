"""An ASGI app without a framework: JSON, an upload, HTML, a streamed answer, an error.

It knows nothing of subpool.
"""

from __future__ import annotations

import hashlib
import html
import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs

type Receive = Callable[[], Awaitable[dict[str, Any]]]
type Send = Callable[[dict[str, Any]], Awaitable[None]]


async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """The application (ASGI 3)."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    path, query = scope["path"], parse_qs(scope["query_string"].decode())
    if path.startswith("/json/"):
        answer = {"hello": path.removeprefix("/json/"), "times": int(query.get("times", ["1"])[0])}
        await respond(send, 200, json.dumps(answer), "application/json")
    elif path == "/upload":
        size, digest = 0, hashlib.sha256()
        while True:
            message = await receive()
            size += len(message["body"])
            digest.update(message["body"])
            if not message["more_body"]:
                break
        answer = {"bytes": size, "sha256": digest.hexdigest()}
        await respond(send, 201, json.dumps(answer), "application/json")
    elif path == "/page":
        items = "".join(f"<li>{html.escape(item)}</li>" for item in ("one", "<two>"))
        await respond(send, 200, f"<ul>{items}</ul>", "text/html")
    elif path == "/stream":
        await start(send, 200, "text/plain")
        for number in range(5):
            await send({"type": "http.response.body", "body": b"line %d\n" % number, "more_body": True})
        await send({"type": "http.response.body"})
    elif path == "/error":
        raise LookupError("a bug in the app")
    else:
        await respond(send, 404, "no such thing", "text/plain")


async def start(send: Send, status: int, content_type: str) -> None:
    """Begin a response."""
    headers = [(b"content-type", content_type.encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def respond(send: Send, status: int, body: str, content_type: str) -> None:
    """A whole response."""
    await start(send, status, content_type)
    await send({"type": "http.response.body", "body": body.encode()})


async def lifespan(receive: Receive, send: Send) -> None:
    """Start-up and shutdown, once in each worker (ASGI Lifespan 2.0)."""
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return
