"""Who takes whose place: a worker that died is started again, one whose time has come is replaced.

A replacement is ready before the worker whose place it takes goes; code that does not start leaves the old one where it
is. One that died is started again as `restarts` says. Where interpreters outlive their workers (`isolation.stock`) one
is spare: one worker at a time is replaced, and the next when the old one has left its own.

With `max_requests=1` every worker serves one request and goes: see `spares`.
"""

from __future__ import annotations

import contextlib
import logging
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import anyio

from .errors import AppLoadError, PoolBroken, SubpoolError
from .renewal import Renewal
from .restarts import Restarts
from .spares import Spares

if TYPE_CHECKING:
    from .crew import Crew
    from .member import Member

log = logging.getLogger("subpool")

RETRY: Final = 10.0  # seconds until a renewal that failed is tried again
Told = Callable[[BaseException | None], None]


class Succession:
    """Of one crew."""

    def __init__(self, crew: Crew) -> None:
        self.crew = crew
        self._engine = crew.engine
        options = crew.options
        self.restarts = Restarts(options.max_restarts, options.restart_window)
        self.renewal: Renewal = Renewal(
            options.max_requests, options.max_requests_jitter, options.max_age, options.max_memory
        )
        self.recycled = 0
        self.single: bool = options.max_requests == 1
        self._not_before = 0.0  # a renewal that failed is not tried again at once
        self._renewing: Member | None = None
        self._renewals: dict[int, anyio.Event] = {}  # that are under way, by the worker's id: one at a time
        self.spares = Spares(self)

    def __repr__(self) -> str:
        return f"<Succession: {self.restarts!r}, {self.recycled} recycled>"

    # deaths

    def died(self, old: Member) -> None:
        """A worker has ended by itself."""
        self.again(old.id, old.generation, old.restarts, old.served > 0, old.cause or "its main returned")

    def start_after(self, old: Member) -> None:
        """A stuck worker is out: another takes its place, at once."""
        self.start(old.id, old.generation + 1, old.restarts + 1)

    def start(self, worker: int, generation: int = 1, restarts: int = 0) -> None:
        """Start a worker where there is none."""
        if self.crew.ending or self.crew.broken or worker not in self.crew.ids:
            return
        if any(member.id == worker and member.state in ("starting", "ready") for member in self.crew.members):
            return

        def told(error: BaseException | None) -> None:
            if error is not None and not self.crew.ending:
                log.error("worker %s could not be started: %s", worker, error)
                self.again(worker, generation, restarts, False, str(error))

        self._begin(worker, generation, restarts, None, told)

    def again(self, worker: int, generation: int, restarts: int, proved: bool, cause: str) -> None:
        """Start it once more, as soon as that may be; `proved`: it had served something."""
        crew = self.crew
        if crew.ending or worker not in crew.ids:
            return
        delay = self.restarts.ended(self._engine.loop.time(), proved)
        if delay is None:
            most, window = self.restarts.most, self.restarts.window
            crew.give_up(PoolBroken(f"workers ended more than {most} times within {window:g} s; the last: {cause}"))
        elif delay:
            self._engine.loop.call_later(delay, lambda: self.start(worker, generation + 1, restarts + 1))
        else:
            self.start(worker, generation + 1, restarts + 1)

    def _begin(self, worker: int, generation: int, restarts: int, old: Member | None, told: Told) -> Member | None:
        """Start a worker. Once it is ready it takes `old`'s place, or a new one; `told` hears of it, or why not."""
        crew = self.crew
        try:
            member = crew.add(worker, generation, restarts)
        except AppLoadError as error:
            told(error)
            return None
        new = weakref.ref(member)  # a timer does not keep a worker that has ended
        seconds = crew.options.start_timeout

        def started(error: BaseException | None) -> None:
            there = new()
            if error is None and there is not None:
                self._join(there, old)
            told(error)

        def late() -> None:
            there = new()
            if there is not None and there.state == "starting":
                crew.drop(there, f"not ready within {seconds} s")

        member.on_start = started
        self._engine.loop.call_later(seconds, late)
        return member

    def _join(self, member: Member, old: Member | None) -> None:
        engine = self._engine
        if member.id not in self.crew.ids and not self.single:
            self.dismiss(member)  # the pool has become smaller meanwhile
            return
        engine.router.places.append(member)
        if old is not None and old in engine.router.places:
            self.dismiss(old)
        engine.assign()
        engine.clock.watch_stalls()

    # replacing

    def dismiss(self, old: Member) -> None:
        """It takes no new calls, finishes what it has, ends."""
        crew = self.crew
        if old in self._engine.router.places:
            self._engine.router.places.remove(old)
        if old.state == "starting":
            return  # `_join` will see that it is not wanted
        old.take_back()
        limit = crew.options.timeout or 3600.0
        old.stop(limit, False)
        gone = weakref.ref(old)

        def late() -> None:
            there = gone()
            if there is not None and there.state not in ("closed", "abandoned"):
                from .crew import threads_of

                crew.drop(there, "it did not end after it was replaced" + threads_of(there))

        self._engine.loop.call_later(limit + crew.options.close_timeout, late)

    def renew(self, old: Member, told: Told) -> None:
        """Replace the worker; `told` hears when that is done, or why it cannot be: then the old stays.

        Not to be called where `before` knows of something."""
        self.recycled += 1
        over = self._renewals[old.id] = anyio.Event()

        def done(error: BaseException | None) -> None:
            del self._renewals[old.id]
            over.set()
            gone = old.state in ("ended", "closed", "abandoned")
            if error is not None and gone and not self.single:
                self.died(old)  # meanwhile, and its place was left to this one
            told(error)

        self._begin(old.id, old.generation + 1, old.restarts + 1, old, done)

    def _before(self, worker: int) -> anyio.Event | None:
        """What must happen before that worker is renewed: the end of another renewal, an interpreter for it."""
        if self.crew.stock is None:
            return self._renewals.get(worker)
        return next(iter(self._renewals.values()), None) or self.spares.missing()

    async def renewed(self, worker: int, asked: float) -> None:
        """See that the worker of that id imports its app after `asked`, a time of the host's loop; wait until it has,
        and until the old one is gone. Raises why it could not be replaced."""
        while True:
            before = self._before(worker)
            if before is not None:
                with self.spares.claimed():
                    await before.wait()
                continue
            there = [one for one in self.crew.members if one.id == worker and one.state in ("starting", "ready")]
            if not there or there[0].imports_at > asked:
                return
            if there[0].state == "ready":
                await self._renew(there[0])
                return
            with contextlib.suppress(SubpoolError):
                await there[0].started()

    async def _renew(self, old: Member) -> None:
        over = anyio.Event()
        errors: list[BaseException] = []

        def told(error: BaseException | None) -> None:
            if error is not None:
                errors.append(error)
            over.set()

        self.renew(old, told)
        await over.wait()
        if errors:
            raise errors[0]
        with anyio.move_on_after(self.crew.options.close_timeout):
            await old.closed.wait()

    def renew_one(self, now: float) -> None:
        """Replace a worker whose time has come, one at a time. Called again and again."""
        if self._renewing is not None or self.crew.ending or now < self._not_before:
            return
        for member in self._engine.router.places:
            if self._before(member.id) is not None:
                continue
            why = member.limits.reached(member.served + member.failed, now - member.ready_at, member.size())
            if why is not None and self.crew.kind == "thread":
                # they share one imported app: only another process has it afresh
                self._not_before = float("inf")
                if self._engine.on_exhausted is not None:
                    self._engine.on_exhausted(f"worker {member.id} is to be replaced: {why}")
                return
            if why is not None:
                self._renewing = member
                log.info("worker %s is replaced: %s", member.id, why)
                self.renew(member, self._renewed)
                return

    def _renewed(self, error: BaseException | None) -> None:
        old, self._renewing = self._renewing, None
        if error is not None and old is not None and not self.crew.ending:
            log.error("worker %s could not be replaced, and stays: %s", old.id, error)
            self._not_before = self._engine.loop.time() + RETRY
