"""A worker as the pool holds it: its handle, the calls it has, what waits to be sent to it, its figures.

States: starting -> ready (<-> stalled) -> stopping -> ended -> closed; or abandoned.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import call as c
from .call import Call, StreamCall
from .channels import frames as f
from .channels.frames import Frame
from .channels.lane import Buffer, LaneClosed
from .errors import NotIsolatable, WorkerLost, from_wire
from .hostloop import Waiter
from .isolation import load
from .stats import Latencies, WorkerStats
from .worker.logs import replay

if TYPE_CHECKING:
    from .engine import Engine

log = logging.getLogger("subpool")

ITEM = 1  # calls in one item of work: what shares an item cannot be taken back apart


class Member:
    """One worker. All methods run on the host's loop."""

    def __init__(self, engine: Engine, worker: int, generation: int, kind: str, restarts: int) -> None:
        self.engine = engine
        self.id = worker
        self.generation = generation
        self.kind = kind
        self.restarts = restarts
        self.state = "starting"
        self.stalled = False
        self.pinged = False  # asked whether it is still there
        self.waiting = 0
        self.in_flight = 0
        self.heard = 0.0
        self.served = self.failed = 0
        self.latencies = Latencies()
        self.calls: dict[int, Call] = {}
        self.given_up: dict[int, list[float | int]] = {}  # call -> [next step at, interrupts that hit]
        self.ready: Waiter = engine.loop.waiter()  # None, or the error of the start
        self.on_start: Callable[[BaseException | None], None] | None = None
        self.closed: Waiter = engine.loop.waiter()
        self.cause: str | None = None  # why it ended
        self.threads_left: list[str] = []
        self._work: list[Frame] = []
        self._flow: list[Frame] = []
        self._loans: list[Buffer] = []
        self._returned = 0
        self._asking_back = False
        self.lenders: set[StreamCall] = set()  # streams that hold loans of this worker
        setup = engine.options.setup(worker, kind, logging.getLogger().getEffectiveLevel())
        call = engine.loop.call_threadsafe
        self.handle = load(kind)(
            setup,
            lambda cause: call(self._on_ended, cause),
            lambda: call(self._on_closed),
            engine.blocked,
        )
        engine.loop.add_reader(self.handle.out.fileno(), self.on_out)
        self._reading = True

    def __repr__(self) -> str:
        return f"<{self.kind} worker {self.id}.{self.generation} {self.state}, {self.in_flight} in flight>"

    # sending

    def assign(self, call: Call) -> None:
        """Give the worker a call, with the next flush."""
        call.state, call.member = c.SENT, self
        self.calls[call.id] = call
        self.in_flight += 1
        if not self.waiting:
            self.heard = self.engine.loop.time()
        self.waiting += 1
        self._work.append(call.frame)
        self.engine.dirty(self)

    def flow(self, frame: Frame, loan: Buffer | None = None) -> None:
        """Send a frame of a call under way, with the next flush."""
        self._flow.append(frame)
        if loan is not None:
            self._loans.append(loan)
        self.engine.dirty(self)

    def control(self, frame: Frame) -> None:
        """Tell the steward, at once."""
        try:
            self.handle.control.send([frame])
        except (LaneClosed, OSError):
            pass  # its end is on the way

    def flush(self) -> None:
        work, flow = self._work, self._flow
        try:
            if self._returned:
                flow.append((f.RETURNED, self._returned))
                self._returned = 0
            if flow:
                loans, self._flow, self._loans = self._loans, [], []
                self.handle.flow.send(flow, loans)
            if work:
                self._work = []
                if len(work) <= ITEM:
                    self.handle.work.send(work)
                else:
                    self.handle.work.send_all([work[i : i + ITEM] for i in range(0, len(work), ITEM)])
        except (LaneClosed, OSError):
            pass  # its end is on the way, and settles what it had

    # receiving

    def on_out(self) -> None:
        """Take everything that the worker has sent."""
        lane = self.handle.out
        lane.clear()
        self.heard = self.engine.loop.time()
        try:
            while (item := lane.receive()) is not None:
                frames, loans = item
                lent = iter(loans)
                for frame in frames:
                    if frame[0] == f.REPLY:
                        self._on_reply(frame, next(lent) if frame[4] is f.LOAN else None)
                    else:
                        self._on_frame(frame, lent)
        except LaneClosed:
            self._stop_reading()
        self.stalled = False
        self.engine.assign()

    def _take(self, call_id: int) -> Call | None:
        """The worker has let go of the call."""
        call = self.calls.pop(call_id, None)
        if call is None:
            return None
        self.in_flight -= 1
        if call.state == c.SENT:
            self.waiting -= 1
        elif call.state == c.GIVEN_UP:
            self._forget(call)
            return None
        call.state = c.DONE
        self.engine.settled(call)
        self.latencies.add(self.heard - call.accepted)
        return call

    def _forget(self, call: Call) -> None:
        if call.member is None:  # given up before the worker had begun it
            self.waiting -= 1
        self.given_up.pop(call.id, None)
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

    def give_back(self, loan: memoryview) -> None:
        """Release a loan of the worker, and wake it so that the release happens."""
        loan.release()
        self.credit(1)

    def credit(self, loans: int) -> None:
        if loans:
            self._returned += loans
            self.engine.dirty(self)

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
        elif op == f.LOG:
            replay(frame[1], self.id)
        else:
            self._on_life(frame)

    def _on_started(self, call: Call) -> None:
        if call.state == c.SENT:
            call.state = c.STARTED
            self.waiting -= 1
        elif call.state == c.GIVEN_UP:
            if call.member is None:
                call.member = self
                self.waiting -= 1
            self.given_up.pop(call.id, None)  # the worker's loop is alive: the call ends when it ends

    def _on_life(self, frame: Frame) -> None:
        op = frame[0]
        if op == f.READY:
            if self.state == "starting":
                self.state = "ready"
                self._started(None)
        elif op == f.FAILED:
            self._started(from_wire(frame[1]))
        elif op == f.BYE:
            self.threads_left = frame[1]
            self.control((f.HALT,))
        elif op == f.INTERRUPTED:
            step = self.given_up.get(frame[1])
            if step is not None and frame[2]:
                step[1] += 1
        elif op == f.GIVEN_BACK:
            self._asking_back = False
            self._untake(frame[1])
            self.engine.assign()

    def _started(self, error: BaseException | None) -> None:
        if not self.ready.done():
            self.ready.resolve(error)
            on_start, self.on_start = self.on_start, None  # it holds the worker before: no chain of them
            if on_start is not None:
                on_start(error)

    # taking back, giving up

    def take_back(self) -> None:
        """Have the calls back that the worker has not begun."""
        if self._asking_back:
            return
        if not self.pinged and self.state == "ready":
            self.pinged = True
            self.flow((f.PING,))  # who has no work left has nothing to say: ask, so that its silence ends
        unsent, self._work = [frame[1] for frame in self._work], []
        frames = self.handle.take_back()
        if frames is None:
            self._asking_back = True
            self._untake(unsent)
        else:
            self._untake([frame[1] for frame in frames] + unsent)

    def _untake(self, ids: list[int]) -> None:
        back = []
        for call_id in ids:
            call = self.calls.pop(call_id, None)
            if call is None:
                continue
            self.in_flight -= 1
            if call.state == c.SENT:
                self.waiting -= 1
                call.state, call.member = c.PENDING, None
                back.append(call)
            else:
                self._forget(call)
        self.engine.router.put_back(back)

    def give_up(self, call: Call) -> None:
        """Nobody waits for the call any more: cancel it; `escalate` goes on from there."""
        if call.state == c.SENT:
            call.member = None  # marks it as not begun, see `_forget`
        call.state = c.GIVEN_UP
        self.given_up[call.id] = [self.engine.loop.time() + self.engine.options.grace, 0]
        self.flow((f.CANCEL, call.id))

    def escalate(self, now: float) -> bool:
        """Interrupt the calls that were given up and did not end. True if one was interrupted and still holds on."""
        for call_id, step in self.given_up.items():
            if now >= step[0]:
                if step[1] >= 2:
                    return True
                step[0] = now + self.engine.options.grace
                self.control((f.INTERRUPT, call_id))
        return False

    # the end

    def stop(self, seconds: float) -> None:
        """Ask the worker to end; what it runs has `seconds`."""
        self.state = "stopping"
        self._detach()
        self.flow((f.STOP, seconds))
        self.engine.flush()

    def _stop_reading(self) -> None:
        if self._reading:
            self._reading = False
            self.engine.loop.remove_reader(self.handle.out.fileno())

    def _on_ended(self, cause: str | None) -> None:
        if self.state == "abandoned":
            return
        self.cause = cause
        unexpected = self.engine.leave(self) and self.state == "ready"
        self.on_out()
        self.state = "ended"
        self.control((f.HALT,))
        self._detach()
        if self.kind == "process":
            self._untake([frame[1] for frame in self._work])
        else:
            self.take_back()
        self._stop_reading()
        self.lose(cause)
        self._started(WorkerLost(f"worker {self.id} ended while it started: {cause or 'without a word'}", False))
        self.handle.release()
        self.engine.on_ended(self, unexpected)

    def _detach(self) -> None:
        """Give back every loan that readers have not come to yet; they read copies."""
        lenders, self.lenders = self.lenders, set()
        for stream in lenders:
            self.credit(stream.detach())

    def lose(self, cause: str | None) -> None:
        """Every call that the worker still has is lost; its loans are given back."""
        calls, self.calls = self.calls, {}
        self.in_flight = self.waiting = 0
        self.given_up.clear()
        for call in calls.values():
            if call.state == c.GIVEN_UP:
                call.state = c.DONE
                continue
            begun = "had begun" if call.state == c.STARTED else "may have begun"
            call.state = c.DONE
            self.failed += 1
            self.engine.settled(call)
            call.fail(
                WorkerLost(f"worker {self.id} ended ({cause or 'no cause given'}); the app {begun} to run the request")
            )

    def _on_closed(self) -> None:
        self.closed.resolve(None)
        if self.state == "abandoned":
            self.engine.abandoned -= 1
        else:
            self.state = "closed"

    def abandon(self, why: str) -> None:
        """Never wait for this worker again."""
        if self.state in ("abandoned", "closed"):
            return
        log.warning("worker %s is abandoned: %s", self.id, why)
        if self.kind != "process" and self.state != "ended":
            self.take_back()
        self._stop_reading()
        self.state = "abandoned"
        self.cause = why
        self._detach()
        self.lose(why)
        self._started(WorkerLost(f"worker {self.id} did not start: {why}", False))
        self.handle.abandon()
        self.closed.resolve(None)

    def stats(self) -> WorkerStats:
        p50, p90, p99 = self.latencies.percentiles()
        state = "stalled" if self.stalled and self.state == "ready" else self.state
        return WorkerStats(
            self.id, self.kind, self.generation, state, self.in_flight, self.served, self.failed, self.restarts,
            p50, p90, p99, self.handle.memory(),
        )  # fmt: skip
