"""One HTTP request over HTTP/2: a stream on one side, a call to a worker on the other.

A worker answers in WIRE frames (`worker.h2`): header lists and data, checked there. The app may send as much as the
client takes and `worker.streams.HIGH_WATER` bytes more: what has left is acknowledged to the worker. The body of the
request: `h2_upload`.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Concatenate, Final

from h2.errors import ErrorCodes

from ..channels import frames as f
from ..channels.frames import Frame
from ..errors import PoolOverloaded, SubpoolError
from ..hostcall import DONE as OVER
from ..types import Headers
from ..wire import DONE, FIRST, HTTP2, LAST
from .failure import answer_for, log_request, told
from .front import NEVER
from .h2_headers import Request, plain
from .h2_upload import WHOLE, Upload

if TYPE_CHECKING:
    from ..hearing import Hearing
    from ..member import Member
    from .front import Mount
    from .h2_stream import Stream

log = logging.getLogger("subpool")

ACK: Final = 64 * 1024  # bytes of a response that the worker is told of at once


def guarded[C: H2Call, **P](method: Callable[Concatenate[C, P], None]) -> Callable[Concatenate[C, P], None]:
    """What goes wrong with one request must not reach the others of its worker."""

    @functools.wraps(method)
    def guarded(call: C, /, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            method(call, *args, **kwargs)
        except Exception:
            log.exception("a request could not be served: %r", call)
            call.stream.connection.abort()

    return guarded


class H2Call(Upload):
    """Defaults live on the class: an instance stores what differs. The access log reads it, see `access.Logged`."""

    version = "2"
    flags = 0
    status = 0
    sent = 0  # bytes of the body of the response
    started_at = 0.0
    client: tuple[str, int] | None = None  # who asked, where that is not the connection's peer
    dispatched = False
    over = False  # the worker has let go of it
    unacknowledged = 0
    _told: Member | None = None  # the worker that knows that the client has gone
    _counted = False  # among the connection's `abandoned`

    def __init__(self, number: int, stream: Stream, request: Request) -> None:
        super().__init__(number, stream, request)
        self.method = request.method
        self.url = request.target
        self.headers = request.headers
        stream.user = self

    def __repr__(self) -> str:
        return f"<H2Call {self.id} {self.method} {self.url!r:.60} {self.stream!r}>"

    # to the worker

    def begin(self) -> None:
        """Call the app; if the body is small, when it is here."""
        stream, request = self.stream, self.request
        front = stream.connection.front
        mount = front.only or front.find(self.url)
        if mount is None:
            self.answer(404, "no app is mounted here")
            return
        self.mount = mount
        length = request.length
        if length is not None and length > mount.max_body:
            self.answer(413, "the body of the request is too large")
        elif stream.complete:
            self._dispatch(mount, b"")
        elif length is None or length > WHOLE or request.expect:
            self._dispatch(mount, None)
        else:
            self.gathers = True
            self.wait()

    def _gathered(self) -> None:
        assert self.mount is not None
        self._dispatch(self.mount, self.whole_body())

    def _dispatch(self, mount: Mount, body: bytes | None) -> None:
        connection = self.stream.connection
        front, listener = connection.front, connection.listener
        client, scheme = connection.client, listener.scheme
        headers: Headers | bytes = self.request.block or self.headers
        if self.request.forwarded:
            client, scheme, headers = front.speaker(listener, client, self.headers)
            self.client = client
        site = front.site(listener, mount, scheme, listener.server)
        request = (site, self.method, self.url, headers, client, HTTP2)
        self.frame = (f.CALL_HTTP, self.id, mount.app, mount.namespace, request, body)
        front.requests += 1
        self.started_at = front.now if front.access is None else front.loop.time()
        try:
            mount.engine.submit(self)
        except SubpoolError as error:
            self._not_taken(error)
        else:
            self.dispatched = True
            self.wait()

    def _not_taken(self, error: SubpoolError) -> None:
        """The pool takes no request."""
        if isinstance(error, PoolOverloaded):
            self.answer(503, "too many requests wait", [(b"retry-after", b"1")])
        else:
            log.error("%s %s: %s", self.method, self.url.decode("latin-1"), error)
            self.answer(503, "not available")

    def _leave(self) -> None:
        """Nobody waits any more: the app hears of it, and may end as it likes. It is not run if it has not begun."""
        if self.gone:
            return
        self.gone = True
        if not self.dispatched or self.over or self.mount is None:
            return
        self._told = self.member
        self.mount.engine.leave(self)
        if self.state == OVER:
            self.over = True
        else:
            self._counted = True
            self.stream.connection.abandoned += 1

    def _settled(self) -> None:
        """The worker has let go of it."""
        self.over = True
        if self._counted:
            self._counted = False
            self.stream.connection.abandoned -= 1

    def _tell(self) -> None:
        """The worker that has it now may not be the one that was told."""
        if self.member is not None and self.member is not self._told:
            self._told = self.member
            self.member.link.flow((f.GONE, self.id))

    # from the client, see `h2_stream.User`

    def left(self) -> None:
        connection = self.stream.connection
        if connection.front.access is not None and self.stream.begun:
            connection.front.access.log(connection, self)
        self.drop()
        self._leave()

    def wrote(self, size: int, weight: int) -> None:
        self.sent += size
        if self.over:
            return
        self.unacknowledged += weight
        if self.unacknowledged >= ACK and self.member is not None and not self.gone:
            self.member.link.flow((f.ACK, self.id, self.unacknowledged))
            self.unacknowledged = 0

    def ended(self) -> None:
        connection = self.stream.connection
        if connection.front.access is not None:
            connection.front.access.log(connection, self)
        self.drop()
        if not self.stream.complete and self.wants:
            self._leave()

    def expired(self) -> None:
        if self.stream.begun:
            self.stream.reset(ErrorCodes.CANCEL, blame=True)
        elif (self.wants or self.gathers) and not self.stream.complete:
            self._refuse(408, "the body of the request did not come in time")
        elif self.mount is not None:
            self.mount.engine.expire(self)

    def drain(self) -> None:
        """What is under way is finished."""

    # from the worker, see `Call`

    @guarded
    def wanted(self) -> None:
        if self.gone:
            self._tell()
        else:
            self.asked()

    @guarded
    def whole(self, member: Hearing, frame: Frame, body: Any) -> None:
        self._settled()
        if isinstance(body, memoryview):
            body = _copied(member, body)
        stream = self.stream
        if not (self.gone or stream.ending):
            self.status = frame[2]
            stream.due = NEVER
            stream.answer(frame[4], body, frame[6])

    @guarded
    def wire(self, member: Hearing, frame: Frame, body: Any) -> None:
        flags, head = frame[3], frame[4]
        if flags & DONE:
            self._settled()
        if isinstance(body, memoryview):
            body = _copied(member, body)
        stream = self.stream
        if self.gone:
            if not flags & DONE:
                self._tell()
        elif not stream.ending:
            if flags & FIRST:
                self.status = frame[2]
                stream.start(head)
                self.wait()
            elif head is not None:
                stream.informational(head)
            if body is not None:
                stream.send(body)
            if flags & LAST:
                stream.end(frame[6] or ())

    @guarded
    def finish(self, frame: Frame) -> None:
        """The app has returned."""
        self._settled()
        if not self.gone and not self.stream.ending:
            self._break()

    @guarded
    def fail(self, error: BaseException) -> None:
        """The request failed. After the start there is no way but to break off."""
        self._settled()
        if self.gone:
            return
        log_request(self.id, self.method, self.url, told(error))
        if not self.stream.ending:
            self._break(*answer_for(error))

    # responses of our own

    def _break(self, status: int = 500, text: str = "Internal Server Error") -> None:
        """The app will not complete its response."""
        if self.stream.begun:
            self.stream.connection.row.push(self.stream)
            self.stream.reset(ErrorCodes.INTERNAL_ERROR)
        else:
            self.answer(status, text)

    def _refuse(self, status: int, text: str) -> None:
        """The client did what it may not: the app hears no more of it."""
        self._leave()
        if self.stream.begun:
            self.stream.reset(ErrorCodes.CANCEL)
        else:
            self.answer(status, text)

    def answer(self, status: int, text: str, more: Headers | None = None) -> None:
        """A whole response of the server's own, in plain text."""
        if self.stream.ending:
            return
        self.status = status
        head, body = plain(status, text, more or [], self.stream.connection.server_header)
        self.stream.due = NEVER
        self.stream.answer(head, None if self.method == "HEAD" else body)


def _copied(member: Hearing, loan: memoryview) -> bytes:
    """A loan as bytes; it is given back. What waits for a client's window may wait for long."""
    data = bytes(loan)
    member.give_back(loan)
    return data
