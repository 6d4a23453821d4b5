"""An ordinary FastAPI app: JSON with validation, an upload, HTML, a streamed answer, an error.

FastAPI stands on pydantic, whose core refuses isolated interpreters: `isolation="auto"` gives it processes
(and says so once), or threads on a free-threaded build.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, StreamingResponse
from pydantic import BaseModel

app = FastAPI()


class Item(BaseModel):
    """A body that pydantic checks."""

    name: str
    price: float


@app.get("/json/{name}")
async def greet(name: str, times: int = 1) -> dict[str, object]:
    """A JSON answer from the path and the query string."""
    return {"hello": name, "times": times}


@app.post("/items", status_code=201)
async def create(item: Item) -> dict[str, object]:
    """A checked JSON body."""
    return {"created": item.name, "price": item.price}


@app.post("/upload", status_code=201)
async def upload(request: Request) -> dict[str, object]:
    """A body read as it comes."""
    size, digest = 0, hashlib.sha256()
    async for piece in request.stream():
        size += len(piece)
        digest.update(piece)
    return {"bytes": size, "sha256": digest.hexdigest()}


@app.get("/page", response_class=HTMLResponse)
async def page() -> str:
    """HTML."""
    return "<ul><li>one</li><li>&lt;two&gt;</li></ul>"


@app.get("/stream")
async def stream() -> StreamingResponse:
    """An answer made while it is sent."""

    async def lines() -> AsyncIterator[str]:
        for number in range(5):
            yield f"line {number}\n"

    return StreamingResponse(lines(), media_type="text/plain")


@app.get("/missing")
async def missing() -> None:
    """An HTTP error."""
    raise HTTPException(404, "no such thing")


@app.get("/error")
async def error() -> None:
    """A bug: FastAPI sends a 500 and raises it to the server."""
    raise LookupError("a bug in the app")
