"""What there is beyond the workers that have a place.

With `max_requests=1` each call has a fresh worker: spares are started ahead of the calls they will serve. A worker
leaves the places when it gets its call, a spare takes its place, and another spare is started.

Where interpreters outlive their workers (`isolation.stock`) they are counted: a pool has one beyond its size for
renewals, once there has been one, and with `max_requests=1` as many again for spares. A worker that is due waits until
one is free. Who died, or hangs, is followed by another at once all the same.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import anyio

from .errors import AppLoadError, PoolBroken, SubpoolError

if TYPE_CHECKING:
    from .member import Member
    from .succession import Succession

log = logging.getLogger("subpool")


class Spares:
    """Of one crew: as many as it has workers. `ready` are those that wait for a place."""

    def __init__(self, succession: Succession) -> None:
        self._succession = succession
        self._crew = succession.crew
        self._engine = succession.crew.engine
        self.ready: list[Member] = []
        self._coming = 0  # that are starting
        self._since = 0.0  # those that were started before are not used any more
        self._number = succession.crew.options.most_workers  # the highest id of a spare
        self._freed = anyio.Event()  # an interpreter was
        self._claims = 0  # renewals that wait for one

    def __repr__(self) -> str:
        return f"<Spares: {len(self.ready)} ready, {self._coming} starting>"

    def left(self, member: Member) -> None:
        """A worker has ended: it is no spare any more."""
        if member in self.ready:
            self.ready.remove(member)
        self.fill()

    def used(self, member: Member) -> None:
        """The worker has got its request."""
        places = self._engine.router.places
        if member in places:
            places.remove(member)
        if self.ready:
            self._engine.router.places.append(self.ready.pop(0))
        self.fill()

    def over(self, member: Member) -> None:
        """And it is answered."""
        if member.state == "ready" and not self._crew.ending:
            member.stop(self._crew.options.timeout or 3600.0, False)

    def fill(self) -> None:
        """Start spares: as many as there are workers."""
        crew, places = self._crew, self._engine.router.places
        if crew.ending or crew.broken or not self._succession.single:
            return
        while len(places) + len(self.ready) + self._coming < 2 * len(crew.ids) and self._coming < len(crew.ids):
            if crew.stock is not None and len(crew.stock) <= self._claims and self._lived_in() >= 2 * len(crew.ids):
                return  # until one is freed
            self._coming += 1
            self._number += 1
            self._start(self._number)

    def drop(self, asked: float) -> None:
        """Use none that imported its app before that time; others are started in their place."""
        self._since = asked
        ready, self.ready = self.ready, []
        for spare in ready:
            self._succession.dismiss(spare)
        self.fill()

    # interpreters that are counted

    def _lived_in(self) -> int:
        return len(self._crew.members) + len(self._crew.leaving)

    def missing(self) -> anyio.Event | None:
        """What a renewal has to wait for; None: there is an interpreter for it, or there may be another."""
        crew = self._crew
        most = (2 if self._succession.single else 1) * len(crew.ids) + 1
        return None if crew.stock is None or len(crew.stock) or self._lived_in() < most else self._freed

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Within it a renewal waits: spares leave one to it."""
        self._claims += 1
        try:
            yield
        finally:
            self._claims -= 1

    def freed(self) -> None:
        """Nothing is left of a worker, or it counts no more."""
        freed, self._freed = self._freed, anyio.Event()
        freed.set()
        self.fill()

    def _start(self, worker: int) -> None:
        crew = self._crew
        there: list[Member] = []

        def told(error: BaseException | None) -> None:
            self._coming -= 1
            if error is None and there:
                if there[0].imports_at < self._since:
                    self._succession.dismiss(there[0])
                elif len(self._engine.router.places) < len(crew.ids):
                    self._engine.router.places.append(there[0])
                    self._engine.assign()
                else:
                    self.ready.append(there[0])
                self.fill()
                return
            if crew.ending:
                return
            log.error("a spare worker could not be started: %s", error)
            delay = self._succession.restarts.ended(self._engine.loop.time(), False)
            if delay is None:
                crew.give_up(error if isinstance(error, SubpoolError) else PoolBroken(str(error)))
            else:
                self._engine.loop.call_later(delay, self.fill)

        try:
            member: Any = crew.add(worker, 1, 0)
        except AppLoadError as error:
            told(error)
            return
        there.append(member)
        member.on_start = told
