"""A worker as the pool holds it: its handle, the calls it has, what waits to be sent to it, its figures. What it says
is taken by `hearing`.

States: starting -> ready (<-> stalled) -> stopping -> ended -> closed; or abandoned.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import anyio

from . import hostcall as c
from .channels import frames as f
from .channels.frames import Frame
from .channels.socket_lane import SocketLane
from .errors import PoolTimeout, WorkerLost
from .hearing import Hearing
from .hostcall import Call, StreamCall
from .isolation import load
from .link import Link
from .overdue import Overdue
from .stats import Latencies, WorkerStats

if TYPE_CHECKING:
    from .engine import Engine
    from .services.desk import Desk

log = logging.getLogger("subpool")


class Member(Hearing):
    """One worker. All methods run on the host's loop."""

    def __init__(self, engine: Engine, worker: int, generation: int, kind: str, restarts: int) -> None:
        self.engine = engine
        self.id = worker
        self.generation = generation
        self.kind = kind
        self.restarts = restarts
        self.state = "starting"
        self.stalled = self.deaf = False
        self.pinged = False  # asked whether it is still there
        self.waiting = 0
        self.in_flight = self.websockets = 0
        self.heard = 0.0
        self.served = self.failed = 0
        self.single = engine.crew.succession.single
        self.used = False  # with `single`: it has got its request
        self.ready_at = self.beat = engine.loop.time()
        self.imports_at = self.ready_at  # its app is imported then or later
        self.allocated: int | None = None
        self.limits = engine.crew.succession.renewal.limits()
        self.latencies = Latencies()
        self.calls: dict[int, Call] = {}
        self.overdue = Overdue(engine.options.grace)  # calls that were given up
        self._start = anyio.Event()
        self._start_error: BaseException | None = None
        self.on_start: Callable[[BaseException | None], None] | None = None
        self.closed = anyio.Event()
        self.cause: str | None = None  # why it ended
        self.exit_told = False  # to hooks
        self.threads_left: list[str] = []
        self._asking_back = self._keep = False
        self._kept: list[int] = []  # WebSockets that go to it again when it has answered
        self.desk: Desk | None = None  # once the worker uses the host's services
        self.speaking: list[Call] = []  # calls that want to know when all that came with their words was passed on
        self.lenders: set[StreamCall] = set()  # streams that hold loans of this worker
        setup = engine.options.setup(engine.id, worker, kind, logging.getLogger().getEffectiveLevel())
        call = engine.loop.call_threadsafe
        self.handle = load(kind)(
            setup,
            lambda cause: call(self._on_ended, cause),
            lambda: call(self._on_closed),
            self._blocked,
        )
        self.link = Link(self.handle, engine.loop, engine.dirty)
        self.link.listen(self.on_out)

    def __repr__(self) -> str:
        has = f"{self.in_flight} in flight, {self.websockets} WebSockets"
        return f"<{self.kind} worker {self.id}.{self.generation} {self.state}, {has}>"

    def _blocked(self, lane: SocketLane) -> None:
        self.link.blocked(lane)

    # sending

    def assign(self, call: Call) -> None:
        """Give the worker a call, with the next flush."""
        call.state, call.member = c.SENT, self
        self.calls[call.id] = call
        if call.websocket:  # `_count`, without a call: this is every request's way
            self.websockets += 1
        else:
            self.in_flight += 1
        if not self.waiting:
            self.heard = self.engine.loop.time()
        self.waiting += 1
        link = self.link
        if not link.work:
            self.engine.dirty(link)
        link.work.append(call.frame)
        if self.single:
            self.used = True
            self.engine.crew.succession.spares.used(self)

    def _send_again(self, call: Call) -> None:
        link = self.link
        if not link.work:
            self.engine.dirty(link)
        link.work.append(call.frame)

    # calls

    def _over(self) -> None:
        self.used = False
        self.engine.crew.succession.spares.over(self)

    def _on_started(self, call: Call) -> None:
        if call.state == c.SENT:
            call.state = c.STARTED
            self.waiting -= 1
        elif call.state == c.GIVEN_UP:
            if call.member is None:
                call.member = self
                self.waiting -= 1
            self.overdue.forget(call.id)  # the worker's loop is alive: the call ends when it ends

    # life

    async def started(self) -> None:
        """Wait until it is ready. Raises why it is not."""
        await self._start.wait()
        if self._start_error is not None:
            raise self._start_error

    def _started(self, error: BaseException | None) -> None:
        if not self._start.is_set():
            self._start_error = error
            self._start.set()
            on_start, self.on_start = self.on_start, None  # it holds the worker before: no chain of them
            if on_start is not None:
                on_start(error)

    def _ready(self) -> None:
        self.state = "ready"
        self.ready_at = self.beat = self.engine.loop.time()
        if self.engine.on_worker is not None:
            self.engine.on_worker("on_worker_ready", self)

    def size(self) -> int | None:
        """Bytes: of a process as the system says, of an interpreter as its last heartbeat said."""
        return self.handle.memory() or self.allocated

    # taking back, giving up

    def take_back(self, keep: bool = False) -> None:
        """Have the calls back that the worker has not begun. `keep`: but for WebSockets."""
        if self._asking_back:
            return
        if not self.pinged and self.state == "ready":
            self.pinged = True
            self.link.flow((f.PING,))  # who has no work left has nothing to say: ask, so that its silence ends
        unsent = self.link.take_work()
        frames = self.handle.take_back()
        if frames is None:
            self._asking_back = self.deaf = True
            self._keep = keep
            self._kept = [one for one in unsent if keep and one in self.calls and self.calls[one].websocket]
            self._untake([one for one in unsent if one not in self._kept])
        else:
            self._untake([frame[1] for frame in frames] + unsent, keep)

    def hasty(self) -> bool:
        """Whether something that it has not begun is no WebSocket. What it has not begun came last."""
        latest = itertools.islice(reversed(self.calls.values()), self.waiting)
        return not all(call.websocket for call in latest)

    def _untake(self, ids: list[int], keep: bool = False) -> None:
        back = []
        for call_id in ids:
            call = self.calls.pop(call_id, None)
            if call is None:
                continue
            if keep and call.websocket and call.state == c.SENT:
                self.calls[call_id] = call
                self._send_again(call)
                continue
            self._count(call, -1)
            if call.state == c.SENT:
                self.waiting -= 1
                call.state, call.member = c.PENDING, None
                back.append(call)
            else:
                self._forget(call)
        self.engine.router.put_back(back)
        if self.used and not self.calls:
            self._over()

    def give_up(self, call: Call) -> None:
        """Nobody waits for the call any more: cancel it; `escalate` goes on from there."""
        if call.state == c.SENT:
            call.member = None  # marks it as not begun, see `_forget`
        call.state = c.GIVEN_UP
        self.overdue.add(call.id, self.engine.loop.time())
        self.engine.clock.watch()
        self.link.flow((f.CANCEL, call.id))

    def escalate(self, now: float) -> bool:
        """Interrupt the calls that were given up and did not end. True if the worker is stuck."""
        return self.overdue.escalate(now, lambda call: self.link.control((f.INTERRUPT, call)))

    # services

    def serve(self, frame: Frame) -> None:
        """A frame that asks for a function or a topic of the host."""
        if self.desk is None:
            services = self.engine.services()
            services.bind(self.engine.loop)
            self.desk = services.desk(self.link)
        self.desk.hear(frame)

    # the end

    def stop(self, seconds: float, everyone: bool) -> None:
        """Ask the worker to end; what it runs has `seconds`. `everyone`: all workers of the pool end."""
        self.state = "stopping"
        self._detach()
        if self.desk is not None:
            self.engine.loop.call_later(seconds, self.desk.refuse)
        self.link.flow((f.STOP, seconds, everyone))
        self.engine.flush()

    def _on_ended(self, cause: str | None) -> None:
        if self.state == "abandoned":
            return
        self.cause = cause
        unexpected = self.engine.crew.leave(self) and self.state == "ready"
        self.on_out()
        self.state = "ended"
        self.link.control((f.HALT,))
        self._detach()
        if self.kind == "process":
            self._untake(self.link.take_work())
            self._untake(self._behind())
        else:
            self.take_back()
        self.link.unlisten()
        self.lose(cause)
        error = WorkerLost(f"worker {self.id} ended while it started: {cause or 'without a word'}", False)
        self._started(error)
        self.handle.release()
        self.engine.crew.on_ended(self, unexpected)

    def _behind(self) -> list[int]:
        """After its death: the calls behind those that it may have begun. What a worker begins it begins in order, and
        it says how the one before went first; a calm one how several went."""
        not_begun = [call for call in self.calls.values() if call.member is None or call.state == c.SENT]
        return [call.id for call in not_begun[self.link.untold() :] if not call.at_once]

    def _detach(self) -> None:
        """Give back every loan that readers have not come to yet; they read copies."""
        lenders, self.lenders = self.lenders, set()
        for stream in lenders:
            self.link.credit(stream.detach())

    def lose(self, cause: str | None) -> None:
        """Every call that the worker still has is lost; its loans are given back."""
        calls, self.calls = self.calls, {}
        self.in_flight = self.websockets = self.waiting = 0
        self.overdue.clear()
        if self.desk is not None:
            self.desk.leave()
        for call in calls.values():
            if call.state == c.GIVEN_UP:
                call.state = c.DONE
                continue
            begun = "had begun" if call.state == c.STARTED else "may have begun"
            call.state = c.DONE
            self.failed += 1
            self.engine.clock.end(call)
            call.fail(
                WorkerLost(f"worker {self.id} ended ({cause or 'no cause given'}); the app {begun} to run the request")
            )

    def time_out(self, why: str) -> None:
        """It does not answer: the time of all that it holds is up, but what it has not begun another may do."""
        if self.kind != "process":
            self.take_back()
        for call in list(self.calls.values()):
            if call.state in (c.SENT, c.STARTED):
                self.engine.clock.end(call)
                self.give_up(call)
                call.fail(PoolTimeout(f"worker {self.id} does not answer: {why}", True))

    def _on_closed(self) -> None:
        self.closed.set()
        self.engine.crew.on_closed(self)
        if self.state == "abandoned":
            self.engine.crew.abandoned -= 1
        else:
            self.state = "closed"

    def discard(self) -> None:
        """It could not be started."""
        self.state = "closed"
        self.link.unlisten()
        self.handle.discard()

    def abandon(self, why: str) -> None:
        """Never wait for this worker again."""
        if self.state in ("abandoned", "closed"):
            return
        log.warning("worker %s is abandoned: %s", self.id, why)
        if self.kind != "process" and self.state != "ended":
            self.take_back()
        self.link.unlisten()
        self.state = "abandoned"
        self.cause = why
        self._detach()
        self.lose(why)
        error = WorkerLost(f"worker {self.id} did not start: {why}", False)
        self._started(error)
        self.handle.abandon()
        self.closed.set()

    def stats(self) -> WorkerStats:
        p50, p90, p99 = self.latencies.percentiles()
        state = "stalled" if self.stalled and self.state == "ready" else self.state
        return WorkerStats(
            self.id, self.kind, self.generation, state, self.in_flight, self.served, self.failed, self.restarts,
            p50, p90, p99, self.handle.memory(), self.websockets, self.allocated,
        )  # fmt: skip
