"""One HTTP/1.1 request of the server: as it is parsed, waits for a worker, and is answered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..channels.frames import LOAN_SIZE, Frame
from ..hostcall import DONE as OVER
from ..hostcall import Call
from ..types import Headers
from ..wire import KEEP_ALIVE
from .front import NEVER

if TYPE_CHECKING:
    from ..hearing import Hearing
    from .front import Mount
    from .h1 import H1
    from .turn import Turn


class HTTPCall(Call):
    """Made when the first byte of a request has come. Defaults live on the class: an instance stores what differs."""

    method = ""
    length: int | None = None  # as declared
    chunked = False
    hosts = 0
    expect = False  # the client waits for 100 Continue
    forwarded = False  # there are headers of a proxy
    flags = 0  # `wire.KEEP_ALIVE`, `wire.HTTP10`
    headers_complete = False
    upgrade = False  # httptools ends such a request at its head
    complete = False  # the whole request is here
    streamed = False  # its body goes to the app in pieces
    dispatched = False
    size = 0  # of the body so far
    framing = 0  # bytes around the body so far
    held = 0  # bytes of the body that the app has not asked for
    wants = False  # the app waits for a piece
    begun = False  # the response has
    status = 0
    sent = 0  # bytes of the response's body
    client: tuple[str, int] | None = None  # who asked, where that is not the connection's peer
    unacknowledged = 0
    started_at = 0.0
    mount: Mount | None = None
    block: bytes | None = None  # the header lines as they came, if they are known
    turn: Turn | None = None  # its hooks, if there are any

    def __init__(self, number: int, connection: H1, url: bytes = b"") -> None:
        self.id = number
        self.url = url
        self.connection: H1 | None = connection
        self.headers: list[tuple[bytes, bytes]] = []
        self.parts: list[bytes] = []

    def __repr__(self) -> str:
        return f"<HTTPCall {self.id} {self.method} {self.url!r:.60}{' begun' if self.begun else ''}>"

    # from the worker

    def whole(self, member: Hearing, frame: Frame, body: Any) -> None:
        connection = self.connection
        if connection is not None:
            connection.on_whole(self, member, frame, body)
        else:
            member.drop(body)

    def wire(self, member: Hearing, frame: Frame, body: Any) -> None:
        connection = self.connection
        if connection is not None:
            connection.on_wire(self, member, frame, body)
        else:
            member.drop(body)

    def wanted(self) -> Any:
        if self.connection is not None:
            self.wants = True
            self.connection.on_wanted(self)

    def finish(self, frame: Frame) -> None:
        if self.connection is not None:
            self.connection.on_end(self)

    def fail(self, error: BaseException) -> None:
        if self.connection is not None:
            self.connection.on_error(self, error)

    # to the worker

    def feed(self) -> None:
        """Give the app what it asked for, if it is here."""
        if not self.wants or not (self.parts or self.complete) or self.mount is None:
            return
        self.wants = False
        parts, self.parts = self.parts, []
        if self.held < len(parts) * LOAN_SIZE:  # small pieces are joined, large ones lent as they are
            parts = [b"".join(parts)]
        self.held = 0
        engine = self.mount.engine
        last = parts.pop() if parts else b""
        for part in parts:
            engine.send_event(self, {"type": "http.request", "more_body": True}, part)
        engine.send_event(self, {"type": "http.request", "more_body": not self.complete}, last)

    def leave(self) -> None:
        """The client has gone: the app hears of it, and may end as it likes. It is not run if it has not begun."""
        self.connection = None
        engine = self.mount.engine if self.mount is not None else None
        if engine is None or not self.dispatched:
            return
        engine.leave(self)
        if self.state != OVER and self.mount is not None and self.mount.timeout < NEVER:
            self.timeout = self.mount.timeout  # nobody waits, but it must end
            engine.clock.begin(self)


class RepeatedCall(HTTPCall):
    """A whole request without a body, whose header lines came before."""

    flags = KEEP_ALIVE
    headers_complete = complete = True

    def __init__(self, number: int, connection: H1, method: str, url: bytes, headers: Headers, block: bytes) -> None:
        self.id = number
        self.connection = connection
        self.method = method
        self.url = url
        self.headers = headers  # others have the same list: it is replaced, never changed
        self.block = block
        self.parts = []
