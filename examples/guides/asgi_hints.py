"""Early hints (RFC 8297) from an ASGI app, in both forms.

At "/" with the message `http.response.early_hint`, on servers that offer this extension. At "/plain" with a start of
status 103 before the real one, which is shorter, and which servers other than subpool may refuse.

subpool serve asgi_hints:app --pythonpath examples/guides
curl -i http://127.0.0.1:8000/
curl -i http://127.0.0.1:8000/plain
"""

from __future__ import annotations

from typing import Any

PAGE = b"""<!doctype html>
<title>Early hints</title>
<link rel="stylesheet" href="/style.css">
<p>This page told of its style before it was there.</p>
"""
STYLE = b"p { color: teal; font: 1.5rem sans-serif; }\n"
LINK = b"</style.css>; rel=preload; as=style"


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """The application."""
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    if scope["path"] == "/style.css":
        await respond(send, STYLE, b"text/css")
        return
    if scope["path"] == "/plain":
        await send({"type": "http.response.start", "status": 103, "headers": [(b"link", LINK)]})
    elif "http.response.early_hint" in (scope.get("extensions") or {}):
        await send({"type": "http.response.early_hint", "links": [LINK]})
    # Here a real app would ask its database.
    await respond(send, PAGE, b"text/html; charset=utf-8")


async def respond(send: Any, body: bytes, kind: bytes) -> None:
    """A whole response."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
    await send({"type": "http.response.body", "body": body})
