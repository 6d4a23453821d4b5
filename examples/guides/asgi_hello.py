"""The smallest ASGI app: it greets whoever asks over HTTP.

subpool serve asgi_hello:app --pythonpath examples/guides
curl http://127.0.0.1:8000/
"""

from __future__ import annotations

from typing import Any


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """The application (ASGI 3). Other scope types than http it does not know, and says so."""
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"Hello from ASGI!\n"})
