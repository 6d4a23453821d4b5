"""The pool as an ASGI 3 app, for uvicorn, hypercorn, granian or whatever serves ASGI."""

from __future__ import annotations

import logging
import marshal
from typing import TYPE_CHECKING, Any

from .errors import AppError, PoolOverloaded, PoolTimeout, SubpoolError
from .types import Message, Receive, Scope, Send

if TYPE_CHECKING:
    from .pool import Pool

log = logging.getLogger("subpool.asgi")

FIELDS = (
    "type", "asgi", "http_version", "method", "scheme", "path", "raw_path", "query_string", "root_path", "headers",
    "client", "server", "subprotocols",
)  # fmt: skip
EXTENSIONS = (
    "http.response.early_hint", "http.response.trailers", "http.response.pathsend", "websocket.http.response", "tls",
)  # fmt: skip


class PoolApp:
    """`app = Pool("myapp:app").asgi()`, served by any ASGI server with lifespan.

    The lifespan opens and closes the pool. An error before the response's start is answered with 500 (503 when the pool
    is full, 504 after a timeout); after it, it is raised, so that the server aborts the connection.
    """

    def __init__(self, pool: Pool) -> None:
        self.pool = pool

    def __repr__(self) -> str:
        return f"<PoolApp of {self.pool!r}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.pool.handle_asgi(_portable(scope), receive, sending)
        except SubpoolError as error:
            if started or scope["type"] != "http":
                raise
            await _answer(error, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self.pool.__aenter__()
        except Exception as error:
            log.exception("the pool could not be opened")
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        try:
            await receive()
        finally:
            await self.pool.close()
        await send({"type": "lifespan.shutdown.complete"})


async def _answer(error: SubpoolError, send: Send) -> None:
    status, text = 500, b"Internal Server Error"
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    if isinstance(error, PoolOverloaded):
        status, text = 503, b"Service Unavailable"
        headers.append((b"retry-after", b"1"))
    elif isinstance(error, PoolTimeout):
        status, text = 504, b"Gateway Timeout"
    if status == 500:
        log.error("error in the app", exc_info=error if not isinstance(error, AppError) else None)
        if isinstance(error, AppError):
            log.error("%s", error)
    headers.append((b"content-length", str(len(text)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text})


def _portable(scope: Scope) -> dict[str, Any]:
    """The fields of a server's scope that cross to a worker; its state and extensions as far as they are plain data."""
    out = {field: scope[field] for field in FIELDS if scope.get(field) is not None}
    extensions = scope.get("extensions") or {}
    out["extensions"] = {
        name: extensions[name] for name in EXTENSIONS if name in extensions and _is_plain(extensions[name])
    }
    state = {name: value for name, value in (scope.get("state") or {}).items() if _is_plain(value)}
    if state:
        out["state"] = state
    return out


def _is_plain(value: Any) -> bool:
    try:
        marshal.dumps(value, allow_code=False)
    except ValueError:
        return False
    return True
