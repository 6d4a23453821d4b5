"""HTTP/1.1 where hooks see responses. A response comes as bytes; its head is taken apart for them, and made again.

While a hook waits, the answer of a worker is kept as frames, as many as it may send unacknowledged.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

from ..hooks import Row
from ..request import ResponseHead, page
from ..types import Headers, Response
from ..wire import FIRST, KEEP_ALIVE, status_line
from .call import HTTPCall
from .h1_hooked import HookedH1
from .turn import FAILED

if TYPE_CHECKING:
    from ..channels.frames import Frame
    from ..hearing import Hearing

END: Final = b"\r\n\r\n"
HEADS: Final = 64  # heads of responses that are remembered
_heads: dict[bytes, tuple[bytes, Headers]] = {}


class RespondingH1(HookedH1):
    """One connection."""

    def _row(self, call: HTTPCall) -> Row:
        """The hooks that are to see the response."""
        if call.turn is None or call.turn.responding:
            return ()
        chain = self._chain(call)
        return chain.on_response if chain is not None else ()

    # responses of our own

    def _answer(
        self, call: HTTPCall, status: int, text: str, *, close: bool = True, more: Headers | None = None
    ) -> None:
        if not self._row(call):
            super()._answer(call, status, text, close=close, more=more)
            return
        if close:
            call.flags &= ~KEEP_ALIVE
        self._reply(call, page(status, text, more))

    def _reply(self, call: HTTPCall, answer: Response) -> None:
        row, turn = self._row(call), call.turn
        if turn is None or not row:
            super()._reply(call, answer)
            return
        response = ResponseHead(answer.status, answer.headers)

        def then(failed: Response | None) -> None:
            if call is not self._current:
                return
            found = failed
            if failed is None:
                try:
                    found = Response(response.status, response.checked(head=True), answer.body)
                except (TypeError, ValueError, RuntimeError) as error:
                    found = turn.failed(error)
            super(RespondingH1, self)._reply(call, found or FAILED)

        turn.responding = True
        self._current = call
        self.deadline = turn.due
        turn.run(self.front.loop, row, (turn.request, response), then)

    # those of the workers

    def on_whole(self, call: HTTPCall, member: Hearing, frame: Frame, body: Any) -> None:
        row = self._row(call)
        if row:
            self._respond(call, row, super().on_whole, member, frame, body)
        else:
            super().on_whole(call, member, frame, body)

    def on_wire(self, call: HTTPCall, member: Hearing, frame: Frame, body: Any) -> None:
        turn = call.turn
        if turn is not None:
            if turn.behind is not None:
                turn.keep(super().on_wire, call, member, frame, body)
                return
            if frame[3] & FIRST and not self._transport.is_closing():
                row = self._row(call)
                if row:
                    self._respond(call, row, super().on_wire, member, frame, body)
                    return
            elif turn.drops:
                call.unacknowledged += len(frame[4]) + len(frame[6]) + _size(body)
                member.drop(body)
                frame, body = (*frame[:4], b"", None, b"", 0), None
        super().on_wire(call, member, frame, body)

    def on_end(self, call: HTTPCall) -> None:
        if call.turn is not None and call.turn.behind is not None:
            call.turn.keep(super().on_end, call)
        else:
            super().on_end(call)

    def on_error(self, call: HTTPCall, error: BaseException) -> None:
        if call.turn is not None and call.turn.behind is not None:
            call.turn.keep(super().on_error, call, error)
        else:
            super().on_error(call, error)

    def _respond(self, call: HTTPCall, row: Row, pass_on: Any, member: Hearing, frame: Frame, body: Any) -> None:
        """Have hooks see the head that `frame` begins with; then `pass_on` the frame, and what has come behind it."""
        turn = call.turn
        assert turn is not None
        head, _, rest = frame[4].partition(END)
        line, pairs = _heads.get(head) or _taken_apart(head)
        response = ResponseHead(frame[2], pairs)

        def then(failed: Response | None) -> None:
            behind, turn.behind = turn.behind, None
            if call is not self._current:
                return
            if behind is None:
                self._pass(call, response, failed, line, rest, pass_on, member, frame, body)
                return
            while behind:
                act, args = behind.popleft()
                if act == self._pass:
                    act(call, response, failed, line, rest, pass_on, *args)
                elif call is self._current:
                    act(*args)
                else:
                    turn.behind = behind
                    turn.end()
                    return

        turn.responding = True
        turn.run(self.front.loop, row, (turn.request, response), then)
        if turn.waits:
            turn.behind = deque()
            turn.keep(self._pass, member, frame, body)

    def _pass(
        self, call: HTTPCall, response: ResponseHead, failed: Response | None, line: bytes, rest: bytes, pass_on: Any,
        member: Hearing, frame: Frame, body: Any,
    ) -> None:  # fmt: skip
        """A worker's frame, with the head that hooks have left."""
        turn = call.turn
        assert turn is not None
        if failed is None and response.unchanged:
            pass_on(call, member, frame, body)
            return
        try:
            pairs = response.checked(head=call.method == "HEAD")
        except (TypeError, ValueError, RuntimeError) as error:
            failed = failed or turn.failed(error)
        if failed is not None:
            member.drop(body)
            call.leave()
            super()._reply(call, failed)
            return
        if response.status != frame[2]:
            line = status_line(response.status)[:-2]
        tail, size = frame[6], frame[7]
        before = len(frame[4]) + len(tail)
        if response.drops:
            turn.drops = True
            before += _size(body)
            member.drop(body)
            body, rest, tail, size = None, b"", b"", 0
        head = b"".join([line, b"\r\n", *[b"%b: %b\r\n" % pair for pair in pairs], b"\r\n", rest])
        call.unacknowledged += before - len(head) - len(tail)  # the worker counts what it sent
        pass_on(call, member, (*frame[:2], response.status, frame[3], head, None, tail, size), body)


def _taken_apart(head: bytes) -> tuple[bytes, Headers]:
    """Status line and headers of a response, as a worker wrote them. Remembered: most are the same for a second."""
    line, *lines = head.split(b"\r\n")
    pairs = [(name.lower(), value) for name, _, value in (one.partition(b": ") for one in lines)]
    if len(_heads) >= HEADS:
        _heads.clear()
    found = _heads[head] = line, pairs
    return found


def _size(body: Any) -> int:
    """The bytes that a worker has counted for the body of a frame; none for a file."""
    return len(body) if isinstance(body, (bytes, memoryview)) else 0
