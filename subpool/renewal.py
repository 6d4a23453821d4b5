"""When a worker is replaced though nothing is wrong with it: after so many requests, at an age, when it has grown.

Pure: what a worker has done is given. A limit of requests is drawn once for each worker, from `max_requests` up to
`max_requests_jitter` more, so that workers which began together do not go together; an age likewise, up to a tenth
more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from .restarts import chance

AGES: Final = 0.1  # of `max_age`: how far apart workers of one age go


class Limits(NamedTuple):
    """Of one worker; infinity is no limit."""

    requests: float
    age: float  # seconds
    memory: float  # bytes

    def reached(self, requests: int, age: float, memory: int | None) -> str | None:
        """Why a worker that served so many requests in `age` seconds is to go; None: it may stay."""
        if requests >= self.requests:
            return f"it has served {requests} requests"
        if age >= self.age:
            return f"it is {age:.0f} s old"
        if memory is not None and memory >= self.memory:
            return f"it has {memory / 2**20:.0f} MiB"
        return None


class Renewal:
    """The options of a pool."""

    __slots__ = ("_age", "_jitter", "_memory", "_random", "_requests")

    def __init__(
        self,
        requests: int | None,
        jitter: int,
        age: float | None,
        memory: int | None,
        chance: Callable[[], float] = chance,
    ) -> None:
        self._requests, self._jitter, self._age, self._memory = requests, jitter, age, memory
        self._random = chance

    def __repr__(self) -> str:
        return f"<Renewal requests={self._requests} age={self._age} memory={self._memory}>"

    def limits(self) -> Limits:
        """Of a new worker."""
        never = float("inf")
        return Limits(
            never if self._requests is None else self._requests + int(self._random() * (self._jitter + 1)),
            never if self._age is None else self._age * (1 + AGES * self._random()),
            never if self._memory is None else self._memory,
        )
