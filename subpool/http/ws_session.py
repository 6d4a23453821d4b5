"""A WebSocket between its client and its app, whatever carries it: bytes here, messages of an exchange there.

    OPENING (the app has not answered) -> OPEN -> CLOSING (our Close is out, the client's is not here) -> OVER
        `-> DENYING (a response of the app's) ->-'                `------------- the client's Close ----^

The client is read as fast as the app keeps up (`ws_inlet`, `ws_mailbox`), the app may send as fast as the client reads
(`ws_outlet`).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from ..channels import frames as f
from ..channels.exchange import WEIGHT, AppProtocolError
from ..channels.frames import Frame
from ..errors import PoolOverloaded, SubpoolError, WebSocketUnsupported
from ..hostcall import SENT, STARTED, Call
from ..scope import pack
from ..types import Headers
from .failure import told
from .front import NEVER
from .ws_answer import ABNORMAL, INTERNAL, NORMAL, RESTART, agree, closing, is_end, refusal
from .ws_inlet import Inlet
from .ws_mailbox import AHEAD, Mailbox
from .ws_messages import CLOSE, PING, Messages
from .ws_outlet import Outlet

if TYPE_CHECKING:
    from .front import Front, Mount
    from .ws_carrier import Carrier

log = logging.getLogger("subpool")
errors = logging.getLogger("subpool.error")

OPENING, DENYING, OPEN, CLOSING, OVER = "opening", "denying", "open", "closing", "over"

CLOSING_TIME: Final = 5.0  # seconds that a client has to answer our Close
LINGER: Final = 2.0  # seconds that a client has to read our last words
_RETRY: Final[Headers] = [(b"retry-after", b"1")]


class Session(Call):
    """One WebSocket; for the pool it is the call that the app runs as."""

    websocket = True

    def __init__(
        self, front: Front, mount: Mount, carrier: Carrier, number: int, scope: dict[str, Any], offers: list[str]
    ) -> None:  # fmt: skip
        """`number`: the request's; `offers`: the extensions that the client offers."""
        self.id = number
        self.frame = (f.CALL_WEBSOCKET, number, mount.app, mount.namespace, pack(scope), AHEAD)
        self.phase = OPENING
        self._front = front
        self._mount = mount
        self._carrier = carrier
        self._path: str = scope["raw_path"].decode("latin-1")  # for the log: a path may hold line ends
        self._subprotocols: list[str] = scope["subprotocols"]
        self._offers = offers
        self._messages: Messages | None = None  # from the accept on
        self._inbox = Mailbox(mount.engine, self)
        self._inlet = Inlet(front.loop, carrier, self._inbox, self)
        self._outlet = Outlet(carrier, self)
        self._pinged = False
        self._pong: bytes | None = None  # the answer to a ping that there was no room for

    def __repr__(self) -> str:
        return f"<Session {self.id} {self._path!r:.60} {self.phase}>"

    def begin(self) -> None:
        """Call the app."""
        self._carrier.deadline = self._front.now + self._mount.timeout
        self._front.requests += 1
        try:
            self._mount.engine.submit(self)
        except PoolOverloaded:
            self._refuse(503, "too many WebSockets, or requests that wait", _RETRY)
        except SubpoolError as error:
            self._log(error)
            self._refuse(503, "not available")

    def _log(self, what: object) -> None:
        errors.error("request %d, WebSocket %s: %s", self.id, self._path, what)

    # the client

    def receive(self, data: bytes) -> None:
        """Bytes of the client."""
        self.heard()
        self._inlet.receive(data)

    def heard(self) -> None:
        """The client is alive."""
        self._pinged = False
        if self.phase is OPEN and not self._outlet.behind:
            self._carrier.deadline = self._front.now + self._front.config.websocket_idle_timeout

    def hear(self, kind: str, data: str | bytes, code: int) -> None:
        """The client sent something that is no message."""
        assert self._messages is not None
        if kind is PING:
            assert isinstance(data, bytes)
            self._answer_ping(data)
        elif kind is CLOSE:
            self._outlet.write(self._messages.close(code, str(data)))
            self._tell(code, str(data))
            self._over(True)
        else:
            self._fail(code, str(data), code)

    def _answer_ping(self, payload: bytes) -> None:
        """Only the last ping is answered, when there is room for it (RFC 6455, section 5.5.3)."""
        assert self._messages is not None
        if self._outlet.behind:
            self._pong = payload
        elif self._messages.open:
            self._outlet.write(self._messages.pong(payload))

    def full(self) -> None:
        """The client does not read what was written."""
        self._outlet.full()
        if self.phase is not OPENING:
            self._carrier.deadline = self._front.now + self._front.config.write_timeout

    def room(self) -> None:
        """The client has read everything."""
        self._outlet.room()
        self.heard()
        if self.phase is DENYING:
            self._carrier.deadline = NEVER
        elif self.phase in (CLOSING, OVER):
            self._carrier.deadline = self._front.now + CLOSING_TIME
        if self._pong is not None:
            pong, self._pong = self._pong, None
            self._answer_ping(pong)

    def left(self) -> None:
        """The carrier is gone."""
        self.phase = OVER
        self._inlet.end(lost=True)
        self._carrier.deadline = NEVER
        self._tell(ABNORMAL, "")

    # the worker, see `Call`

    def taken(self, count: int) -> None:
        self._inbox.taken(count)
        self._inlet.take_soon()

    def message(self, message: dict[str, Any] | None, data: Any) -> None:
        if isinstance(data, memoryview):
            loan, data = data, bytes(data)
            if self.member is not None:
                self.member.give_back(loan)
        try:
            if self._inbox.ended:
                self._inbox.retell()
            elif message is not None:
                self._on_message(message["type"], message, data)
            elif self.phase is OPEN:
                self._send(data)
        except Exception as error:
            self._abort(error)

    def flush(self) -> None:
        try:
            self._outlet.flush()
        except Exception as error:
            self._abort(error)

    def _abort(self, error: Exception) -> None:
        """What is wrong with one session must not reach the others of its worker."""
        log.error("a WebSocket could not be served: %r", self, exc_info=error)
        self._carrier.abort()

    def _on_message(self, kind: str, message: dict[str, Any], data: bytes | None) -> None:
        if self.phase is OPEN:
            if kind == "websocket.close":
                self._on_close(message["code"], message["reason"])
        elif self.phase is OPENING:
            if kind == "websocket.accept":
                self._accept(message["subprotocol"], message["headers"])
            elif kind == "websocket.close":
                self._refuse(403, "the app refused the WebSocket")
            elif kind == "websocket.http.response.start":
                self._deny(message["status"], message["headers"])
        elif self.phase is DENYING and kind == "websocket.http.response.body":
            data = data or b""
            self._carrier.deny_body(data, message["more_body"])
            if message["more_body"]:
                self._outlet.count(len(data) + WEIGHT)
            else:
                self._over(False)
                self._tell(ABNORMAL, "")

    def finish(self, frame: Frame) -> None:
        """The app has returned. A worker lets it do so only after it has closed, or knew that the client had gone."""
        if self.phase is OPEN:
            self._close(NORMAL, "")
        elif self.phase in (OPENING, DENYING):
            self._carrier.abort()

    def _log_failure(self, error: BaseException) -> None:
        if not isinstance(error, WebSocketUnsupported) and not (self._inbox.ended and is_end(error)):
            self._log(told(error))

    def fail(self, error: BaseException) -> None:
        self._log_failure(error)
        if self.phase is OPENING:
            self._refuse(*refusal(error))
        elif self.phase is DENYING:
            self._carrier.abort()
        elif self.phase is OPEN:
            ends = self._front.draining or self._mount.engine.closing
            self._close(RESTART if ends else INTERNAL, "")

    # the app's messages

    def _accept(self, subprotocol: str | None, headers: Headers) -> None:
        config = self._front.config
        try:
            headers, deflate = agree(config, self._subprotocols, self._offers, subprotocol, headers)
        except AppProtocolError as error:
            self._blame(error)
            return
        self._messages = Messages(config.websocket_max_message, deflate)
        self.phase = OPEN
        self.frame = ()  # the app runs: it is not begun again
        self.heard()
        self._carrier.accept(headers)
        self._inlet.open(self._messages)

    def _send(self, data: str | bytes) -> None:
        assert self._messages is not None
        try:
            out = self._messages.text(data) if isinstance(data, str) else self._messages.binary(data)
        except UnicodeEncodeError as error:
            self._blame(f"the text of 'websocket.send' is not valid: {error.reason}")
            return
        self._outlet.send(out, len(data) + WEIGHT)  # as the worker counts: characters

    def _on_close(self, code: int, reason: str) -> None:
        try:
            self._close(closing(code), reason)
        except AppProtocolError as error:
            self._blame(error)

    def _deny(self, status: int, headers: Headers) -> None:
        if status < 200:
            self._blame(f"a response cannot have the status {status}")
            return
        self.phase = DENYING
        self._inlet.end()
        self._carrier.deadline = NEVER
        self._carrier.deny(status, headers)

    def _blame(self, what: object) -> None:
        """The app broke its protocol, in a way that the worker lets pass."""
        self._log(what)
        if self.phase is OPENING:
            self._refuse(500, "Internal Server Error")
        else:
            self._close(INTERNAL, "")
            self._tell(INTERNAL, "")

    # the end

    def _tell(self, code: int, reason: str) -> None:
        """The app hears that this is over. Nobody waits for it any more, but it must end."""
        if self._inbox.ended:
            return
        self._inbox.end(code, reason)
        if self.state in (SENT, STARTED) and self._mount.timeout < NEVER:
            self.timeout = self._mount.timeout
            self._mount.engine.clock.begin(self)

    def _refuse(self, status: int, text: str, headers: Headers | None = None) -> None:
        """No WebSocket."""
        self._over(False)
        self._carrier.refuse(status, text, headers or [])
        self._tell(ABNORMAL, "")

    def _close(self, code: int, reason: str) -> None:
        """Say that we close, and wait for the client's answer."""
        assert self._messages is not None
        front = self._front
        self.phase = CLOSING
        self._outlet.write(self._messages.close(code, reason))
        self._carrier.deadline = front.now + (front.config.write_timeout if self._outlet.behind else CLOSING_TIME)
        self._inbox.close()
        self._inlet.take_soon()

    def _fail(self, code: int, reason: str, told: int) -> None:
        """Nothing that the client sends is believed any more (RFC 6455, section 7.1.7)."""
        assert self._messages is not None
        self._outlet.write(self._messages.close(code, reason))
        self._tell(told, reason)
        self._over(False)

    def _over(self, clean: bool) -> None:
        front = self._front
        self.phase = OVER
        self._inlet.end()
        self._carrier.deadline = front.now + (front.config.write_timeout if self._outlet.behind else LINGER)
        if self._messages is not None:  # else the answer is the end of it
            self._carrier.close(clean)

    # the front

    def drain(self) -> None:
        """The server ends."""
        if self.phase is OPENING:
            self._refuse(503, "the server ends", _RETRY)
        elif self.phase is OPEN:
            self._close(RESTART, "")
            self._tell(RESTART, "")

    def expired(self) -> None:
        """The carrier's deadline has passed."""
        carrier, config, now = self._carrier, self._front.config, self._front.now
        if self.phase is OPENING:
            self._mount.engine.expire(self)
        elif self._outlet.behind and self._outlet.advanced():
            carrier.deadline = now + config.write_timeout
        elif self.phase is not OPEN or self._outlet.behind:
            carrier.abort()
        elif self._pinged and not self._inlet.holding:
            self._fail(INTERNAL, "no answer to a ping", ABNORMAL)
        else:
            assert self._messages is not None
            self._outlet.write(self._messages.ping())
            carrier.deadline = now + config.websocket_idle_timeout
            self._pinged = True
