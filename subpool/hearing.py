"""What a worker says, and what the host makes of it: frames of its `out` lane, each to the call that it belongs to.

A late word is no harm: a call that was given up is forgotten when the worker lets go of it, what nobody wants any more
is dropped, and every loan is given back.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from . import hostcall as c
from .channels import frames as f
from .channels.frames import Frame
from .channels.lane import LaneClosed
from .errors import NotIsolatable, from_wire
from .hostcall import Call, StreamCall
from .wire import DONE, WHOLE
from .worker.logs import replay

if TYPE_CHECKING:
    from .engine import Engine
    from .isolation.base import Handle
    from .link import Link
    from .overdue import Overdue
    from .stats import Latencies


class Hearing:
    """The listening half of a `Member`."""

    engine: Engine
    handle: Handle
    link: Link
    overdue: Overdue
    latencies: Latencies
    calls: dict[int, Call]
    speaking: list[Call]
    lenders: set[StreamCall]
    threads_left: list[str]
    id: int
    generation: int
    state: str
    waiting: int
    in_flight: int
    websockets: int
    served: int
    failed: int
    heard: float
    beat: float
    allocated: int | None
    stalled: bool
    deaf: bool
    pinged: bool
    used: bool
    _asking_back: bool
    _keep: bool
    _kept: list[int]

    def _started(self, error: BaseException | None) -> None:
        raise NotImplementedError

    def _ready(self) -> None:
        raise NotImplementedError

    def _untake(self, ids: list[int], keep: bool = False) -> None:
        raise NotImplementedError

    def _on_started(self, call: Call) -> None:
        raise NotImplementedError

    def serve(self, frame: Frame) -> None:
        raise NotImplementedError

    def _over(self) -> None:
        raise NotImplementedError

    def on_out(self) -> bool:
        """Take everything that the worker has sent. False if that is nothing."""
        lane = self.handle.out
        lane.clear()
        spoke = False
        self.heard = self.engine.loop.time()
        try:
            while (item := lane.receive()) is not None:
                spoke = True
                frames, loans = item
                lent: Iterator[Any] = iter(loans)
                for frame in frames:
                    op = frame[0]
                    if op == f.WIRE:
                        body = next(lent) if frame[5] is f.LOAN else frame[5]
                        if frame[3] != WHOLE:
                            self._on_wire(frame, (next(lent), *body) if type(body) is tuple else body)
                        elif (call := self._take(frame[1])) is not None:
                            self.served += 1
                            call.whole(self, frame, body)
                        else:
                            self.drop(body)
                    elif op == f.REPLY:
                        self._on_reply(frame, next(lent) if frame[4] is f.LOAN else None)
                    else:
                        self._on_frame(frame, lent)
        except LaneClosed:
            self.link.unlisten()
        if self.speaking:
            speaking, self.speaking = self.speaking, []
            for call in speaking:
                call.flush()
        self.stalled = self.deaf = self._asking_back  # no new work before what it had is back: see `_behind`
        if self.used and not self.calls:
            self._over()
        self.engine.assign()
        return spoke

    def _take(self, call_id: int) -> Call | None:
        """The worker has let go of the call."""
        call = self.calls.pop(call_id, None)
        if call is None:
            return None
        if call.websocket:  # `_count`, without a call: this is every request's way
            self.websockets -= 1
        else:
            self.in_flight -= 1
        if call.state == c.SENT:
            self.waiting -= 1
        elif call.state == c.GIVEN_UP:
            self._forget(call)
            return None
        call.state = c.DONE
        if call.timeout is not None:
            self.engine.clock.end(call)
        if not call.websocket:
            self.latencies.add(self.heard - call.accepted)
        return call

    def _count(self, call: Call, one: int) -> None:
        """It has the call, or no longer."""
        if call.websocket:
            self.websockets += one
        else:
            self.in_flight += one

    def _forget(self, call: Call) -> None:
        if call.member is None:  # given up before the worker had begun it
            self.waiting -= 1
        self.overdue.forget(call.id)
        call.state = c.DONE

    def _on_reply(self, frame: Frame, loan: memoryview | None) -> None:
        call = self._take(frame[1])
        if loan is not None:
            if call is not None:
                frame = (*frame[:4], bytes(loan))
            self.give_back(loan)
        if call is not None:
            self.served += 1
            call.finish(frame)

    def _on_wire(self, frame: Frame, body: Any) -> None:
        call_id = frame[1]
        if frame[3] & DONE:
            call = self._take(call_id)
        else:
            call = self.calls.get(call_id)
            if call is not None:
                self._on_started(call)
                if call.state == c.GIVEN_UP:
                    call = None
        if call is None:
            self.drop(body)
            return
        call.wire(self, frame, body)
        if frame[3] & DONE:
            self.served += 1

    def drop(self, body: Any) -> None:
        """Nobody wants the body of a WIRE frame any more."""
        if isinstance(body, memoryview):
            self.give_back(body)
        elif isinstance(body, tuple) and body[0] >= 0:
            os.close(body[0])

    def give_back(self, loan: memoryview) -> None:
        loan.release()
        self.link.credit(1)

    def _on_frame(self, frame: Frame, lent: Any) -> None:
        op = frame[0]
        if op == f.STARTED or op == f.WANT:
            call = self.calls.get(frame[1])
            if call is not None:
                self._on_started(call)
                if op == f.WANT:
                    body = call.wanted()
                    if body is not None:
                        self.engine.send_event(call, {"type": "http.request", "more_body": False}, body)
        elif op == f.MESSAGE:
            data = next(lent) if frame[3] is f.LOAN else frame[3]
            call = self.calls.get(frame[1])
            if call is not None and call.state != c.GIVEN_UP:
                self._on_started(call)
                if isinstance(data, memoryview):
                    if self.state == "ready" and isinstance(call, StreamCall):
                        self.lenders.add(call)
                    else:
                        loan, data = data, bytes(data)
                        self.give_back(loan)
                call.message(frame[2], data)
            elif isinstance(data, memoryview):
                self.give_back(data)
        elif op == f.TAKEN:
            call = self.calls.get(frame[1])
            if call is not None and call.state != c.GIVEN_UP:
                call.taken(frame[2])
        elif op == f.END:
            call = self._take(frame[1])
            if call is not None:
                self.served += 1
                call.finish(frame)
        elif op == f.ERROR:
            call = self._take(frame[1])
            error = from_wire(frame[2])
            if isinstance(error, NotIsolatable):
                self.engine.not_isolatable += 1
            if call is not None:
                self.failed += 1
                call.fail(error)
        elif op == f.LENT_BACK:
            # the release of a loan runs in this interpreter as a pending call: it is awake now
            self.engine.lent -= frame[1]
        elif op == f.PONG:
            self.pinged = False
        elif op == f.BEATEN:
            self.beat = self.heard
            self.allocated = frame[1]
        elif op >= f.ASK:
            self.serve(frame)
        elif op == f.LOG:
            replay(frame[1], self.id)
        else:
            self._on_life(frame)

    def _on_life(self, frame: Frame) -> None:
        op = frame[0]
        if op == f.READY:
            if self.state == "starting":
                self._ready()
                self._started(None)
        elif op == f.FAILED:
            self._started(from_wire(frame[1]))
        elif op == f.BYE:
            self.threads_left = frame[1]
            self.link.control((f.HALT,))
        elif op == f.INTERRUPTED:
            self.overdue.answered(frame[1], frame[2])
        elif op == f.GIVEN_BACK:
            self._asking_back = False
            kept, self._kept = self._kept, []
            self._untake([*frame[1], *kept], self._keep)
            self.engine.assign()
