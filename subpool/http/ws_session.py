"""A WebSocket between its client and its app, whatever carries it: bytes here, messages of an exchange there.

    OPENING (the app has not answered) -> OPEN -> CLOSING (our Close is out, the client's is not here) -> OVER
        `-> DENYING (a response of the app's) ->-'                `------------- the client's Close ----^

The client is read as fast as the app asks: when enough whole messages wait, frames behind them are not even looked at.
The app may send as fast as the client reads: what it sent is acknowledged while the carrier has room.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from ..call import Call
from ..channels import frames as f
from ..channels.exchange import WEIGHT, AppProtocolError
from ..channels.frames import Frame
from ..errors import PoolOverloaded, SubpoolError
from ..scope import pack
from ..types import Headers
from .failure import told
from .front import NEVER
from .ws_answer import ABNORMAL, INTERNAL, NORMAL, RESTART, agree, closing, is_end, is_wsgi, refusal
from .ws_mailbox import HELD, Mailbox
from .ws_messages import BINARY, CLOSE, FAILED, PING, TEXT, Messages

if TYPE_CHECKING:
    from .front import Front, Mount
    from .ws_carrier import Carrier

log = logging.getLogger("subpool")
errors = logging.getLogger("subpool.error")

OPENING, DENYING, OPEN, CLOSING, OVER = "opening", "denying", "open", "closing", "over"

FRAMES: Final = 256  # of one client, that are looked at in one turn of the loop
ACK: Final = 64 * 1024  # bytes for the client that the worker is told of at once
CLOSING_TIME: Final = 5.0  # seconds that a client has to answer our Close
LINGER: Final = 2.0  # seconds that a client has to read our last words
_RETRY: Final[Headers] = [(b"retry-after", b"1")]


class Session(Call):
    """One WebSocket; for the pool it is the call that the app runs as."""

    def __init__(
        self, front: Front, mount: Mount, carrier: Carrier, number: int, scope: dict[str, Any], offers: list[str]
    ) -> None:  # fmt: skip
        """`number`: the request's; `offers`: the extensions that the client offers."""
        self.id = number
        self.frame = (f.CALL_EXCHANGE, number, mount.app, None, pack(scope), None)
        self.phase = OPENING
        self._front = front
        self._mount = mount
        self._carrier = carrier
        self._path: str = scope["raw_path"].decode("latin-1")  # for the log: a path may hold line ends
        self._subprotocols: list[str] = scope["subprotocols"]
        self._offers = offers
        self._messages: Messages | None = None  # from the accept on
        self._early = b""  # what came before it
        self._inbox = Mailbox(mount.engine, self)
        self._holding = self._booked = False  # the client is not read; `_take` will go on in the loop's next turn
        self._behind = False  # the client does not read
        self._unsent = self._unacknowledged = 0  # bytes: with the carrier when last looked at; that the app waits for
        self._pinged = False
        self._pong: bytes | None = None  # the answer to a ping that there was no room for

    def __repr__(self) -> str:
        return f"<Session {self.id} {self._path!r:.60} {self.phase}>"

    def begin(self) -> None:
        """Call the app."""
        self._inbox.put({"type": "websocket.connect"})
        self._carrier.deadline = self._front.now + self._mount.timeout
        self._front.requests += 1
        try:
            self._mount.engine.submit(self)
        except PoolOverloaded:
            self._refuse(503, "too many requests wait", _RETRY)
        except SubpoolError as error:
            self._log(error)
            self._refuse(503, "not available")

    def _log(self, what: object) -> None:
        errors.error("request %d, WebSocket %s: %s", self.id, self._path, what)

    # the client

    def receive(self, data: bytes) -> None:
        """Bytes of the client."""
        if self.phase is OPENING:
            self._early += data
            if len(self._early) > HELD:
                self._hold(True)
        elif self._messages is not None and self.phase is not OVER:
            self._heard()
            self._messages.feed(data)
            if not self._holding:
                self._take()

    def _heard(self) -> None:
        """The client is alive."""
        self._pinged = False
        if self.phase is OPEN and not self._behind:
            self._carrier.deadline = self._front.now + self._front.config.websocket_idle_timeout

    def _take(self) -> None:
        """Take in what came, as far as the app keeps up, and not for too long at once."""
        assert self._messages is not None
        for number, (kind, data, size) in enumerate(self._messages, 1):
            if kind is CLOSE:
                self._carrier.write(self._messages.close(size, str(data)))
                self._inbox.end(size, str(data))
                self._over(True)
                return
            if kind is FAILED:
                self._fail(size, str(data), size)
                return
            if kind is PING:
                self._answer_ping(data)
            elif self.phase is not OPEN:
                pass  # the app has closed
            elif kind is TEXT:
                self._inbox.put({"type": "websocket.receive", "text": data}, None, size)
            elif kind is BINARY:
                self._inbox.put({"type": "websocket.receive"}, data, size)  # type: ignore[arg-type]
            if self._inbox.full or number == FRAMES:
                self._hold(True)
                self._take_soon()
                return
        self._hold(False)

    def _take_soon(self) -> None:
        """Go on where `_take` stopped, if the app keeps up."""
        if self._holding and not self._booked and not self._inbox.full:
            self._booked = True
            self._front.loop.call_soon(self._take_on)

    def _take_on(self) -> None:
        self._booked = False
        if self._holding and self._messages is not None and self.phase is not OVER and not self._inbox.full:
            self._take()

    def _hold(self, holding: bool) -> None:
        if self._holding is not holding:
            self._holding = holding
            self._carrier.read_on(not holding)
            self._heard()

    def _answer_ping(self, payload: str | bytes | None) -> None:
        """Only the last ping is answered, when there is room for it (RFC 6455, section 5.5.3)."""
        assert isinstance(payload, bytes)
        assert self._messages is not None
        if self._behind:
            self._pong = payload
        elif self._messages.open:
            self._carrier.write(self._messages.pong(payload))

    def full(self) -> None:
        """The client does not read what was written."""
        self._behind = True
        self._unsent = self._carrier.unsent()
        if self.phase is not OPENING:
            self._carrier.deadline = self._front.now + self._front.config.write_timeout

    def room(self) -> None:
        """The client has read everything."""
        self._behind = False
        self._heard()
        if self.phase is DENYING:
            self._carrier.deadline = NEVER
        elif self.phase in (CLOSING, OVER):
            self._carrier.deadline = self._front.now + CLOSING_TIME
        if self._pong is not None:
            pong, self._pong = self._pong, None
            self._answer_ping(pong)
        self._acknowledge(1)

    def left(self) -> None:
        """The carrier is gone."""
        self.phase = OVER
        self._carrier.deadline = NEVER
        self._inbox.end(ABNORMAL, "")

    # the worker, see `Call`

    def wanted(self) -> None:
        self._inbox.wanted()
        self._take_soon()

    def message(self, message: dict[str, Any], data: Any) -> None:
        if isinstance(data, memoryview):
            loan, data = data, bytes(data)
            if self.member is not None:
                self.member.give_back(loan)
        try:
            self._on_message(message["type"], message, data)
        except Exception:  # what is wrong with one session must not reach the others of its worker
            log.exception("a WebSocket could not be served: %r", self)
            self._carrier.abort()

    def _on_message(self, kind: str, message: dict[str, Any], data: bytes | None) -> None:
        if self._inbox.ended:
            self._inbox.gone()  # it did not listen yet when it was told
        elif self.phase is OPEN:
            if kind == "websocket.send":
                self._send(message.get("text"), data)
            elif kind == "websocket.close":
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
                self._acknowledge(ACK, len(data) + WEIGHT)
            else:
                self._over(False)
                self._inbox.end(ABNORMAL, "")

    def finish(self, frame: Frame) -> None:
        """The app has returned. A worker lets it do so only after it has closed, or knew that the client had gone."""
        if self.phase is OPEN:
            self._close(NORMAL, "")
        elif self.phase in (OPENING, DENYING):
            self._carrier.abort()

    def fail(self, error: BaseException) -> None:
        if not is_wsgi(error) and not (self._inbox.ended and is_end(error)):
            self._log(told(error))
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
        self._heard()
        self._carrier.accept(headers)
        if self._early:
            early, self._early = self._early, b""
            self._messages.feed(early)
            self._take()

    def _send(self, text: str | None, data: bytes | None) -> None:
        assert self._messages is not None
        try:
            out = self._messages.binary(data or b"") if text is None else self._messages.text(text)
        except UnicodeEncodeError as error:
            self._blame(f"the text of 'websocket.send' is not valid: {error.reason}")
            return
        self._carrier.write(out)
        size = len(text if text is not None else data or b"")  # as the worker counts: characters
        self._acknowledge(ACK, size + WEIGHT)

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
        self._carrier.deadline = NEVER
        self._carrier.deny(status, headers)

    def _acknowledge(self, least: int, size: int = 0) -> None:
        self._unacknowledged += size
        if self._unacknowledged >= least and not self._behind and self.member is not None:
            self.member.link.flow((f.ACK, self.id, self._unacknowledged))
            self._unacknowledged = 0

    def _blame(self, what: object) -> None:
        """The app broke its protocol, in a way that the worker lets pass."""
        self._log(what)
        if self.phase is OPENING:
            self._refuse(500, "Internal Server Error")
        else:
            self._close(INTERNAL, "")
            self._inbox.end(INTERNAL, "")

    # the end

    def _refuse(self, status: int, text: str, headers: Headers | None = None) -> None:
        """No WebSocket."""
        self._over(False)
        self._carrier.refuse(status, text, headers or [])
        self._inbox.end(ABNORMAL, "")

    def _close(self, code: int, reason: str) -> None:
        """Say that we close, and wait for the client's answer."""
        assert self._messages is not None
        front = self._front
        self.phase = CLOSING
        self._carrier.write(self._messages.close(code, reason))
        self._carrier.deadline = front.now + (front.config.write_timeout if self._behind else CLOSING_TIME)
        self._inbox.clear()
        self._take_soon()

    def _fail(self, code: int, reason: str, told: int) -> None:
        """Nothing that the client sends is believed any more (RFC 6455, section 7.1.7)."""
        assert self._messages is not None
        self._carrier.write(self._messages.close(code, reason))
        self._inbox.end(told, reason)
        self._over(False)

    def _over(self, clean: bool) -> None:
        front = self._front
        self.phase = OVER
        self._hold(False)
        self._carrier.deadline = front.now + (front.config.write_timeout if self._behind else LINGER)
        if self._messages is not None:  # else the answer is the end of it
            self._carrier.close(clean)

    # the front

    def drain(self) -> None:
        """The server ends."""
        if self.phase is OPENING:
            self._refuse(503, "the server ends", _RETRY)
        elif self.phase is OPEN:
            self._close(RESTART, "")
            self._inbox.end(RESTART, "")

    def expired(self) -> None:
        """The carrier's deadline has passed."""
        carrier, config, now = self._carrier, self._front.config, self._front.now
        if self.phase is OPENING:
            self._mount.engine.expire(self)
        elif self._behind and carrier.unsent() < self._unsent:
            self._unsent = carrier.unsent()
            carrier.deadline = now + config.write_timeout
        elif self.phase is not OPEN or self._behind:
            carrier.abort()
        elif self._pinged and not self._holding:
            self._fail(INTERNAL, "no answer to a ping", ABNORMAL)
        else:
            assert self._messages is not None
            carrier.write(self._messages.ping())
            carrier.deadline = now + config.websocket_idle_timeout
            self._pinged = True
