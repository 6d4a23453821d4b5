"""An ordinary Starlette app: JSON, an upload, a template, a streamed answer, an error.

It knows nothing of subpool.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.templating import Jinja2Templates
from starlette.websockets import WebSocket

templates = Jinja2Templates(Path(__file__).parent / "templates")


async def greet(request: Request) -> JSONResponse:
    """A JSON answer from the path, the query string and the lifespan's state."""
    times = int(request.query_params.get("times", 1))
    return JSONResponse({"hello": request.path_params["name"], "times": times, "ready": request.state.ready})


async def upload(request: Request) -> JSONResponse:
    """A body read as it comes."""
    size, digest = 0, hashlib.sha256()
    async for piece in request.stream():
        size += len(piece)
        digest.update(piece)
    return JSONResponse({"bytes": size, "sha256": digest.hexdigest()}, 201)


async def page(request: Request) -> Response:
    """A template."""
    return templates.TemplateResponse(request, "starlette_page.html", {"items": ["one", "<two>"]})


async def stream(request: Request) -> StreamingResponse:
    """An answer made while it is sent."""

    async def lines() -> AsyncIterator[str]:
        for number in range(5):
            yield f"line {number}\n"

    return StreamingResponse(lines(), media_type="text/plain")


async def missing(request: Request) -> Response:
    """An HTTP error."""
    raise HTTPException(404, "no such thing")


async def error(request: Request) -> Response:
    """A bug: Starlette sends a 500 and raises it to the server."""
    raise LookupError("a bug in the app")


async def echo(socket: WebSocket) -> None:
    """A WebSocket that says everything back."""
    await socket.accept()
    async for text in socket.iter_text():
        await socket.send_text(text.upper())


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[dict[str, object]]:
    """Runs once in each worker."""
    yield {"ready": True}


app = Starlette(
    routes=[
        Route("/json/{name}", greet),
        Route("/upload", upload, methods=["POST"]),
        Route("/page", page),
        Route("/stream", stream),
        Route("/missing", missing),
        Route("/error", error),
        WebSocketRoute("/echo", echo),
    ],
    lifespan=lifespan,
)
