"""What an app's answers come to on the wire: its accept, its close, its failure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..channels.exchange import AppProtocolError
from ..errors import AppError, WebSocketUnsupported
from ..types import Headers
from .failure import answer_for
from .ws_deflate import Deflate, negotiate

if TYPE_CHECKING:
    from .config import ServerConfig

NORMAL, NO_STATUS, ABNORMAL, INTERNAL, RESTART, NO_TLS = 1000, 1005, 1006, 1011, 1012, 1015


def agree(
    config: ServerConfig, offered: list[str], offers: list[str], subprotocol: str | None, headers: Headers
) -> tuple[Headers, Deflate | None]:
    """The headers that an accept is answered with, and the compression agreed on.

    `offered`: the client's subprotocols, `offers`: its extensions; `subprotocol` and `headers`: the app's.
    `AppProtocolError` if the client would have to refuse what the app chose (RFC 6455, section 4.1).
    """
    out: Headers = []
    if subprotocol is not None:
        if subprotocol not in offered:
            raise AppProtocolError(f"the client did not offer the subprotocol {subprotocol!r}")
        out.append((b"sec-websocket-protocol", subprotocol.encode()))
    agreed = negotiate(offers, config.websocket_max_message) if config.websocket_compress else None
    if agreed is not None:
        out.append((b"sec-websocket-extensions", agreed[1].encode()))
    for name, value in headers:
        lower = name.lower()
        if lower.startswith((b":", b"sec-websocket-")):
            raise AppProtocolError(f"'websocket.accept' cannot have the header {name!r}")
        if lower not in (b"upgrade", b"content-length"):
            out.append((name, value))
    return out, agreed[0] if agreed is not None else None


def closing(code: int) -> int:
    """What to close with when the app says `code`: some cannot be sent (RFC 6455, section 7.4).

    `AppProtocolError` if it is none at all.
    """
    if code in (NO_STATUS, ABNORMAL, NO_TLS):
        return NORMAL
    if not 1000 <= code <= 4999:
        raise AppProtocolError(f"{code} is no code to close with")
    return code


def refusal(error: BaseException) -> tuple[int, str]:
    """Status and text in place of an accept, when the app or its worker has failed."""
    return (400, "there is no WebSocket here") if isinstance(error, WebSocketUnsupported) else answer_for(error)


def is_end(error: BaseException) -> bool:
    """Whether the app let out what it gets because the client has gone."""
    return isinstance(error, AppError) and error.type_name.rpartition(".")[2] in ("ClientGone", "CancelledError")
