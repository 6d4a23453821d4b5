"""What a pool looks at from time to time: heartbeats, workers whose time has come, how many there should be.

A heartbeat is asked of a worker's steward, its second thread, so that a handler which holds the first for long is no
silence; it is judged by its own `timeout`. Only what lets no other thread run, C code that keeps the GIL, is silent. A
worker that says nothing for `heartbeat_timeout` seconds is interrupted, and, `grace` later, replaced: what it held is
answered as a call whose time is up. Silence while this loop itself stood still does not count.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from .channels import frames as f
from .elastic import Elastic

if TYPE_CHECKING:
    from .engine import Engine

log = logging.getLogger("subpool")

RENEWAL: Final = 0.05  # seconds between looks: for requests that were served
SLOW: Final = 1.0  # for age and memory
ELASTIC: Final = 0.1
BEATS: Final = 4  # heartbeats in one `heartbeat_timeout`


class Upkeep:
    """Runs while the pool is open."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        options = engine.options
        self._beat = options.heartbeat_timeout
        self._measure = options.max_memory is not None
        self._every = SLOW if self._measure else float("inf")  # seconds between heartbeats
        if self._beat is not None:
            self._every = min(self._every, self._beat / BEATS)
        least, most = options.least_workers, options.most_workers
        self._elastic = Elastic(least, most) if most > least else None
        periods = []
        if options.max_requests is not None and options.max_requests > 1:
            periods.append(RENEWAL)
        if options.max_age is not None or options.max_memory is not None:
            periods.append(SLOW)
        self._renews = bool(periods)
        if self._elastic is not None:
            periods.append(ELASTIC)
        if self._every < float("inf"):
            periods.append(min(SLOW, self._every))
        self._period = min(periods, default=0.0)
        self._last = self._asked = 0.0

    def __repr__(self) -> str:
        return f"<Upkeep every {self._period:g} s>"

    def start(self) -> None:
        """Begin to look."""
        if self._period:
            self._last = self._engine.loop.time()
            self._engine.loop.call_later(self._period, self._tick)

    def _tick(self) -> None:
        engine = self._engine
        if engine.closing:
            return
        now = engine.loop.time()
        stood_still = now - self._last > 2 * self._period + 0.5
        self._last = now
        if self._every < float("inf"):
            self._heartbeats(now, stood_still)
        if self._renews:
            engine.crew.succession.renew_one(now)
        if self._elastic is not None:
            self._scale(now, self._elastic)
        engine.loop.call_later(self._period, self._tick)

    def _heartbeats(self, now: float, stood_still: bool) -> None:
        ask = now - self._asked >= self._every
        limit = float("inf") if self._beat is None else self._beat
        if ask:
            self._asked = now
        for member in list(self._engine.crew.members):
            if member.state != "ready":
                continue
            if stood_still:
                member.beat = now
            silent = now - member.beat
            if silent > limit:
                member.on_out()  # what it said may be unread: behind a pause, timers come first
                silent = now - member.beat
            if silent > limit + self._engine.options.grace:
                why = f"it has not answered its heartbeat for {silent:.1f} s"
                member.time_out(why)
                self._engine.crew.replace_stuck(member, why)
            elif silent > limit:
                for call in list(member.calls):
                    member.link.control((f.INTERRUPT, call))
            elif ask:
                member.link.control((f.BEAT, self._measure and member.kind == "subinterpreter"))

    def _scale(self, now: float, elastic: Elastic) -> None:
        engine = self._engine
        crew = engine.crew
        places = engine.router.places
        waiting = len(engine.router.pending) + sum(place.waiting for place in places if place.stalled)
        starting = any(member.state == "starting" for member in crew.members) or len(crew.ids) != len(places)
        step = elastic.decide(now, len(places), waiting, starting)
        if step:
            log.info("%d worker(s) are too %s: there will be %d", len(places), "few" if step > 0 else "many",
                     len(crew.ids) + step)  # fmt: skip
            crew.scale(len(crew.ids) + step)

