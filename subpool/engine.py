"""The engine of a pool: starts and replaces workers, routes calls, keeps time. Callbacks on the host's loop throughout.

The public face is `pool`. Time is kept by two coarse ticks, each running only while it is needed: every millisecond
while a worker holds un-begun work (for take-back), every 20 ms while any call is under way (for time limits). There is
no timer object for a call.
"""

from __future__ import annotations

import itertools
import logging
import warnings
from typing import Any, Final

import anyio

from . import _interpreters
from . import call as c
from .call import Call
from .channels import frames as f
from .channels.socket_lane import SocketLane
from .config import PoolOptions
from .errors import AppLoadError, NotIsolatable, PoolBroken, PoolClosed, PoolTimeout, SubpoolError
from .hostloop import HostLoop
from .member import Member
from .router import Router
from .stats import PoolStats

log = logging.getLogger("subpool")

STALL_TICK: Final = 0.001  # seconds
CLOCK_TICK: Final = 0.02
LOANS: Final = 200  # of the host, lent at once at most
RESTART_DELAY: Final = (0.05, 5.0)  # seconds: after a failed restart, doubling up to
GIVE_BACK_TIME: Final = 0.1  # seconds that a process has to return what it has not begun, before it is killed
RESTARTS: Final = 10  # failed one after another before the pool gives up


class Engine:
    """One opened pool."""

    def __init__(self, options: PoolOptions, loop: HostLoop) -> None:
        self.options = options
        self.loop = loop
        self.router: Router[Member] = Router(options.window, options.max_pending)
        self.members: list[Member] = []  # those that are there or coming
        self.kind = "thread" if _interpreters.free_threaded() else "subinterpreter"
        if options.isolation != "auto":
            self.kind = options.isolation
        self.closing = False
        self.broken: SubpoolError | None = None
        self.abandoned = 0
        self.not_isolatable = 0
        self.lent = 0
        self.ids = itertools.count(1)
        self._dirty: list[Member] = []
        self._deadlines: dict[float, dict[int, Call]] = {}
        self._stall_tick = self._clock_tick = False
        self._failures = 0

    def __repr__(self) -> str:
        return f"<Engine {self.kind}, {len(self.router.places)} of {len(self.members)} ready>"

    # starting

    async def open(self) -> None:
        """Start all workers. Raises the app's own error if one does not start."""
        try:
            await self._start_all()
        except NotIsolatable as error:
            if self.options.isolation != "auto" or self.kind != "subinterpreter":
                raise
            await self._end_all(1.0)
            self.kind = "process"
            warnings.warn(
                f"subpool runs {self.options.app!r} in processes: {error.message.partition(';')[0]}",
                RuntimeWarning,
                stacklevel=4,
            )
            await self._start_all()
        if self.kind == "thread" and self.options.isolation == "auto" and _interpreters.gil_enabled():
            log.warning(
                "an extension module that %r imports turned the GIL on: using sub-interpreters",
                self.options.app,
            )
            await self._end_all(1.0)
            self.kind = "subinterpreter"
            await self.open()

    async def _start_all(self) -> None:
        for worker in range(1, (self.options.workers or 1) + 1):
            self._add(worker, 1, 0)
        with anyio.move_on_after(self.options.start_timeout) as scope:
            for member in list(self.members):
                error = await member.ready.wait()
                if error is not None:
                    raise error
        if scope.cancelled_caught:
            late = [member for member in self.members if member.state == "starting"]
            for member in late:
                self._drop(member, f"not ready within {self.options.start_timeout} s")
            raise AppLoadError(f"workers were not ready within start_timeout={self.options.start_timeout} s: {late}")
        self.router.places = list(self.members)

    def _add(self, worker: int, generation: int, restarts: int) -> Member:
        member = Member(self, worker, generation, self.kind, restarts)
        self.members.append(member)
        try:
            member.handle.start()
        except (OSError, RuntimeError) as error:
            member.state = "ended"
            member._stop_reading()
            self.members.remove(member)
            raise AppLoadError(f"the system cannot start a worker: {error}") from error
        return member

    # calls

    def submit(self, call: Call) -> None:
        """Accept a call. `PoolClosed`, `PoolBroken`, `PoolOverloaded` if it cannot be."""
        if self.closing:
            raise PoolClosed("the pool is closed")
        if self.broken is not None:
            raise PoolBroken(f"no worker could be started again: {self.broken}") from self.broken
        place = self.router.accept(call)
        call.accepted = now = self.loop.time()
        timeout = call.timeout
        if timeout is not None:
            call.deadline = now + timeout
            calls = self._deadlines.get(timeout)
            if calls is None:
                calls = self._deadlines[timeout] = {}
            calls[call.id] = call
        if place is not None:
            place.assign(call)
        if not self._clock_tick:
            self._clock_tick = True
            self.loop.call_later(CLOCK_TICK, self._on_clock)

    def assign(self) -> None:
        """Send out what waits, as far as there is room."""
        router = self.router
        while router.pending:
            found = router.next()
            if found is None:
                return
            found[1].assign(found[0])

    def settled(self, call: Call) -> None:
        """The call has ended: its time limit goes."""
        if call.timeout is not None:
            calls = self._deadlines.get(call.timeout)
            if calls is not None:
                calls.pop(call.id, None)
                if not calls and len(self._deadlines) > 8:
                    del self._deadlines[call.timeout]

    def give_up(self, call: Call) -> None:
        """The caller no longer waits."""
        self.settled(call)
        if call.state == c.PENDING:
            self.router.withdraw(call)
            call.state = c.DONE
        elif call.state in (c.SENT, c.STARTED) and call.member is not None:
            call.member.give_up(call)

    def send_event(self, call: Call, message: dict[str, Any], body: Any) -> None:
        """An event for the app's `receive()`, its body lent if it is large."""
        member = call.member
        if member is None or call.state in (c.DONE, c.GIVEN_UP):
            return
        if body is None or len(body) < f.LOAN_SIZE or self.lent >= LOANS:
            member.flow((f.EVENT, call.id, message, body))
        else:
            self.lent += 1
            member.flow((f.EVENT, call.id, message, f.LOAN), body)

    # sending

    def dirty(self, member: Member) -> None:
        """The member has something to send: at the end of this turn of the loop."""
        if not self._dirty:
            self.loop.call_soon(self.flush)
        if member not in self._dirty:
            self._dirty.append(member)

    def flush(self) -> None:
        dirty, self._dirty = self._dirty, []
        for member in dirty:
            member.flush()
        if not self._stall_tick and len(self.members) > 1:
            self._stall_tick = True
            self.loop.call_later(STALL_TICK, self._on_stall)

    def blocked(self, lane: SocketLane) -> None:
        """The lane's socket is full: flush it when there is room."""
        fd = lane.fileno()

        def room() -> None:
            try:
                if lane.flush():
                    self.loop.remove_writer(fd)
            except Exception:
                self.loop.remove_writer(fd)

        self.loop.add_writer(fd, room)

    # time

    def _on_stall(self) -> None:
        self._stall_tick = False
        if not any(place.waiting for place in self.router.places):
            return
        silent = self.router.stalls(self.loop.time())
        for member in silent:
            member.on_out()  # it may have spoken while this loop was busy
            if member.waiting and self.loop.time() - member.heard >= 0:
                self._relieve(member)
        self._stall_tick = True
        self.loop.call_later(STALL_TICK, self._on_stall)

    def _relieve(self, member: Member) -> None:
        member.stalled = True
        member.take_back()
        self.assign()

    def _on_clock(self) -> None:
        now = self.loop.time()
        busy = False
        for timeout, calls in list(self._deadlines.items()):
            for call in list(itertools.takewhile(lambda call: call.deadline <= now, calls.values())):
                started = self._may_have_begun(call)
                self.give_up(call)
                where = "the app did not answer" if started else "it waited for a worker"
                call.fail(PoolTimeout(f"no answer within {timeout:g} s: {where}", started))
            busy = busy or bool(calls)
        for member in list(self.members):
            if member.given_up:
                busy = True
                if member.escalate(now):
                    self._replace_stuck(member)
            busy = busy or bool(member.in_flight)
        if busy or self.router.pending:
            self.loop.call_later(CLOCK_TICK, self._on_clock)
        else:
            self._clock_tick = False

    def _may_have_begun(self, call: Call) -> bool:
        member = call.member
        if call.state == c.SENT and member is not None and member.kind != "process":
            member.take_back()  # what lies there un-begun comes back, perhaps this call with it
            started = call.state == c.SENT
            self.assign()
            return started
        return call.state in (c.SENT, c.STARTED)

    def _replace_stuck(self, member: Member) -> None:
        why = "a request was interrupted, and did not end"
        if member.handle.can_kill:
            log.warning("worker %s is killed: %s", member.id, why)
            self.leave(member)
            member.take_back()  # its steward answers, unless it is stuck too
            self.loop.call_later(GIVE_BACK_TIME, member.handle.kill)
            self._restart(member)
        else:
            self._drop(member, why)
            self._restart(member)

    def _drop(self, member: Member, why: str) -> None:
        self.leave(member)
        self.abandoned += not member.handle.can_kill
        member.abandon(why)

    # ends and restarts

    def leave(self, member: Member) -> bool:
        """The member is no longer there for calls. False if it was not before."""
        if member in self.members:
            self.members.remove(member)
        if member in self.router.places:
            self.router.places.remove(member)
            return True
        return False

    def on_ended(self, member: Member, unexpected: bool) -> None:
        """The worker has ended, by order or by itself."""
        if unexpected and not self.closing:
            log.error("worker %s ended unexpectedly: %s", member.id, member.cause or "its main returned")
            self._restart(member)
        self.assign()

    def _restart(self, old: Member) -> None:
        if self.closing:
            return
        try:
            self._replace(old)
        except AppLoadError as error:
            self._failed_restart(old, error)

    def _replace(self, old: Member) -> Member:
        """Start another worker; it takes `old`'s place when it is ready."""
        member = self._add(old.id, old.generation + 1, old.restarts + 1)

        def started(error: BaseException | None) -> None:
            if error is not None:
                if old.state != "ready":
                    self._failed_restart(old, error)
                return
            self._failures = 0
            self.router.places.append(member)
            if old.state == "ready":
                self._retire(old)
            self.assign()

        def late() -> None:
            if member.state == "starting":
                self._drop(member, f"not ready within {self.options.start_timeout} s")

        member.on_start = started
        self.loop.call_later(self.options.start_timeout, late)
        return member

    def _failed_restart(self, old: Member, error: BaseException) -> None:
        if self.closing:
            return
        self._failures += 1
        log.error("worker %s could not be started again: %s", old.id, error)
        if self._failures >= RESTARTS:
            self.broken = error if isinstance(error, SubpoolError) else PoolBroken(str(error))
            if not self.router.places:
                for call in list(self.router.pending):
                    self.give_up(call)
                    call.fail(PoolBroken(f"no worker could be started again: {error}"))
            return
        first, most = RESTART_DELAY
        self.loop.call_later(min(most, first * 2**self._failures), lambda: self._restart(old))

    def _retire(self, member: Member) -> None:
        """A replacement is ready: this one takes no new calls, finishes what it has, ends."""
        if member in self.router.places:
            self.router.places.remove(member)
        if member not in self.members:
            self.members.append(member)
        member.take_back()
        member.stop(self.options.timeout or 3600.0)

        def late() -> None:
            if member.state != "closed":
                self._drop(member, "it did not end after it was replaced" + _threads(member))

        self.loop.call_later((self.options.timeout or 3600.0) + self.options.close_timeout, late)

    async def recycle(self, worker: int | None) -> None:
        """Replace one worker, or all of them one after another; the replacement is ready first."""
        if self.closing:
            raise PoolClosed("the pool is closed")
        chosen = [member for member in self.router.places if worker is None or member.id == worker]
        if not chosen and worker is not None:
            ids = sorted(member.id for member in self.router.places)
            raise ValueError(f"there is no worker {worker} to recycle; the workers are {ids}")
        for old in chosen:
            error = await self._replace(old).ready.wait()
            if error is not None:
                raise error
            with anyio.move_on_after(self.options.close_timeout):
                await old.closed.wait()

    # closing

    async def close(self, drain: float) -> None:
        """End everything: what runs has `drain` seconds; all is over within `close_timeout`."""
        if self.closing:
            return
        self.closing = True
        for call in list(self.router.pending):
            self.give_up(call)
            call.fail(PoolClosed("the pool was closed before a worker took the request"))
        await self._end_all(drain)

    async def _end_all(self, drain: float) -> None:
        limit = self.options.close_timeout
        members = list(self.members)
        closing, self.closing = self.closing, True
        for member in members:
            member.stop(min(drain, limit * 0.7))
        with anyio.CancelScope(shield=True):
            with anyio.move_on_after(limit):
                for member in members:
                    await member.closed.wait()
            for member in members:
                if member.state != "closed":
                    why = f"it did not end within close_timeout={limit} s{_threads(member)}"
                    member.handle.kill()
                    self._drop(member, why)
        self.router.places.clear()
        self.members.clear()
        self.closing = closing

    def stats(self) -> PoolStats:
        return PoolStats(
            self.kind, tuple(member.stats() for member in sorted(self.members, key=lambda m: (m.id, m.generation))),
            len(self.router.pending), self.router.refused, self.abandoned, self.not_isolatable, self.router.taken_back,
        )  # fmt: skip


def _threads(member: Member) -> str:
    return f"; the app left threads running: {', '.join(member.threads_left)}" if member.threads_left else ""
