"""The workers of a pool: started, watched, ended. Callbacks on the host's loop.

A worker that leaves (it died, is stuck, or was replaced) is out of `router.places` at once, so that no call goes to it
any more; its end is waited for apart. Who takes its place is said by `succession`.
"""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING, Final

import anyio

from . import _interpreters
from .errors import AppLoadError, NotIsolatable, PoolBroken, PoolClosed, SubpoolError
from .isolation import stock
from .member import Member
from .succession import Succession

if TYPE_CHECKING:
    from .engine import Engine

log = logging.getLogger("subpool")

GIVE_BACK_TIME: Final = 0.1  # seconds that a process has to return what it has not begun, before it is killed


class Crew:
    """`members` are those that are there, coming, or finishing what they have; `ids` those that there should be."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.options = engine.options
        self.members: list[Member] = []
        self.ids = set(range(1, self.options.least_workers + 1))
        self.kind = "thread" if _interpreters.free_threaded() else "subinterpreter"
        if self.options.isolation != "auto":
            self.kind = self.options.isolation
        self.broken: SubpoolError | None = None
        self.abandoned = 0
        self.ending = False
        self.succession = Succession(self)
        self.stock: stock.Stock | None = None  # where interpreters outlive their workers
        self.leaving: set[Member] = set()  # ended, not closed yet: what they had is being freed
        self._doomed: set[Member] = set()  # left, to be killed, not ended yet

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
        self.stock = stock.Stock() if stock.KEEPS_MEMORY and self.kind == "subinterpreter" else None
        for worker in sorted(self.ids):
            self.add(worker, 1, 0)
        with anyio.move_on_after(self.options.start_timeout) as scope:
            for member in list(self.members):
                await member.started()
        if scope.cancelled_caught:
            late = [member for member in self.members if member.state == "starting"]
            for member in late:
                self.drop(member, f"not ready within {self.options.start_timeout} s")
            raise AppLoadError(f"workers were not ready within start_timeout={self.options.start_timeout} s: {late}")
        self.engine.router.places = list(self.members)
        self.succession.spares.fill()

    def add(self, worker: int, generation: int, restarts: int) -> Member:
        """Start a worker. `AppLoadError` if the system refuses."""
        member = Member(self.engine, worker, generation, self.kind, restarts)
        self.members.append(member)
        try:
            member.handle.start(self.stock)
        except (OSError, RuntimeError) as error:
            self.members.remove(member)
            member.discard()
            raise AppLoadError(f"the system cannot start a worker: {error}") from error
        if self.engine.on_worker is not None:
            self.engine.on_worker("on_worker_start", member)
        return member

    # leaving

    def leave(self, member: Member) -> bool:
        """The member is no longer there for calls. False if it was not before."""
        if member in self.members:
            self.members.remove(member)
        places = self.engine.router.places
        if member in places:
            places.remove(member)
            return True
        return False

    def on_ended(self, member: Member, unexpected: bool) -> None:
        """The worker has ended, by order or by itself."""
        self._doomed.discard(member)
        if member.state != "closed":
            self.leaving.add(member)
        if self.engine.on_worker is not None:
            self.engine.on_worker("on_worker_exit", member, member.cause, unexpected and not self.ending)
        if unexpected and not self.ending:
            log.error("worker %s ended unexpectedly: %s", member.id, member.cause or "its main returned")
            self.succession.died(member)
        self.succession.spares.left(member)
        self.engine.assign()

    def on_closed(self, member: Member) -> None:
        """Nothing is left of the worker."""
        self.leaving.discard(member)
        self.succession.spares.freed()

    def replace_stuck(self, member: Member, why: str = "a request was interrupted, and did not end") -> None:
        """It does not answer, or a call on it does not end: kill the worker, or abandon it, and start another."""
        if member.handle.can_kill:
            log.warning("worker %s is killed: %s", member.id, why)
            self.leave(member)
            self._doomed.add(member)
            member.take_back()  # its steward answers, unless it is stuck too
            self.engine.loop.call_later(GIVE_BACK_TIME, member.handle.kill)
        else:
            self.drop(member, why)
        self.succession.start_after(member)

    def drop(self, member: Member, why: str) -> None:
        """Never wait for the worker again."""
        self.leave(member)
        if not member.handle.can_kill:
            self.abandoned += 1
            if self.abandoned > self.options.max_abandoned and self.engine.on_exhausted is not None:
                self.engine.on_exhausted(f"{self.abandoned} workers were abandoned, the last one because {why}")
        member.abandon(why)
        self.succession.spares.freed()
        if self.engine.on_worker is not None:
            self.engine.on_worker("on_worker_exit", member, f"abandoned: {why}", not self.ending)

    def give_up(self, error: SubpoolError) -> None:
        """Too many workers ended, too often: the pool takes no calls any more."""
        if self.broken is None:
            self.broken = error
            self.engine.refuse_pending(PoolBroken(str(error)))
            if self.engine.on_broken is not None:
                self.engine.on_broken(error)

    # how many

    def scale(self, count: int) -> None:
        """Have so many workers: further ones are started; those with the highest ids finish what they have and go."""
        if self.ending:
            raise PoolClosed("the pool is closed")
        if count < 1:
            raise ValueError(f"a pool has at least 1 worker, not {count}")
        while len(self.ids) > count:
            worker = max(self.ids)
            self.ids.remove(worker)
            for member in [one for one in self.members if one.id == worker]:
                self.succession.dismiss(member)
        while len(self.ids) < count:
            worker = next(number for number in range(1, count + 1) if number not in self.ids)
            self.ids.add(worker)
            self.succession.start(worker)

    async def recycle(self, worker: int | None) -> None:
        """Replace one worker, or all of them one after another; the replacement is ready first.

        One that is being replaced already, or starts, may have imported its app before: it is waited for and replaced
        too."""
        if self.ending:
            raise PoolClosed("the pool is closed")
        asked = self.engine.loop.time()
        succession = self.succession
        there = self.engine.router.places if succession.single else self.members
        ids = list(dict.fromkeys(member.id for member in there if member.state != "stopping"))
        if worker is None:
            succession.spares.drop(asked)
        elif worker in ids:
            ids = [worker]
        else:
            raise ValueError(f"there is no worker {worker} to recycle; the workers are {sorted(ids)}")
        for one in ids:
            await succession.renewed(one, asked)

    # closing

    async def close(self, drain: float) -> None:
        """End everything: what runs has `drain` seconds; all is over within `close_timeout`."""
        self.ending = True
        await self._end_all(drain)

    async def _end_all(self, drain: float) -> None:
        limit = self.options.close_timeout
        for doomed in self._doomed:
            doomed.handle.kill()
        members = list(self.members)
        ending, self.ending = self.ending, True
        for member in members:
            member.stop(min(drain, limit * 0.7), True)
        rested = anyio.Event()
        self._end_stock(rested)
        with anyio.CancelScope(shield=True):
            with anyio.move_on_after(limit):
                for member in [*members, *self._doomed, *self.leaving]:
                    await member.closed.wait()
                await rested.wait()
        for member in [*members, *self._doomed, *self.leaving]:
            if member.state != "closed":
                self.drop(member, f"it did not end within close_timeout={limit} s{threads_of(member)}")
        if not rested.is_set():
            log.warning("an interpreter at rest did not end within close_timeout=%g s", limit)
        self._doomed.clear()
        self.leaving.clear()
        self.engine.router.places.clear()
        self.members.clear()
        self.ending = ending


    def _end_stock(self, over: anyio.Event) -> None:
        """Free the interpreters that rest; `over` is set when that is done."""
        left = 1

        def one_less() -> None:
            nonlocal left
            left -= 1
            if not left:
                over.set()

        if self.stock is not None:
            left += self.stock.end(lambda: self.engine.loop.call_threadsafe(one_less))
        one_less()


def threads_of(member: Member) -> str:
    """The threads that keep an ended worker's interpreter, as a message ends with them."""
    return f"; the app left threads running: {', '.join(member.threads_left)}" if member.threads_left else ""
