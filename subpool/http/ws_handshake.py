"""The beginning of a WebSocket: its request checked (RFC 6455, section 4.2; RFC 8441), routed, given to its app.

The same for HTTP/1.1 and HTTP/2: `open_session` is all that a connection calls.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from ..types import Headers
from .target import decoded, origin_form
from .ws_session import Session

if TYPE_CHECKING:
    from .front import Front, Listener, Mount
    from .ws_carrier import Carrier

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_SCHEMES: Final = {"http": "ws", "https": "wss"}
VERSION: Final = b"13"


class Request(Protocol):
    """What is asked of a request; `HTTPCall` has it."""

    id: int
    url: bytes  # the target
    headers: Headers  # names in lower case, `host` among them
    forwarded: bool  # there are headers of a proxy


class Refused(Exception):
    """This request opens no WebSocket. `headers` go with the answer."""

    def __init__(self, status: int, text: str, headers: Headers | None = None) -> None:
        super().__init__(status, text)
        self.status = status
        self.text = text
        self.headers = headers or []


class Wishes(NamedTuple):
    """What the client would have."""

    subprotocols: list[str]
    extensions: list[str]  # offers, each with its parameters


def check(headers: Headers, http_version: str) -> Wishes:
    """Check the headers of a request that asks for a WebSocket. `Refused` if it may not have one."""
    if http_version == "1.1":
        if "upgrade" not in _listed(headers, b"connection", lower=True):
            raise Refused(400, "the header Connection does not say 'Upgrade'")
        if "websocket" not in _listed(headers, b"upgrade", lower=True):
            raise Refused(400, "the header Upgrade does not say 'websocket'")
        if any(name == b"transfer-encoding" or (name == b"content-length" and int(value)) for name, value in headers):
            raise Refused(400, "a request that opens a WebSocket has no body")
    versions = [value for name, value in headers if name == b"sec-websocket-version"]
    if not versions:
        raise Refused(400, "there is no header Sec-WebSocket-Version")
    if versions != [VERSION]:
        more = [(b"sec-websocket-version", VERSION)]
        if http_version == "1.1":  # HTTP/2 has no such header (RFC 9113, section 8.2.2)
            more.append((b"upgrade", b"websocket"))
        raise Refused(426, "only version 13 of WebSocket is spoken here", more)
    if http_version == "1.1":
        key(headers)
    subprotocols = _listed(headers, b"sec-websocket-protocol")
    if len(set(subprotocols)) < len(subprotocols) or not all(map(_TOKEN.fullmatch, subprotocols)):
        raise Refused(400, "the header Sec-WebSocket-Protocol is not valid")
    return Wishes(subprotocols, _listed(headers, b"sec-websocket-extensions"))


def key(headers: Headers) -> bytes:
    """The client's key. `Refused` if that is not 16 bytes in base64, once."""
    keys = [value for name, value in headers if name == b"sec-websocket-key"]
    try:
        if len(keys) == 1 and len(keys[0]) == 24 and len(base64.b64decode(keys[0], validate=True)) == 16:
            return keys[0]
    except binascii.Error:
        pass
    raise Refused(400, "the header Sec-WebSocket-Key is not valid")


def accept_of(client_key: bytes) -> bytes:
    """Sec-WebSocket-Accept for a key (RFC 6455, section 4.2.2)."""
    return base64.b64encode(hashlib.sha1(client_key + _GUID, usedforsecurity=False).digest())


def _listed(headers: Headers, wanted: bytes, *, lower: bool = False) -> list[str]:
    """The elements of a header that is a list, over all headers of that name."""
    text = ",".join(value.decode("latin-1") for name, value in headers if name == wanted)
    return [item.strip() for item in (text.lower() if lower else text).split(",") if item.strip()]


def open_session(
    front: Front,
    listener: Listener,
    client: tuple[str, int] | None,
    request: Request,
    carrier: Carrier,
    http_version: str = "1.1",
) -> Session | None:
    """The session that `request` asks for, for `begin`. None if it was refused: then `carrier` has the answer."""
    try:
        if front.draining:
            raise Refused(503, "the server ends", [(b"retry-after", b"1")])
        wishes = check(request.headers, http_version)
        target = origin_form(request.url)
        raw_path, _, query = target.partition(b"?")
        mount = front.find(target)
        if mount is None:
            raise Refused(404, "no app is mounted here")
    except Refused as refused:
        carrier.refuse(refused.status, refused.text, refused.headers)
        return None
    scope = _scope(front, listener, mount, client, request)
    scope |= {"http_version": http_version, "path": decoded(raw_path), "raw_path": raw_path, "query_string": query}
    scope["subprotocols"] = wishes.subprotocols
    make = Session
    if front.hooks is not None or mount.hooks is not None:
        from .ws_hooked import HookedSession

        make = HookedSession
    return make(front, mount, carrier, request.id, scope, wishes.extensions)


def _scope(
    front: Front, listener: Listener, mount: Mount, client: tuple[str, int] | None, request: Request
) -> dict[str, Any]:
    """Who asks, through what: ASGI WebSocket scope 2.5, its fields that depend on proxies and mounts."""
    scheme, headers = listener.scheme, request.headers
    if request.forwarded:
        client, scheme, headers = front.speaker(listener, client, headers)
    extensions: dict[str, Any] = {"websocket.http.response": {}}
    if listener.tls is not None:
        extensions["tls"] = listener.tls
    return {
        "type": "websocket",
        "scheme": _SCHEMES.get(scheme, scheme),
        "root_path": front.config.root_path + mount.prefix,
        "server": listener.server,
        "client": client,
        "headers": headers,
        "extensions": extensions,
    }
