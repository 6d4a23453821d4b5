"""The workers of a pool: started, replaced, recycled, ended. Callbacks on the host's loop.

A worker that leaves (it died, is stuck, or was replaced) is out of `router.places` at once, so that no call goes to it
any more; its end is waited for apart. A replacement is ready before the worker whose place it takes goes.
"""

from __future__ import annotations

import logging
import warnings
import weakref
from typing import TYPE_CHECKING, Final

import anyio

from . import _interpreters
from .errors import AppLoadError, NotIsolatable, PoolBroken, PoolClosed, SubpoolError
from .member import Member

if TYPE_CHECKING:
    from .engine import Engine

log = logging.getLogger("subpool")

RESTART_DELAY: Final = (0.05, 5.0)  # seconds: after a failed restart, doubling up to
GIVE_BACK_TIME: Final = 0.1  # seconds that a process has to return what it has not begun, before it is killed
RESTARTS: Final = 10  # failed one after another before the pool gives up


class Crew:
    """`members` are those that are there, coming, or finishing what they have."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.options = engine.options
        self.members: list[Member] = []
        self.kind = "thread" if _interpreters.free_threaded() else "subinterpreter"
        if self.options.isolation != "auto":
            self.kind = self.options.isolation
        self.broken: SubpoolError | None = None
        self.abandoned = 0
        self._doomed: set[Member] = set()  # left, to be killed, not ended yet
        self._leaving: set[Member] = set()  # ended, not closed yet: what they had is being freed
        self._ending = False
        self._failures = 0

    def __repr__(self) -> str:
        return f"<Crew of {len(self.members)} {self.kind} workers>"

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
                await member.started()
        if scope.cancelled_caught:
            late = [member for member in self.members if member.state == "starting"]
            for member in late:
                self._drop(member, f"not ready within {self.options.start_timeout} s")
            raise AppLoadError(f"workers were not ready within start_timeout={self.options.start_timeout} s: {late}")
        self._engine.router.places = list(self.members)

    def _add(self, worker: int, generation: int, restarts: int) -> Member:
        member = Member(self._engine, worker, generation, self.kind, restarts)
        self.members.append(member)
        try:
            member.handle.start()
        except (OSError, RuntimeError) as error:
            self.members.remove(member)
            member.discard()
            raise AppLoadError(f"the system cannot start a worker: {error}") from error
        return member

    # leaving

    def leave(self, member: Member) -> bool:
        """The member is no longer there for calls. False if it was not before."""
        if member in self.members:
            self.members.remove(member)
        places = self._engine.router.places
        if member in places:
            places.remove(member)
            return True
        return False

    def on_ended(self, member: Member, unexpected: bool) -> None:
        """The worker has ended, by order or by itself."""
        self._doomed.discard(member)
        if member.state != "closed":
            self._leaving.add(member)
        if unexpected and not self._ending:
            log.error("worker %s ended unexpectedly: %s", member.id, member.cause or "its main returned")
            self._restart(member)
        self._engine.assign()

    def on_closed(self, member: Member) -> None:
        """Nothing is left of the worker."""
        self._leaving.discard(member)

    def replace_stuck(self, member: Member) -> None:
        """A call on it was interrupted and did not end: kill the worker, or abandon it, and start another."""
        why = "a request was interrupted, and did not end"
        if member.handle.can_kill:
            log.warning("worker %s is killed: %s", member.id, why)
            self.leave(member)
            self._doomed.add(member)
            member.take_back()  # its steward answers, unless it is stuck too
            self._engine.loop.call_later(GIVE_BACK_TIME, member.handle.kill)
        else:
            self._drop(member, why)
        self._restart(member)

    def _drop(self, member: Member, why: str) -> None:
        self.leave(member)
        self.abandoned += not member.handle.can_kill
        member.abandon(why)

    # replacing

    def _restart(self, old: Member) -> None:
        if self._ending:
            return
        try:
            self._replace(old)
        except AppLoadError as error:
            self._failed_restart(old, error)

    def _replace(self, old: Member) -> Member:
        """Start another worker; it takes `old`'s place when it is ready."""
        member = self._add(old.id, old.generation + 1, old.restarts + 1)
        new = weakref.ref(member)  # a timer does not keep a worker that has ended

        def started(error: BaseException | None) -> None:
            if error is not None:
                if old not in self._engine.router.places:
                    self._failed_restart(old, error)
                return
            self._failures = 0
            there = new()
            assert there is not None
            self._engine.router.places.append(there)
            if old in self._engine.router.places:
                self._retire(old)
            self._engine.assign()
            self._engine.clock.watch_stalls()

        def late() -> None:
            there = new()
            if there is not None and there.state == "starting":
                self._drop(there, f"not ready within {self.options.start_timeout} s")

        member.on_start = started
        self._engine.loop.call_later(self.options.start_timeout, late)
        return member

    def _failed_restart(self, old: Member, error: BaseException) -> None:
        if self._ending:
            return
        self._failures += 1
        log.error("worker %s could not be started again: %s", old.id, error)
        if self._failures >= RESTARTS:
            self.broken = error if isinstance(error, SubpoolError) else PoolBroken(str(error))
            if not self._engine.router.places:
                self._engine.refuse_pending(PoolBroken(f"no worker could be started again: {error}"))
            return
        first, most = RESTART_DELAY
        self._engine.loop.call_later(min(most, first * 2**self._failures), lambda: self._restart(old))

    def _retire(self, old: Member) -> None:
        """A replacement is ready: this one takes no new calls, finishes what it has, ends."""
        self._engine.router.places.remove(old)
        old.take_back()
        limit = self.options.timeout or 3600.0
        old.stop(limit, False)
        gone = weakref.ref(old)

        def late() -> None:
            there = gone()
            if there is not None and there.state not in ("closed", "abandoned"):
                self._drop(there, "it did not end after it was replaced" + _threads(there))

        self._engine.loop.call_later(limit + self.options.close_timeout, late)

    async def recycle(self, worker: int | None) -> None:
        """Replace one worker, or all of them one after another; the replacement is ready first."""
        if self._ending:
            raise PoolClosed("the pool is closed")
        chosen = [member for member in self._engine.router.places if worker is None or member.id == worker]
        if not chosen and worker is not None:
            ids = sorted(member.id for member in self._engine.router.places)
            raise ValueError(f"there is no worker {worker} to recycle; the workers are {ids}")
        for old in chosen:
            await self._replace(old).started()
            with anyio.move_on_after(self.options.close_timeout):
                await old.closed.wait()

    # closing

    async def close(self, drain: float) -> None:
        """End everything: what runs has `drain` seconds; all is over within `close_timeout`."""
        self._ending = True
        await self._end_all(drain)

    async def _end_all(self, drain: float) -> None:
        limit = self.options.close_timeout
        for doomed in self._doomed:
            doomed.handle.kill()
        members = list(self.members)
        ending, self._ending = self._ending, True
        for member in members:
            member.stop(min(drain, limit * 0.7), True)
        with anyio.CancelScope(shield=True):
            with anyio.move_on_after(limit):
                for member in [*members, *self._doomed, *self._leaving]:
                    await member.closed.wait()
        for member in [*members, *self._doomed, *self._leaving]:
            if member.state != "closed":
                self._drop(member, f"it did not end within close_timeout={limit} s{_threads(member)}")
        self._doomed.clear()
        self._leaving.clear()
        self._engine.router.places.clear()
        self.members.clear()
        self._ending = ending


def _threads(member: Member) -> str:
    return f"; the app left threads running: {', '.join(member.threads_left)}" if member.threads_left else ""
