"""Two ways to read a request's body: whole, for a small JSON document, and streamed, for one of any size.

subpool serve request_body:app --pythonpath examples/guides
curl -d '{"words": ["one", "two"]}' http://127.0.0.1:8000/whole
curl -T README.md http://127.0.0.1:8000/streamed
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

LIMIT = 1024 * 1024  # bytes that are kept in memory


class ClientLeft(Exception):
    """The client went before its body was complete."""


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """The application."""
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    try:
        if scope["path"] == "/whole":
            status, answer = await whole(receive)
        elif scope["path"] == "/streamed":
            status, answer = await streamed(receive)
        else:
            status, answer = 404, {"error": "there is /whole and /streamed"}
    except ClientLeft:
        return
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(answer).encode()})


async def whole(receive: Any) -> tuple[int, dict[str, object]]:
    """Collect the body, within a limit, and understand it."""
    body = b""
    async for piece in pieces(receive):
        body += piece
        if len(body) > LIMIT:
            return 413, {"error": f"more than {LIMIT} bytes"}
    try:
        words = json.loads(body)["words"]
        return 200, {"words": len(words), "longest": max(words, key=len)}
    except (ValueError, TypeError, KeyError) as error:
        return 400, {"error": f"{type(error).__name__}: {error}"}


async def streamed(receive: Any) -> tuple[int, dict[str, object]]:
    """Use each piece as it comes, and keep none."""
    size, digest = 0, hashlib.sha256()
    async for piece in pieces(receive):
        size += len(piece)
        digest.update(piece)
    return 200, {"bytes": size, "sha256": digest.hexdigest()}


async def pieces(receive: Any) -> AsyncIterator[bytes]:
    """The body as it comes."""
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft
        yield message.get("body", b"")
        more = message.get("more_body", False)
