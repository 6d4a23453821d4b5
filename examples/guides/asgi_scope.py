"""Shows what an ASGI server tells an app: the scope as JSON, over HTTP or as a WebSocket's first message.

subpool serve asgi_scope:app --pythonpath examples/guides
curl -H 'X-Colour: blue' 'http://127.0.0.1:8000/a%20path?with=a&query=string'
"""

from __future__ import annotations

import json
from typing import Any


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """The application."""
    if scope["type"] == "http":
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": shown(scope).encode() + b"\n"})
    elif scope["type"] == "websocket":
        await receive()  # websocket.connect
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": shown(scope)})
        await send({"type": "websocket.close"})
    else:
        raise NotImplementedError(scope["type"])


def shown(scope: dict[str, Any]) -> str:
    """The scope as JSON: bytes as text behind a "b:", whatever else JSON does not know as its repr."""

    def other(value: object) -> str:
        return f"b:{value.decode('latin-1')}" if isinstance(value, bytes) else repr(value)

    return json.dumps(scope, default=other, indent=2, sort_keys=True)
