"""What an app may `send()` and when: the ASGI transition tables, without I/O.

HTTP (ASGI HTTP spec 2.5, "Response Start", "Response Body") and WebSocket (ASGI WebSocket spec 2.5). An exchange has a
state; a message's type looks up (state, type) in the table; a miss is an illegal step and raises `AppProtocolError` in
the app. `check_start` and `check_body` hold what a message must be; they are called where the app runs, so that the
host passes on what it gets.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from ..types import Headers, Message

START, BODY, TRAILERS, DONE = "start", "body", "trailers", "done"
CONNECTING, OPEN, DENYING, CLOSED = "connecting", "open", "denying", "closed"


_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110, section 5.6.2
WEIGHT: Final = 512  # bytes that a message counts for besides its own: small ones weigh more than they hold
CHECKED: Final = 256  # header lists that were found right and are remembered
_checked: dict[Any, tuple[tuple[tuple[bytes, bytes], ...], int]] = {}


class AppProtocolError(RuntimeError):
    """The app sent what ASGI does not allow here."""


HTTP: Final = {
    (START, "http.response.start"): BODY,
    (START, "http.response.early_hint"): START,
    (START, "http.response.debug"): START,
    (BODY, "http.response.body"): BODY,
    (BODY, "http.response.pathsend"): DONE,
    (TRAILERS, "http.response.trailers"): TRAILERS,
}

WEBSOCKET: Final = {
    (CONNECTING, "websocket.accept"): OPEN,
    (CONNECTING, "websocket.close"): CLOSED,
    (CONNECTING, "websocket.http.response.start"): DENYING,
    (DENYING, "websocket.http.response.body"): DENYING,
    (OPEN, "websocket.send"): OPEN,
    (OPEN, "websocket.close"): CLOSED,
}


def next_state(table: dict[tuple[str, str], str], state: str, message: Message) -> str:
    """The state after `message`. `AppProtocolError` if it is illegal in `state`, `TypeError` if it is no message."""
    try:
        kind = message["type"]
        return table[state, kind]
    except KeyError:
        pass
    except TypeError:
        raise TypeError(f"send() takes an ASGI message (a dict), not {type(message).__name__}") from None
    if "type" not in message:
        raise AppProtocolError("the message given to send() has no 'type'")
    legal = sorted(kind for at, kind in table if at == state)
    expected = f"expected {' or '.join(map(repr, legal))}" if legal else "the response is complete"
    raise AppProtocolError(f"unexpected ASGI message {kind!r} in state {state!r}: {expected}")


def check_status(status: Any) -> int:
    """`status`, if it is an int from 100 to 599 (RFC 9110, section 15)."""
    if not isinstance(status, int) or isinstance(status, bool):
        raise TypeError(f"status is {status!r}, which is no int")
    if not 100 <= status <= 599:
        raise AppProtocolError(f"status {status} is out of range 100 to 599")
    return int(status)


def check_headers(headers: Iterable[Any], *, lower: bool = False) -> tuple[Headers, int]:
    """`headers` as a list of pairs of bytes, and the body's length that they declare (-1 if none).

    Refused: names or values that are no bytes (`TypeError`), with CR, LF or NUL (RFC 9110, section 5.5), and a second
    Content-Length (`AppProtocolError`).
    """
    try:
        known = tuple(headers)
        found = _checked.get(known)
        if found is not None:
            return list(found[0]), found[1]
    except TypeError:  # lists or bytearrays inside
        known = None
        headers = list(headers)
    out: Headers = []
    length = -1
    for pair in headers:
        try:
            name, value = pair
        except (TypeError, ValueError):
            raise TypeError(f"header {pair!r} is no (name, value) pair") from None
        if type(name) is not bytes or type(value) is not bytes:
            name, value = _header_bytes(name, value)
        if b"\n" in value or b"\r" in value or b"\0" in value or b"\n" in name or b"\r" in name or b"\0" in name:
            raise AppProtocolError(f"header {name!r}: {value!r} has a CR, LF or NUL")
        if _NAME.fullmatch(name) is None:
            raise AppProtocolError(f"{name!r} is no name of a header, its value is {value!r}")
        if len(name) == 14 and name.lower() == b"content-length":
            if length >= 0:
                raise AppProtocolError("a second Content-Length header")
            if not value.isdigit():
                raise AppProtocolError(f"Content-Length is {value!r}, which is no number")
            length = int(value)
        out.append((name, value))
    if known is not None and known == tuple(out):
        if len(_checked) >= CHECKED:
            _checked.clear()
        _checked[known] = tuple(out), length
    return out, length


def _header_bytes(name: Any, value: Any) -> tuple[bytes, bytes]:
    for part in (name, value):
        if not isinstance(part, (bytes, bytearray, memoryview)):
            raise TypeError(f"header ({name!r}, {value!r}): {part!r} is {type(part).__name__}, not bytes")
    return bytes(name), bytes(value)


def check_body(message: Message) -> bytes:
    """The message's body as bytes. `TypeError` if it is none."""
    body = message.get("body", b"")
    if type(body) is not bytes:
        if not isinstance(body, (bytes, bytearray, memoryview)):
            raise TypeError(f"the body of {message['type']!r} is {type(body).__name__}, not bytes")
        body = bytes(body)
    return body


def weight(message: Message, size: int) -> int:
    """What an app's message counts for until its reader has taken it; `size`: of its body or text.

    Only what may come any number of times counts.
    """
    kind = message["type"]
    if kind == "http.response.body" or kind == "websocket.send" or kind == "websocket.http.response.body":
        return WEIGHT + size
    if kind == "http.response.early_hint":
        return WEIGHT + sum(map(len, message["links"]))
    if kind == "http.response.start" and message["status"] < 200:
        return WEIGHT + sum(len(name) + len(value) for name, value in message["headers"])
    return 0


class HTTPExchange:
    """The response side of one HTTP exchange: `step` takes each message that the app sends.

    `status`, `headers` are there from the start on; `done` when the response is complete.
    """

    # Defaults live on the class: an instance stores only what differs.
    state = START
    status = 0
    headers: Headers = ()  # type: ignore[assignment]
    trailers = False
    done = False
    _left = -1  # bytes that the declared length still allows; -1: no length
    _bodiless = False

    def __init__(self, method: str) -> None:
        if method == "HEAD":
            self._bodiless = True

    def __repr__(self) -> str:
        return f"<HTTPExchange {self.state}, status {self.status}>"

    def step(self, message: Message) -> bytes:
        """Take `message`; the body to pass on. Raises `AppProtocolError` or `TypeError`, in the app."""
        try:
            kind = message["type"]
        except (KeyError, TypeError):
            kind = None
        if self.state is BODY and kind == "http.response.body":
            return self._body(message)
        if self.state is START and kind == "http.response.start":
            self._start(message)
            return b""
        state = next_state(HTTP, self.state, message)
        if kind == "http.response.early_hint":  # each link becomes a header
            check_headers([(b"link", link) for link in message.get("links", ())])
        if kind == "http.response.trailers":
            if not message.get("more_trailers", False):
                self.state, self.done = DONE, True
            return b""
        self.state, self.done = state, state is DONE
        return b""

    def _start(self, message: Message) -> None:
        status = message.get("status")
        if type(status) is not int or not 100 <= status <= 599:
            if "status" not in message:
                raise AppProtocolError("'http.response.start' has no 'status'")
            status = check_status(status)
        if status == 101:
            raise AppProtocolError("status 101 is for upgrades, which are the server's")
        if status < 200:
            check_headers(message.get("headers") or ())
            return  # informational (RFC 9110, section 15.2): the real start is still to come
        self._left = self._keep(message.get("headers") or ())
        self.status = status
        self.trailers = bool(message.get("trailers", False))
        self._bodiless = self._bodiless or status in (204, 304)
        self.state = BODY

    def _keep(self, headers: Iterable[Any]) -> int:
        """Check and keep the headers of the response; the length that they declare, or -1."""
        self.headers, length = check_headers(headers)
        return length

    def _body(self, message: Message) -> bytes:
        body = message.get("body", b"")
        if type(body) is not bytes:
            body = check_body(message)
        more = message.get("more_body", False)
        if self._bodiless:
            body = b""
        elif self._left >= 0:
            self._left -= len(body)
            if self._left < 0:
                raise AppProtocolError(f"the body is {-self._left} bytes longer than its Content-Length")
            if not more and self._left:
                raise AppProtocolError(f"the body is {self._left} bytes shorter than its Content-Length")
        if not more:
            self.state, self.done = (TRAILERS, False) if self.trailers else (DONE, True)
        return body
