"""Frozen snapshots of a pool, and the latencies that they sum up."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

KEPT = 1024  # latencies of a worker that its percentiles are made of: the last ones


@dataclass(frozen=True, slots=True)
class WorkerStats:
    """One worker. `p50`, `p90`, `p99`: seconds from acceptance to answer of its last calls (NaN: none yet).

    `state`: starting, ready, stalled, stopping. `restarts`: how often this place was filled again. `rss`:
    resident bytes of a worker that is a process, else None; `allocated`: bytes that an isolated interpreter has in
    objects of at most 512 bytes, as its last heartbeat said, if `max_memory` asks for it, else None. `websockets` are
    those that it has: they are not in `in_flight`, their lifetimes not among the latencies.
    """

    id: int
    kind: str
    generation: int
    state: str
    in_flight: int
    served: int
    failed: int
    restarts: int
    p50: float
    p90: float
    p99: float
    rss: int | None
    websockets: int
    allocated: int | None = None


@dataclass(frozen=True, slots=True)
class PoolStats:
    """The pool at one moment. `pending`: calls that wait on the host; `refused`: calls refused as too many.

    `abandoned`: workers that never ended; `not_isolatable`: calls that failed because something refused an isolated
    interpreter; `taken_back`: calls moved away from a worker that had not begun them; `restarts`: workers started again
    because one had ended by itself; `recycled`: workers replaced by order, or because their time had come.
    `services`: functions and topics of the host, None while nothing uses them.
    """

    isolation: str
    workers: tuple[WorkerStats, ...]
    pending: int
    refused: int
    abandoned: int
    not_isolatable: int
    taken_back: int
    restarts: int = 0
    recycled: int = 0
    services: ServiceStats | None = None

    @property
    def in_flight(self) -> int:
        """Calls that are with workers."""
        return sum(worker.in_flight for worker in self.workers)

    @property
    def websockets(self) -> int:
        """WebSockets that are with workers."""
        return sum(worker.websockets for worker in self.workers)

    @property
    def served(self) -> int:
        """Calls answered by the workers that are there now."""
        return sum(worker.served for worker in self.workers)


@dataclass(frozen=True, slots=True)
class ServiceStats:
    """The host's services at one moment; the pools of one server share them.

    `functions`: how many are registered; `calls`, `failed`: of all of them since the start; `under_way`: calls now.
    `helper`: the pool of the helper process, None while it is not needed. `topics` and `subscribers`: now, those of the
    host included; `published`: messages since the start; `dropped`: messages that the host dropped because a worker
    or a subscriber of the host was too slow. `bus`: whether Redis is there, how many messages wait for it and were
    dropped, None without one. `node`: this host's `name` for calls between machines, whether others can be reached
    (`up`), the calls to others (`asked`) and for others (`taken`) that are under way; None without a bus.
    """

    functions: int
    calls: int
    failed: int
    under_way: int
    helper: PoolStats | None
    topics: int
    subscribers: int
    published: int
    dropped: int
    bus: dict[str, Any] | None = None
    node: dict[str, Any] | None = None


class Latencies:
    """The last `KEPT` latencies, in seconds: `add` takes one."""

    __slots__ = ("_ring", "add")

    def __init__(self) -> None:
        self._ring: deque[float] = deque(maxlen=KEPT)
        self.add = self._ring.append

    def percentiles(self) -> tuple[float, float, float]:
        """p50, p90 and p99, NaN where there is nothing."""
        ordered = sorted(self._ring)
        if not ordered:
            return (float("nan"),) * 3
        last = len(ordered) - 1
        return ordered[round(last * 0.5)], ordered[round(last * 0.9)], ordered[round(last * 0.99)]
