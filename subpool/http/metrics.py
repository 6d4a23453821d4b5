"""The listener for those who watch a server: `/metrics` for Prometheus, `/healthz`, `/readyz`.

`/healthz` says that the process answers; `/readyz` that it takes requests: 503 while it starts or drains, or where a
pool has no worker that is ready.

It is no web server: one request a connection, GET and HEAD, these three paths. At most `CLIENTS` connections, each for
`PATIENCE` seconds from accept to end, and a head of at most `HEAD` bytes: who is slower or says more is cut. It has no
TLS and no passwords: bind it where only those who may look can reach it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import socket
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Final

from ..control import listen
from ..errors import ConfigError
from ..reception import Overlong, Peer, Reception
from ..unix_sockets import remove
from .addresses import parse_bind

log = logging.getLogger("subpool")

CLIENTS: Final = 32
PATIENCE: Final = 10.0
HEAD: Final = 8192
TEXT: Final = "text/plain; charset=utf-8"
_REQUEST: Final = re.compile(rb"([A-Z]+) (/[!-~]*) HTTP/1\.[01]\r\n")
_ACCEPT: Final = re.compile(rb"^accept:[ \t]*([\t -~]*)", re.IGNORECASE | re.MULTILINE)

Answer = tuple[HTTPStatus, bytes, str]


class Metrics:
    """Answers from `await status()`, which is what `Operations.status_of_each` gives, between `start` and `close`."""

    def __init__(self, bind: str, unix_mode: int, status: Callable[[], Awaitable[dict[str, Any]]]) -> None:
        self.address = bind
        self._mode = unix_mode
        self._status = status
        self._reception: Reception | None = None
        self._unix: tuple[str, int] | None = None
        self._left = False

    def __repr__(self) -> str:
        return f"<Metrics {self.address}, {len(self._reception or ())} clients>"

    async def start(self, sock: socket.socket | None = None) -> None:
        """Listen, on `sock` where that does already: then its file is another's. `OSError`, or `ConfigError` where
        prometheus_client is missing."""
        try:
            from . import collector
        except ModuleNotFoundError as error:
            if error.name != "prometheus_client":
                raise
            told = "metrics_bind: needs prometheus_client, which is not installed: pip install 'subpool[metrics]'"
            raise ConfigError([told]) from None
        self._expose = collector.Exposition()
        self._unready = collector.unready
        if sock is None:
            sock = self._bind()
        if sock.family != socket.AF_UNIX:
            host, port = sock.getsockname()[:2]
            self.address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        self._reception = Reception(sock, self._serve, CLIENTS)

    def leave(self) -> None:
        """Accept nothing more, here: another server goes on with the address, and takes requests."""
        self._left = True
        if self._reception is not None:
            self._reception.leave()

    def _bind(self) -> socket.socket:
        address = parse_bind(self.address)
        if address.kind == "unix":
            sock = listen(address.where, self._mode)
            self._unix = address.where, os.stat(address.where).st_ino
            return sock
        family = socket.AF_INET6 if ":" in address.where else socket.AF_INET
        try:
            return socket.create_server((address.where, address.number), family=family, backlog=CLIENTS)
        except OSError as error:
            raise OSError(error.errno, f"cannot listen on {self.address}: {error.strerror}") from None

    async def close(self) -> None:
        """Listen no more, and cut who is connected."""
        if self._reception is not None:
            await self._reception.close()
        if self._unix is not None:
            remove(*self._unix)

    async def _serve(self, peer: Peer, full: bool) -> None:
        if full:
            return
        async with asyncio.timeout(PATIENCE):
            try:
                head = await peer.until(b"\r\n\r\n", HEAD)
            except Overlong:
                head, answer = b"", (HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, b"", TEXT)
            else:
                answer = await self._answer(head)
            await peer.send(response(answer, head.startswith(b"HEAD ")))
            await peer.finish()

    async def _answer(self, head: bytes) -> Answer:
        request = _REQUEST.match(head)
        if request is None:
            return HTTPStatus.BAD_REQUEST, b"", TEXT
        method, target = request.groups()
        path = target.partition(b"?")[0]
        if path not in (b"/metrics", b"/healthz", b"/readyz"):
            return HTTPStatus.NOT_FOUND, b"", TEXT
        if method not in (b"GET", b"HEAD"):
            return HTTPStatus.METHOD_NOT_ALLOWED, b"", TEXT
        if path == b"/healthz":
            return HTTPStatus.OK, b"alive\n", TEXT
        try:
            now = await self._status()
            if path == b"/readyz":
                why = "" if self._left else self._unready(now)
                status = HTTPStatus.SERVICE_UNAVAILABLE if why else HTTPStatus.OK
                return status, f"{why or 'ready'}\n".encode(), TEXT
            accept = _ACCEPT.search(head)
            return HTTPStatus.OK, *self._expose(accept[1].decode("ascii") if accept else "", now)
        except Exception:
            log.exception("%s could not be answered", path.decode("ascii"))
            return HTTPStatus.INTERNAL_SERVER_ERROR, b"", TEXT


def response(answer: Answer, without_body: bool) -> bytes:
    """An answer on the wire. One without text has its reason as text."""
    status, body, kind = answer
    body = body or f"{status.phrase}\n".encode()
    allow = "Allow: GET, HEAD\r\n" if status == HTTPStatus.METHOD_NOT_ALLOWED else ""
    head = (
        f"HTTP/1.1 {status} {status.phrase}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        f"Cache-Control: no-store\r\n{allow}Connection: close\r\n\r\n"
    )
    return head.encode() + (b"" if without_body else body)
