"""One HTTP request over HTTP/2: a stream on one side, a generic exchange with a worker on the other.

The app may send as much as the client takes and `worker.streams.HIGH_WATER` bytes more: what has left is acknowledged
to the worker. The request's body: `h2_upload`.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Concatenate, Final

from h2.errors import ErrorCodes

from ..call import DONE
from ..channels import frames as f
from ..channels.exchange import WEIGHT, weight
from ..channels.frames import Frame
from ..errors import PoolOverloaded, SubpoolError
from ..scope import pack
from ..types import Headers
from .failure import answer_for, log_request, told
from .front import NEVER
from .h2_headers import Request, block, plain, response
from .h2_upload import Upload
from .target import decoded

if TYPE_CHECKING:
    from ..member import Member
    from .h2_stream import Stream

log = logging.getLogger("subpool")

ACK: Final = 64 * 1024  # bytes of a response that the worker is told of at once
EXTENSIONS: Final[dict[str, Any]] = {"http.response.trailers": {}, "http.response.early_hint": {}}


def _guarded[**P](method: Callable[Concatenate[H2Call, P], None]) -> Callable[Concatenate[H2Call, P], None]:
    """What goes wrong with one request must not reach the others of its worker."""

    @functools.wraps(method)
    def guarded(call: H2Call, /, *args: P.args, **kwargs: P.kwargs) -> None:
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
    dispatched = False
    over = False  # the worker has let go of it
    trailers: Headers | None = None  # the app has promised some
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
        """Call the app."""
        stream = self.stream
        connection = stream.connection
        front, listener, client = connection.front, connection.listener, connection.client
        raw_path, _, query = self.url.partition(b"?")
        mount = front.find(self.url)
        if mount is None:
            self.answer(404, "no app is mounted here")
            return
        self.mount = mount
        if (self.request.length or 0) > mount.max_body:
            self.answer(413, "the body of the request is too large")
            return
        scheme, headers = listener.scheme, self.headers
        if self.request.forwarded:
            client, scheme, headers = front.speaker(listener, client, headers)
        scope = {
            "type": "http", "http_version": "2", "method": self.method, "scheme": scheme, "path": decoded(raw_path),
            "raw_path": raw_path, "query_string": query, "root_path": front.config.root_path + mount.prefix,
            "headers": headers, "client": client, "server": listener.server,
            "extensions": EXTENSIONS if listener.tls is None else {**EXTENSIONS, "tls": listener.tls},
        }  # fmt: skip
        self.frame = (f.CALL_EXCHANGE, self.id, mount.app, None, pack(scope), None)
        front.requests += 1
        self.started_at = front.now if front.access is None else front.loop.time()
        try:
            mount.engine.submit(self)
        except PoolOverloaded:
            self.answer(503, "too many requests wait", [(b"retry-after", b"1")])
        except SubpoolError as error:
            log.error("%s %s: %s", self.method, self.url.decode("latin-1"), error)
            self.answer(503, "not available")
        else:
            self.dispatched = True
            self.wait()

    def _leave(self) -> None:
        """Nobody waits any more: the app hears of it, and may end as it likes. It is not run if it has not begun."""
        if self.gone:
            return
        self.gone = True
        if not self.dispatched or self.over or self.mount is None:
            return
        self._told = self.member
        self.mount.engine.leave(self)
        if self.state == DONE:
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
        self._acknowledge(size + weight)

    def _acknowledge(self, size: int) -> None:
        self.unacknowledged += size
        if self.unacknowledged >= ACK and self.member is not None and not (self.over or self.gone):
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
        elif self.wants and not self.stream.complete:
            self._refuse(408, "the body of the request did not come in time")
        elif self.mount is not None:
            self.mount.engine.expire(self)

    def drain(self) -> None:
        """What is under way is finished."""

    # from the worker, see `Call`

    @_guarded
    def wanted(self) -> None:
        if self.gone:
            self._tell()
        else:
            self.asked()

    @_guarded
    def message(self, message: dict[str, Any], data: Any) -> None:
        if isinstance(data, memoryview):
            loan, data = data, bytes(data)
            if self.member is not None:
                self.member.give_back(loan)
        if self.gone:
            self._tell()
            return
        try:
            self._on_message(message["type"], message, data)
        except ValueError as error:
            self._blame(str(error))

    def _on_message(self, kind: str, message: dict[str, Any], data: bytes | None) -> None:
        stream = self.stream
        if stream.ending:
            self._acknowledge(weight(message, len(data or b"")))
            return
        if kind == "http.response.body":
            if data:
                stream.send(data, WEIGHT)
            else:
                self._acknowledge(WEIGHT)
            if not message["more_body"] and self.trailers is None:
                stream.end()
        elif kind == "http.response.start":
            self._start(message["status"], message)
        elif kind == "http.response.trailers" and self.trailers is not None:
            self.trailers += block(message["headers"])[0]
            if not message["more_trailers"]:
                stream.end(self.trailers)
        elif kind == "http.response.early_hint":
            links = block([(b"link", link) for link in message["links"]])[0]
            stream.informational(103, links, weight(message, 0))
        else:
            self._blame(f"{kind!r} is not offered over HTTP/2")

    def _start(self, status: int, message: dict[str, Any]) -> None:
        if status == 101:
            self._blame("there is no status 101 in HTTP/2")
        elif status < 200:
            self.stream.informational(status, block(message["headers"])[0], weight(message, 0))
        else:
            connection = self.stream.connection
            headers = message["headers"]
            head = response(status, headers, connection.front.config.date_header, connection.server_header)
            self.status = status
            bodiless = self.method == "HEAD" or status in (204, 304)
            self.stream.start(head, sized=not bodiless and b"content-length" not in block(headers)[1])
            if bodiless:
                self.stream.end()  # with the head: what follows is not sent
            elif message.get("trailers"):
                self.trailers = []
            self.wait()

    @_guarded
    def finish(self, frame: Frame) -> None:
        """The app has returned."""
        self._settled()
        if not self.gone and not self.stream.ending:
            self._break()

    @_guarded
    def fail(self, error: BaseException) -> None:
        """The request failed. After the start there is no way but to break off."""
        self._settled()
        if self.gone:
            return
        self._log(told(error))
        if not self.stream.ending:
            self._break(*answer_for(error))

    def _blame(self, what: str) -> None:
        """The app broke its protocol, in a way that the worker lets pass."""
        self._log(what)
        self._leave()
        self._break()

    def _log(self, what: str) -> None:
        log_request(self.id, self.method, self.url, what)

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
        self.stream.start(head, sized=False)
        self.stream.due = NEVER
        if self.method != "HEAD":
            self.stream.send(body)
        self.stream.end()
