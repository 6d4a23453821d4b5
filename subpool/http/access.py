"""The access log: one line a response, through the logger "subpool.access".

Control bytes and quotes are escaped, so that a request cannot forge a line. `common` and `combined` are those of
Apache, with the request's id at the end; `json` is one object a line.
"""

from __future__ import annotations

import json
import logging
import time
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from .front import Front

log = logging.getLogger("subpool.access")


class Logged(Protocol):
    """What a line is made of."""

    id: int
    method: str
    url: bytes
    headers: list[tuple[bytes, bytes]]
    status: int
    sent: int
    started_at: float
    flags: int


class AccessLog:
    """`style`: common, combined or json."""

    def __init__(self, style: str) -> None:
        self._style = style
        self._time = (0, "")

    def __repr__(self) -> str:
        return f"<AccessLog {self._style}>"

    def log(self, connection: Any, call: Logged) -> None:
        """The response to `call` is over."""
        front: Front = connection.front
        seconds = front.loop.time() - call.started_at if call.started_at else 0.0
        client = (getattr(call, "client", None) or connection.client or "-")[0]
        version = getattr(call, "version", None) or ("1.0" if call.flags & 2 else "1.1")
        if self._style == "json":
            log.info("%s", json.dumps({
                "time": self._now(), "client": client, "method": call.method, "target": call.url.decode("latin-1"),
                "version": version, "status": call.status, "bytes": call.sent, "seconds": round(seconds, 6),
                "referer": _header(call, b"referer"), "user_agent": _header(call, b"user-agent"), "request": call.id,
            }))  # fmt: skip
            return
        line = (
            f'{client} - - [{self._now()}] "{escaped(call.method)} {escaped(call.url.decode("latin-1"))} '
            f'HTTP/{version}" {call.status:03d} {call.sent}'
        )
        if self._style == "combined":
            line += f' "{escaped(_header(call, b"referer") or "-")}" "{escaped(_header(call, b"user-agent") or "-")}"'
        log.info("%s %d", line, call.id)

    def _now(self) -> str:
        now = int(time.time())
        if self._time[0] != now:
            self._time = now, time.strftime("%d/%b/%Y:%H:%M:%S %z", time.localtime(now))
        return self._time[1]


def escaped(text: str) -> str:
    """`text` with everything but printable ASCII as `\\xhh`, and quotes and backslashes escaped."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return text
    return "".join(
        "\\" + char if char in '"\\' else char if " " <= char <= "~" else f"\\x{ord(char):02x}" for char in text
    )


def _header(call: Logged, name: bytes) -> str | None:
    for other, value in call.headers:
        if other == name:
            return value.decode("latin-1")
    return None
