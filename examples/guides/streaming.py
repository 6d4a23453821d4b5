"""A response that is made while it is sent: a line every tenth of a second, or as the query says.

subpool serve streaming:app --pythonpath examples/guides
curl -N 'http://127.0.0.1:8000/?lines=20&interval=0.5'
"""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import parse_qsl


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """The application. When the client leaves, `send` raises OSError, and that is the end of it."""
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    query = dict(parse_qsl(scope["query_string"].decode()))
    lines, interval = int(query.get("lines", 10)), float(query.get("interval", 0.1))
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for number in range(lines):
        await send({"type": "http.response.body", "body": b"line %d\n" % number, "more_body": True})
        await asyncio.sleep(interval)
    await send({"type": "http.response.body", "body": b"done\n"})
