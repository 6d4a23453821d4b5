"""An ordinary Quart app: JSON, an upload, a template, a streamed answer, an error.

It knows nothing of subpool.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator

from quart import Quart, Response, abort, render_template, request, websocket

app = Quart(__name__)


@app.get("/json/<name>")
async def greet(name: str) -> dict[str, object]:
    """A JSON answer from the path and the query string."""
    return {"hello": name, "times": request.args.get("times", 1, type=int)}


@app.post("/upload")
async def upload() -> tuple[dict[str, object], int]:
    """A file of a multipart form."""
    file = (await request.files)["file"]
    data = file.read()
    return {"name": file.filename, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}, 201


@app.get("/page")
async def page() -> str:
    """A template."""
    return await render_template("quart_page.html", items=["one", "<two>"])


@app.get("/stream")
async def stream() -> Response:
    """An answer made while it is sent."""

    async def lines() -> AsyncIterator[bytes]:
        for number in range(5):
            yield b"line %d\n" % number

    return Response(lines(), mimetype="text/plain")


@app.get("/missing")
async def missing() -> None:
    """An HTTP error."""
    abort(404, "no such thing")


@app.get("/error")
async def error() -> None:
    """A bug: Quart answers 500 and logs it."""
    raise LookupError("a bug in the app")


@app.websocket("/echo")
async def echo() -> None:
    """A WebSocket that says everything back."""
    while True:
        await websocket.send((await websocket.receive()).upper())
