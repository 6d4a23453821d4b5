"""The default ASGI runner: one request with its body whole, one answer with its body whole.

`run_asgi` is what a worker calls when no other runner is named, and what a custom runner calls to reach the app. The
rules of `send()` are the tables of `subpool.channels.exchange`; `receive()` answers the body once, and from then on
waits until the response is complete or the client has gone (ASGI HTTP spec 2.5, "Disconnect").
"""

from __future__ import annotations

import asyncio
from typing import Any

from subpool.channels.exchange import BODY, DONE, AppProtocolError, HTTPExchange
from subpool.types import ASGIApp, Headers, Message


class Buffered(HTTPExchange):
    """The app's side of such an exchange: its `receive` and `send`."""

    def __init__(self, method: str, body: bytes) -> None:
        super().__init__(method)
        self._request: bytes | None = body
        self._chunks: list[bytes] = []
        self._finished: asyncio.Event | None = None

    async def receive(self) -> Message:
        if self._request is not None:
            body, self._request = self._request, None
            return {"type": "http.request", "body": body, "more_body": False}
        if not self.done:
            if self._finished is None:
                self._finished = asyncio.Event()
            await self._finished.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        chunk = self.step(message)
        if chunk:
            self._chunks.append(chunk)
        if self.done and self._finished is not None:
            self._finished.set()

    def result(self) -> tuple[int, Headers, bytes]:
        """The answer, when the app has returned. `AppProtocolError` if it is not complete."""
        if self.state is not DONE:
            if self.state is BODY:
                raise AppProtocolError("the app returned before its response was complete (more_body was true)")
            raise AppProtocolError(f"the app returned without a complete response (state {self.state!r})")
        chunks = self._chunks
        return self.status, self.headers, chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def run_asgi(app: ASGIApp, scope: dict[str, Any], body: bytes) -> tuple[int, Headers, bytes]:
    """Call `app` with `scope` and the whole `body`; its status, headers and whole body.

    What the app raises comes through; `AppProtocolError` and `TypeError` where it breaks ASGI.
    """
    exchange = Buffered(scope.get("method", "GET"), body)
    await app(scope, exchange.receive, exchange.send)
    return exchange.result()
