"""The ports of HTTP/1.1: what an app sends is checked, serialised and posted as WIRE frames.

An app that answers at once costs one frame: `H1Port` holds back what is sent until the app's first step is over, and
what it holds then is both the answer and the end of the call (`wire.DONE`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..channels import frames as f
from ..channels.exchange import BODY, START, WEIGHT, AppProtocolError, HTTPExchange, check_headers
from ..channels.exchange import DONE as COMPLETE
from ..channels.frames import Frame
from ..errors import ClientGone
from ..types import Headers, Message
from ..wire import (
    CLOSE,
    DONE,
    FIRST,
    HTTP10,
    LAST,
    Wire,
    block,
    informational,
    status_line,
    whole,
)
from .streams import Inbox
from .waiter import Waiter

if TYPE_CHECKING:
    from .http import Request, Site
    from .worker import Worker


def wire_frame(
    worker: Worker, call: int, status: int, flags: int, head: bytes, body: bytes, tail: bytes
) -> tuple[Frame, Any]:
    """A WIRE frame and its loan. A small body goes with the head, so that the front writes once."""
    if len(body) >= f.LOAN_SIZE:
        loan = worker.lend(body)
        return (f.WIRE, call, status, flags, head, body if loan is None else f.LOAN, tail, len(body)), loan
    return (f.WIRE, call, status, flags, head + body + tail if body or tail else head, None, b"", len(body)), None


def give_file(worker: Worker, call: int, status: int, wire: Wire, fd: int, offset: int, count: int) -> None:
    """Let the front send that part of a file, and with it the end of the response. It gets the descriptor to keep."""
    flags = LAST | CLOSE if wire.close else LAST
    worker.post((f.WIRE, call, status, flags, b"", (offset, count), b"", count), fd)


class H1Port(HTTPExchange):
    """`receive` and `send` of one request. Everything that is sent becomes WIRE frames."""

    _begun = False
    _holding = True
    _answer: bytes | None = None  # the body of a response that was sent in one go, and has not been posted yet
    _held: tuple[int, Any, bytes, Any] | None = None  # flags, head, body, tail of the last frame
    _inbox: Inbox | None = None
    _streamed = False
    _trailers: Headers = ()  # type: ignore[assignment]

    def __init__(self, worker: Worker, call: int, request: Request, site: Site, body: bytes | None) -> None:
        if request[1] == "HEAD":
            self._bodiless = True
        self._worker = worker
        self._call = call
        self._request = body  # None: it comes in pieces, or has been received
        self._flags = request[5]
        self._site = site
        if body is None:
            self._streamed = True
            self._open()

    def _open(self) -> Inbox:
        """From now on what comes for the call is listened to."""
        inbox = self._inbox
        if inbox is None:
            inbox = self._inbox = self._worker.calls.inbox(self._call)
        return inbox

    def release(self) -> None:
        """The app waits for something: what it sent so far goes out."""
        if not self._holding:
            return
        self._holding = False
        self._open()
        if self._answer is not None:
            self._post_answer(0)
        elif self._held is not None:
            held, self._held = self._held, None
            self._out(*held)

    def close(self) -> None:
        if self._inbox is not None:
            self._worker.calls.forget(self._call)
            self._inbox.end()

    def finish(self) -> None:
        """The app has returned. Raises `AppProtocolError` if its response is not complete."""
        if self._answer is not None:
            self._post_answer(DONE)
            return
        held = self._held
        if held is not None:
            flags, head, body, tail = held
            if not self._joined(flags | DONE, head, body, tail):
                self._out(flags | DONE, head, body, tail)
            return
        if not self.done and (self._inbox is None or not self._inbox.gone):
            missing = "without a response" if self.state is START else "before its response was complete"
            raise AppProtocolError(f"the app returned {missing}")
        self._worker.post((f.END, self._call))

    # the app's side

    async def receive(self) -> Message:
        if self._request is not None:
            body, self._request = self._request, None
            return {"type": "http.request", "body": body, "more_body": False}
        inbox = self._open()
        if not inbox.events and not self._over(inbox):
            if self._streamed:
                self._worker.post((f.WANT, self._call))
            while not inbox.events and not self._over(inbox):
                inbox.waiter = Waiter(self._worker.loop)
                await inbox.waiter
        if not inbox.events:
            return {"type": "http.disconnect"}
        message: Message = inbox.events.popleft()
        if not message["more_body"]:
            self._streamed = False  # that was all: from now on it waits
        return message

    def _over(self, inbox: Inbox) -> bool:
        return inbox.gone or self.done

    async def send(self, message: Message) -> None:
        inbox = self._inbox
        if inbox is None and type(message) is dict:
            # The common steps, in one go: a final start; then a body that is there whole.
            get = message.get
            kind = get("type")
            if kind == "http.response.start":
                status = get("status")
                if self.state is START and type(status) is int and 200 <= status <= 599 and not get("trailers"):
                    self._left = self._keep(get("headers") or ())
                    self.status = status
                    if status == 204 or status == 304:
                        self._bodiless = True
                    self.state = BODY
                    return
            elif kind == "http.response.body" and self.state is BODY:
                body = get("body", b"")
                if (
                    type(body) is bytes
                    and not get("more_body")
                    and (self._left < 0 or self._left == len(body))
                    and not (self._begun or self._bodiless or self.trailers)
                ):
                    self._answer = body
                    self.state, self.done = COMPLETE, True
                    return
        elif inbox is not None and inbox.gone:
            raise ClientGone("the client has left")
        body = self.step(message)
        kind = message["type"]
        if kind == "http.response.body":
            if self._begun or not self.done or self._bodiless:
                self._piece(body)
            else:
                self._whole(body)
        elif kind == "http.response.start":
            if self.state is START:
                self._interim(message["status"], message.get("headers") or ())
            elif not self._holding:
                self._started()
        elif kind == "http.response.early_hint":
            self._interim(103, [(b"link", bytes(link)) for link in message.get("links", ())])
        elif kind == "http.response.trailers":
            self._trailers = [*self._trailers, *check_headers(message.get("headers") or ())[0]]
            if self.done:
                self._end(self._trailers)
        elif kind == "http.response.pathsend":
            await self._file(os.fspath(message["path"]))
        inbox = self._inbox
        if inbox is not None:
            if self.done:
                inbox.answered()
            elif inbox.full():
                await self._room(inbox)

    def _started(self) -> None:
        """The response has a head: it goes out with the first of the body."""

    def _interim(self, status: int, headers: Iterable[Any]) -> None:
        head = informational(status, headers)
        if not self._flags & HTTP10:  # which knows none (RFC 9110, section 15.2)
            self._post(0, head)

    def _whole(self, body: bytes) -> None:
        self._answer = body
        if not self._holding:
            self._post_answer(0)

    def _post_answer(self, done: int) -> None:
        """Post the response that was sent in one go."""
        site, worker, body = self._site, self._worker, self._answer
        assert body is not None
        self._answer = None
        self._begun = True
        status = self.status
        head, close = whole(self._flags, site.date, site.extra, status_line(status), self._block, len(body))
        flags = FIRST | LAST | CLOSE | done if close else FIRST | LAST | done
        size = len(body)
        if size < f.LOAN_SIZE:
            worker.post((f.WIRE, self._call, status, flags, head + body, None, b"", size))
        else:
            worker.post(*wire_frame(worker, self._call, status, flags, head, body, b""))

    async def _room(self, inbox: Inbox) -> None:
        self.release()
        while inbox.full():
            if inbox.gone:
                raise ClientGone("the client has left")
            inbox.room = Waiter(self._worker.loop)
            await inbox.room

    async def _file(self, path: str) -> None:
        """`http.response.pathsend` (ASGI "Path Send"): the bytes of a file are the whole body."""
        with open(path, "rb") as file:  # noqa: ASYNC230  it is only given away
            size = os.fstat(file.fileno()).st_size
            if self._left not in (-1, size) and not self._bodiless:
                raise AppProtocolError(f"the file has {size} bytes, its Content-Length says {self._left}")
            self._post(FIRST, self._head(size))
            if size and not self._bodiless:
                give_file(self._worker, self._call, self.status, self._wire, os.dup(file.fileno()), 0, size)
                return
        self._post(LAST, b"")

    # onto the wire

    def _keep(self, headers: Iterable[Any]) -> int:
        self._block = block(headers)
        return self._block.length

    def _head(self, length: int) -> bytes:
        self._begun = True
        self._wire = Wire(self._flags, self._site.date, self._site.extra)
        return self._wire.head(self.status, self._block, length, bodiless=self._bodiless)

    def _piece(self, body: bytes) -> None:
        flags = 0
        head = b""
        if not self._begun:
            flags = FIRST
            head = self._head(len(body) if self.done else -1)
        wire = self._wire
        tail = b""
        if body:
            head += wire.before(len(body))
            tail = wire.after()
        if self.done:
            flags |= LAST
            tail += wire.end()
        self._post(flags, head, body, tail)

    def _end(self, trailers: Headers) -> None:
        self._post(LAST, b"", b"", self._wire.end(trailers))

    def _post(self, flags: int, head: bytes, body: bytes = b"", tail: bytes = b"") -> None:
        if flags & LAST:
            self._last(flags | CLOSE if self._wire.close else flags, head, body, tail)
        else:
            inbox = self._open()
            inbox.sent += len(head) + len(body) + len(tail)
            if not self._joined(flags, head, body, tail):
                inbox.sent += WEIGHT
                self._out(flags, head, body, tail)

    def _last(self, flags: int, head: bytes, body: bytes, tail: bytes = b"") -> None:
        if self._holding:
            self._held = flags, head, body, tail
        elif not self._joined(flags, head, body, tail):
            self._out(flags, head, body, tail)

    def _joined(self, flags: int, head: bytes, body: bytes, tail: bytes) -> bool:
        """Add a small piece to the frame before, if that is this response's and was not sent yet: the front need not
        handle and write each piece that an app sends in one breath. False if it needs a frame of its own."""
        frames = self._worker.frames
        if flags & FIRST or not frames:
            return False
        last = frames[-1]
        size = len(body)
        if last[0] != f.WIRE or last[1] != self._call or last[5] is not None or len(last[4]) + size >= f.LOAN_SIZE:
            return False
        data = b"".join((last[4], head, body, tail))
        frames[-1] = (f.WIRE, self._call, self.status, last[3] | flags, data, None, b"", last[7] + size)
        return True

    def _out(self, flags: int, head: bytes, body: bytes, tail: bytes) -> None:
        self._worker.post(*wire_frame(self._worker, self._call, self.status, flags, head, body, tail))
