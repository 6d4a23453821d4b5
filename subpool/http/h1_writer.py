"""The answering half of an HTTP/1.1 connection: the workers' bytes, files, answers of our own; the end of a request.

The client's window is the transport's: it takes nothing ahead, so that `_paused` says at once that the client reads
slowly. Then the worker is told of nothing more, and the app waits.
"""

from __future__ import annotations

import sys
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from ..channels import frames as f
from ..channels.exchange import WEIGHT
from ..wire import CLOSE, FIRST, KEEP_ALIVE, LAST, simple
from .call import HTTPCall
from .failure import log_request
from .front import NEVER, Front

if TYPE_CHECKING:
    from ..channels.frames import Frame
    from ..hearing import Hearing
    from .config import ServerConfig
    from .sendfile import FileSender

ACK: Final = 64 * 1024  # bytes of a response that the worker is told of at once
LINGER: Final = 2.0  # seconds that a client has to read our last words


def take_nothing_ahead(transport: Any) -> None:
    """Have the transport pause its protocol as soon as it holds a byte. A plain one pauses above its limit; one of TLS
    at it, so that with 0 it would pause, and be silent, whenever it holds nothing."""
    transport.set_write_buffer_limits(high=0 if transport.get_extra_info("ssl_object") is None else 1)


def joins(transport: Any) -> bool:
    """Whether `writelines` pauses the protocol as `write` does: that of asyncio does not before 3.14."""
    return sys.version_info >= (3, 14) or type(transport).__module__.startswith("uvloop")


class Writer:
    """What goes out over one connection. Whatever is read of it, the other half says."""

    front: Front
    deadline: float
    _calls: deque[HTTPCall]
    _parsing: HTTPCall | None
    _refusal: tuple[int, str] | None
    _config: ServerConfig

    def __init__(self) -> None:
        self._transport: Any = None
        self._keepalive = self._config.keepalive_timeout
        self._current: HTTPCall | None = None  # the request that is being answered
        self._resting = True  # nothing of a request is here, and all answers are out
        self._lingering = False
        self._paused = False  # the client reads slowly
        self._reading = True
        self._pending = b""  # bytes that were read and not parsed
        self._lent: list[tuple[Hearing, memoryview]] = []  # loans that the transport still writes
        self._joins = True  # the transport's `writelines` can be used
        self._written = 0
        self._sender: FileSender | None = None  # of a file that is the rest of the response

    def _go_on(self) -> None:
        """To the next request, if some of it is here, and if the client takes the answers."""
        raise NotImplementedError

    def _read_on(self) -> None:
        raise NotImplementedError

    # how fast the client reads

    def pause_writing(self) -> None:
        self._paused = True
        self._written = self._transport.get_write_buffer_size()
        if self._current is not None and self._current.begun:
            self.deadline = self.front.now + self._config.write_timeout

    def resume_writing(self) -> None:
        self._paused = False
        self._release()
        call = self._current
        if self._sender is not None:
            self._sender.go_on()
        elif call is not None:
            if call.begun:
                self.deadline = NEVER
            self._acknowledge(call, 1)
        elif not self._lingering:
            self.deadline = self.front.now + self._keepalive
            self._go_on()

    def _release(self) -> None:
        """Give back the loans that are written."""
        lent, self._lent = self._lent, []
        for member, loan in lent:
            try:
                member.give_back(loan)
            except BufferError:  # the transport still holds it; its last reference goes with the transport
                member.link.credit(1)

    def _has_written(self) -> bool:
        """Whether the client has taken some of what waits for it since the last look; then it has more time."""
        left = self._transport.get_write_buffer_size() if self._sender is None else self._sender.left
        if not left or left >= self._written:
            return False
        self._written = left
        self.deadline = self.front.now + self._config.write_timeout
        return True

    # from the workers

    def on_whole(self, call: HTTPCall, member: Hearing, frame: Frame, body: Any) -> None:
        """A whole response, after which the connection stays: what `on_wire` and `_done` make of it, in one go."""
        if body is None:
            self._transport.write(frame[4])
        else:
            self._write(member, frame, body)
        if self.front.access is not None or self.front.draining or not call.complete:
            call.begun = True
            call.status = frame[2]
            call.sent = frame[7]
            self._done(call, False)
            return
        self._current = None
        call.connection = None
        self.deadline = self.front.now + self._keepalive
        if self._calls or self._pending or self._paused or not self._reading:
            self._go_on()
        else:
            self._resting = True

    def on_wire(self, call: HTTPCall, member: Hearing, frame: Frame, body: Any) -> None:
        """Bytes for the client."""
        flags = frame[3]
        transport = self._transport
        if transport.is_closing():  # the connection is lost, and its end on the way
            member.drop(body)
            return
        head, tail = frame[4], frame[6]
        size = len(head)
        if flags & FIRST:
            call.begun = True
            call.status = frame[2]
            self.deadline = NEVER
        if body is None:
            transport.write(head)
        elif isinstance(body, tuple):
            self._send_file(call, body, bool(flags & CLOSE))
            return
        else:
            size += len(body) + len(tail)
            self._write(member, frame, body)
        call.sent += frame[7]
        if flags & LAST:
            self._done(call, bool(flags & CLOSE))
        else:
            call.unacknowledged += size + WEIGHT
            if not self._paused:
                self._acknowledge(call, ACK)

    def _write(self, member: Hearing, frame: Frame, body: Any) -> None:
        """Head, body and tail, with one call of the system. A loan is given back when the transport is done with it."""
        transport = self._transport
        parts = [part for part in (frame[4], body, frame[6]) if part]
        if self._joins:
            transport.writelines(parts)
        else:
            for part in parts:
                transport.write(part)
        if isinstance(body, memoryview):
            if self._paused or transport.get_write_buffer_size():
                self._lent.append((member, body))
            else:
                member.give_back(body)

    def _send_file(self, call: HTTPCall, file: tuple[int, int, int], close: bool) -> None:
        """The rest of the response is a part of a file."""
        from .sendfile import FileSender

        def done(error: OSError | None) -> None:
            self._sender = None
            if error is None:
                self._done(call, close)
            else:
                self._abort(call)

        try:
            self._sender = FileSender(self.front.loop, self._transport, file, done)
        except OSError as error:
            log_request(call.id, call.method, call.url, str(error))
            self._abort(call)
            return
        call.sent += file[2]
        self._written = file[2]
        self.deadline = self.front.now + self._config.write_timeout
        if not self._transport.get_write_buffer_size():
            self._sender.go_on()

    def _acknowledge(self, call: HTTPCall, least: int) -> None:
        if call.unacknowledged >= least and call.member is not None:
            call.member.link.flow((f.ACK, call.id, call.unacknowledged))
            call.unacknowledged = 0

    # the end of a request

    def _answer(
        self,
        call: HTTPCall,
        status: int,
        text: str,
        *,
        close: bool = True,
        more: list[tuple[bytes, bytes]] | None = None,
    ) -> None:
        """A response of our own."""
        close = close or not call.flags & KEEP_ALIVE
        data = simple(status, text, close=close, head=call.method == "HEAD", more=more)
        call.status = status
        call.begun = True
        call.sent = 0 if call.method == "HEAD" else len(text) + 1
        self._transport.write(data)
        self._current = call
        self._done(call, close)

    def _done(self, call: HTTPCall, close: bool) -> None:
        """The response is out. The call itself may go on in the worker."""
        front = self.front
        if front.access is not None:
            front.access.log(self, call)
        self._current = None
        call.connection = None
        if not call.complete:  # nobody reads the rest of the request
            if call.dispatched and call.wants:
                call.leave()
            close = True
        if close or front.draining:
            self._close()
            return
        if self._parsing is call:
            self._parsing = None
        self.deadline = front.now + self._keepalive
        self._go_on()

    def _close(self) -> None:
        """Close when all is written. What still comes is read and dropped, lest our words be lost with a reset."""
        transport = self._transport
        self._lingering = True
        self._pending = b""
        self._calls.clear()
        self._written = transport.get_write_buffer_size()
        if self._parsing is None and not self._refusal:
            self.deadline = self.front.now + self._config.write_timeout
            transport.close()
            return
        self.deadline = self.front.now + LINGER
        self._read_on()
        if transport.can_write_eof():
            transport.write_eof()
        else:
            transport.close()

    def _abort(self, call: HTTPCall) -> None:
        if self.front.access is not None:
            self.front.access.log(self, call)
        self._current = None
        call.leave()
        self._transport.abort()
