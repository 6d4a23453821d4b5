"""The request's half of a call over HTTP/2: its body, and the clock for what the call waits for.

A small body that has a length is awaited, and goes to the worker with the head; any other when the app asks for it. The
client may send as much as the app has asked for and `h2.HELD` bytes more: what is held is acknowledged to the
client when the app reads it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from h2.errors import ErrorCodes

from ..hostcall import Call
from .front import NEVER
from .h2_guard import REFUSED
from .h2_headers import Request

if TYPE_CHECKING:
    from .front import Mount
    from .h2_stream import Stream

WHOLE: Final = 16 * 1024  # bytes of a body that is awaited


class Upload(Call):
    """Defaults live on the class: an instance stores what differs."""

    mount: Mount | None = None
    size = 0  # of the body so far
    wants = False  # the app waits for a piece
    given = False  # it was given the last one
    gathers = False  # the app is called when the body is here
    gone = False  # nobody waits for the app's response any more

    def __init__(self, number: int, stream: Stream, request: Request) -> None:
        self.id = number
        self.stream = stream
        self.request = request
        self.expect = request.expect
        self.held = bytearray()  # until the app asks

    def _refuse(self, status: int, text: str) -> None:
        """The client did what it may not."""
        raise NotImplementedError

    def _gathered(self) -> None:
        """The body is here."""
        raise NotImplementedError

    def wait(self) -> None:
        """Set the clock for what is waited for now: the client's body, the start of the response, or nothing."""
        front = self.stream.connection.front
        if (self.wants or self.gathers) and not self.stream.complete:
            self.stream.wait(front.now + front.config.body_timeout)
        elif self.stream.begun or self.mount is None:
            self.stream.due = NEVER
        else:
            self.stream.wait(front.now + self.mount.timeout)

    def asked(self) -> None:
        """The app waits for a piece."""
        self.wants = True
        stream = self.stream
        if self.expect and not self.size and not stream.complete:
            stream.informational([(b":status", b"100")])
        self.expect = False
        if not self.given and (self.held or stream.complete):
            data, self.held = bytes(self.held), bytearray()
            self._give(data)
        self.wait()

    def _give(self, data: bytes) -> None:
        """The app has asked for it."""
        assert self.mount is not None
        complete = self.stream.complete
        self.wants = False
        self.given = complete
        self.mount.engine.send_event(self, {"type": "http.request", "more_body": not complete}, data)
        self.stream.read(len(data))

    def received(self, data: bytes, last: bool) -> None:
        length = self.request.length
        self.size += len(data)
        if self.gone or self.stream.ending:
            self.stream.read(len(data))
        elif length is not None and (self.size > length or (last and self.size < length)):
            self.held += data
            self.stream.reset(ErrorCodes.PROTOCOL_ERROR, blame=True)
        elif self.mount is not None and self.size > self.mount.max_body:
            self.held += data
            self.stream.connection.guard.spend(REFUSED)
            self._refuse(413, "the body of the request is too large")
        else:
            if self.wants and (data or last):
                self._give(data)
            else:
                self.held += data
                if self.gathers and last:
                    self._gathered()
                    return
            self.wait()

    def whole_body(self) -> bytes:
        """The whole body, for the app; the client may send as much on other streams."""
        data, self.held = bytes(self.held), bytearray()
        self.given = True
        self.stream.read(len(data))
        return data

    def drop(self) -> None:
        """What the app did not read is forgotten; other streams need the room."""
        held, self.held = len(self.held), bytearray()
        self.stream.read(held)
