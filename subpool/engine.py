"""The engine of a pool: takes calls, routes them, ends them. Callbacks on the host's loop throughout.

The public face is `pool`; the workers are kept by `crew`; what is late is found by `clock`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from . import hostcall as c
from .channels import frames as f
from .clock import Clock
from .config import PoolOptions
from .crew import Crew
from .errors import PoolBroken, PoolClosed, PoolOverloaded, PoolTimeout, SubpoolError
from .hostcall import Call
from .hostloop import HostLoop
from .link import Link
from .member import Member
from .router import Router
from .stats import PoolStats
from .upkeep import Upkeep

if TYPE_CHECKING:
    from .services import Services

LOANS: Final = 200  # of the host, lent at once at most


_numbers = itertools.count(1)


class Engine:
    """One opened pool."""

    def __init__(self, options: PoolOptions, loop: HostLoop, services: Callable[[], Services]) -> None:
        self.id = next(_numbers)  # in this process
        self.options = options
        self.loop = loop
        self.services = services  # made when a worker first uses them
        self.router: Router[Member] = Router(options.window, options.max_pending)
        self.closing = False
        self.not_isolatable = 0
        self.lent = 0
        self.ids = c.numbers
        self.clock = Clock(loop, self._on_stall, self._on_clock, self.expire)
        self._dirty: list[Link] = []
        self.on_broken: Callable[[SubpoolError], None] | None = None  # workers ended too often: no calls any more
        self.on_exhausted: Callable[[str], None] | None = None  # too many workers were abandoned
        self.on_worker: Callable[..., None] | None = None  # a worker starts, is ready, has ended: see `worker_hooks`
        self.crew = Crew(self)
        self.upkeep = Upkeep(self)

    def __repr__(self) -> str:
        return f"<Engine: {self.crew!r}, {self.router!r}>"

    # calls

    def submit(self, call: Call) -> None:
        """Accept a call. `PoolClosed`, `PoolBroken`, `PoolOverloaded` if it cannot be."""
        if self.closing:
            raise PoolClosed("the pool is closed")
        if self.crew.broken is not None:
            raise PoolBroken(str(self.crew.broken)) from self.crew.broken
        router = self.router
        if call.websocket:
            self._limit_websockets()
        place = None if router.pending else router.choose(call)
        if place is None:
            router.wait(call)
        self.clock.begin(call)
        if place is not None:
            place.assign(call)

    def _limit_websockets(self) -> None:
        """`PoolOverloaded` if there are as many as there may be: another could wait for ever."""
        most = self.options.max_websockets
        if self.router.websockets() + sum(member.websockets for member in self.crew.members) >= most:
            self.router.refused += 1
            raise PoolOverloaded(f"there are {most} WebSockets already (max_websockets); try again later")

    def assign(self) -> None:
        """Send out what waits, as far as there is room."""
        router = self.router
        while router.pending:
            found = router.next()
            if found is None:
                return
            found[1].assign(found[0])

    def give_up(self, call: Call) -> None:
        """The caller no longer waits."""
        self.clock.end(call)
        if call.state == c.PENDING:
            self.router.withdraw(call)
            call.state = c.DONE
        elif call.state in (c.SENT, c.STARTED) and call.member is not None:
            call.member.give_up(call)

    def leave(self, call: Call) -> None:
        """The client has gone: the app hears of it, and may end as it likes. It is not run if it has not begun."""
        if not self.recall(call) and call.member is not None:
            call.member.link.flow((f.GONE, call.id))

    def recall(self, call: Call) -> bool:
        """Have the call back for good, if it has not begun. False if it has, or may have."""
        member = call.member
        if call.state == c.SENT and member is not None and member.kind != "process":
            member.take_back()
        if call.state == c.PENDING:
            self.give_up(call)
        self.assign()
        return call.state == c.DONE

    def send_event(self, call: Call, message: dict[str, Any] | None, body: Any) -> None:
        """An event for the app's `receive()`, its body lent if it is large. `message` None: see `frames.TAKEN`."""
        member = call.member
        if member is None or call.state in (c.DONE, c.GIVEN_UP):
            return
        if body is None or len(body) < f.LOAN_SIZE or self.lent >= LOANS or type(body) is str:
            member.link.flow((f.EVENT, call.id, message, body))
        else:
            self.lent += 1
            member.link.flow((f.EVENT, call.id, message, f.LOAN), body)

    def refuse_pending(self, error: SubpoolError) -> None:
        """No call that waits on the host will get a worker."""
        for call in list(self.router.pending):
            self.give_up(call)
            call.fail(error)

    async def close(self, drain: float) -> None:
        """End everything: what runs has `drain` seconds; all is over within `close_timeout`."""
        if self.closing:
            return
        self.closing = True
        self.refuse_pending(PoolClosed("the pool was closed before a worker took the request"))
        await self.crew.close(drain)

    # sending

    def dirty(self, link: Link) -> None:
        """There is something to send: at the end of this turn of the loop."""
        if not self._dirty:
            self.loop.call_soon(self.flush)
        if link not in self._dirty:
            self._dirty.append(link)

    def flush(self) -> None:
        dirty, self._dirty = self._dirty, []
        work = False
        for link in dirty:
            work = work or bool(link.work)
            link.flush()
        if work and len(self.router.places) > 1:
            self.clock.watch_stalls()

    # what is late

    def _on_stall(self, now: float) -> bool:
        if not any(place.waiting for place in self.router.places):
            return False
        for member in self.router.stalls(now):
            if member.on_out():
                continue  # it had spoken while this loop was busy
            member.stalled = True
            member.link.stalled()
            member.take_back(not member.deaf)
            self.assign()
        return True

    def expire(self, call: Call) -> None:
        """The call's time is up."""
        started = self._may_have_begun(call)
        self.give_up(call)
        where = "the app did not answer" if started else "it waited for a worker"
        seconds = self.loop.time() - call.accepted if call.timeout is None else call.timeout
        call.fail(PoolTimeout(f"no answer within {seconds:.3g} s: {where}", started))

    def _on_clock(self, now: float) -> bool:
        busy = bool(self.router.pending)
        for member in list(self.crew.members):
            if member.overdue and member.escalate(now):
                self.crew.replace_stuck(member)
            busy = busy or bool(member.in_flight or member.overdue)
        return busy

    def _may_have_begun(self, call: Call) -> bool:
        member = call.member
        if call.state == c.SENT and member is not None and member.kind != "process":
            member.take_back()  # what lies there un-begun comes back, perhaps this call with it
            started = call.state == c.SENT
            self.assign()
            return started
        return call.state in (c.SENT, c.STARTED)

    def stats(self) -> PoolStats:
        crew, router = self.crew, self.router
        members = sorted(crew.members, key=lambda member: (member.id, member.generation))
        return PoolStats(
            crew.kind, tuple(member.stats() for member in members), len(router.pending), router.refused,
            crew.abandoned, self.not_isolatable, router.taken_back, crew.succession.restarts.total,
            crew.succession.recycled,
        )  # fmt: skip
