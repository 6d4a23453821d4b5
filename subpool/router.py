"""Which call goes to which worker: pure decisions, no I/O, the clock is the caller's.

A worker holds a small window of work that it has not begun; the rest waits here, bounded, in order of arrival. Work
goes to the least loaded worker that is still answering. A worker that holds un-begun work and says nothing for
`SILENCE` seconds is *stalled*: what it has not begun is taken back and given to another.

A WebSocket stays where it is put for as long as its client likes, so that where many join at once a moment of silence
must not decide: it goes where there are the fewest, and is taken back only from a worker that is *deaf*, silent for
`DEAF` seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final, Protocol
from zlib import crc32

from .errors import PoolOverloaded
from .hostcall import PENDING, Call

SILENCE: Final = 0.002  # seconds
DEAF: Final = 0.1


class Place(Protocol):
    """What the router knows of a worker."""

    id: int
    waiting: int  # calls sent to it that it has not begun
    in_flight: int  # all calls that it has, without
    websockets: int  # those that last as long as their clients like
    stalled: bool
    deaf: bool  # it is to get no WebSockets either
    heard: float  # when it last said something, or was given work while it had none

    def hasty(self) -> bool:
        """Whether something that it has not begun is no WebSocket."""


class Router[P: Place]:
    """`places` are the workers that are ready. `pending` are the calls that none has."""

    def __init__(self, window: int, max_pending: int) -> None:
        self.places: list[P] = []
        self.pending: deque[Call] = deque()
        self.window = window
        self.max_pending = max_pending
        self.refused = 0
        self.taken_back = 0

    def __repr__(self) -> str:
        return f"<Router {len(self.places)} places, {len(self.pending)} pending, {self.refused} refused>"

    def wait(self, call: Call) -> None:
        """A new call for which there is no place now. `PoolOverloaded` if too many wait already."""
        if len(self.pending) >= self.max_pending:
            self.refused += 1
            raise PoolOverloaded(f"{self.max_pending} calls are waiting already (max_pending); try again later")
        self.pending.append(call)

    def choose(self, call: Call) -> P | None:
        """The place for `call`: its preferred one if that answers, else the least loaded; None: all are full."""
        window = self.window
        places = self.places
        if call.affinity is not None and places:
            preferred = places[crc32(repr(call.affinity).encode()) % len(places)]
            if not preferred.stalled and preferred.waiting < window:
                return preferred
        best: P | None = None
        if call.websocket:
            for place in places:
                if place.waiting < window and not place.deaf and (best is None or _held(place) < _held(best)):
                    best = place
            return best
        for place in places:
            if place.waiting < window and not place.stalled and (best is None or place.in_flight < best.in_flight):
                best = place
        return best

    def next(self) -> tuple[Call, P] | None:
        """The next waiting call that can go, and where to; call it until it answers None."""
        if not self.pending:
            return None
        place = self.choose(self.pending[0])
        if place is None:
            return None
        return self.pending.popleft(), place

    def stalls(self, now: float) -> list[P]:
        """The places that have become silent by `now` and whose un-begun work another could do."""
        silent = []
        for place in self.places:
            if place.waiting and now - place.heard > SILENCE:
                if now - place.heard > DEAF:
                    place.deaf = True
                elif not place.hasty():
                    continue
                place.stalled = True
                silent.append(place)
        if not silent or all(place.stalled for place in self.places):
            return []
        return silent

    def put_back(self, calls: Iterable[Call]) -> None:
        """Calls that were taken back wait again, before those that came later."""
        back = [call for call in calls if call.state == PENDING]
        self.taken_back += len(back)
        self.pending.extendleft(reversed(back))

    def websockets(self) -> int:
        """How many of the waiting calls are WebSockets."""
        return sum(call.websocket for call in self.pending)

    def withdraw(self, call: Call) -> bool:
        """The caller gave up. False if the call was not waiting here."""
        try:
            self.pending.remove(call)
        except ValueError:
            return False
        return True


def _held(place: Place) -> tuple[int, int]:
    """What a place has, to one who brings a WebSocket: those there stay, requests go soon."""
    return place.websockets, place.in_flight
