"""Types of ASGI (3.0) and WSGI (PEP 3333), and what `Pool.run_*` answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, NamedTuple

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
WSGIApp = Callable[..., Any]
Environ = dict[str, Any]
Headers = list[tuple[bytes, bytes]]


class Response(NamedTuple):
    """What an ASGI app answered: `status` 100-599, `headers` in order, `body` whole."""

    status: int
    headers: Headers
    body: bytes


class WSGIResponse(NamedTuple):
    """What a WSGI app answered: `status` as in "200 OK", `headers` in order, `body` whole."""

    status: str
    headers: list[tuple[str, str]]
    body: bytes
