"""Functions of others that run on the host's event loop: one that holds it too long is named in the log.

While it does, nothing else is served. What it waits for in an `await` does not count. The log has a line a function and
`QUIET` seconds; what happened in between is counted.
"""

from __future__ import annotations

import logging
import types
from collections.abc import Callable, Coroutine, Generator
from time import perf_counter
from typing import Any, Final

log = logging.getLogger("subpool")

LIMIT: Final = 0.05  # seconds that a function may hold the loop
QUIET: Final = 10.0  # seconds between two lines about one function


class Watch:
    """Over one function. `name` is what the log calls it."""

    __slots__ = ("_more", "_quiet_until", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self._quiet_until = 0.0
        self._more = 0

    def __repr__(self) -> str:
        return f"<Watch over {self.name}>"

    def call[**P, T](self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call it. What an `async` function gives is for `steps`."""
        began = perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            if perf_counter() - began > LIMIT:
                self.held(perf_counter() - began)

    @types.coroutine
    def steps[T](self, coroutine: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
        """Await it: each of its steps, from one `await` that waits to the next, is measured by itself."""
        step: Callable[[Any], Any] = coroutine.send
        given: Any = None
        while True:
            began = perf_counter()
            try:
                yielded = step(given)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]
            finally:
                if perf_counter() - began > LIMIT:
                    self.held(perf_counter() - began)
            try:
                step, given = coroutine.send, (yield yielded)
            except GeneratorExit:
                coroutine.close()
                raise
            except BaseException as error:
                step, given = coroutine.throw, error

    def held(self, seconds: float) -> None:
        """It held the loop for so long."""
        now = perf_counter()
        if now < self._quiet_until:
            self._more += 1
            return
        self._quiet_until = now + QUIET
        more, self._more = self._more, 0
        log.warning(
            "%s held the event loop for %.0f ms, and every request with it%s",
            self.name, seconds * 1000, f"; so it did {more} times more since it was told last" if more else "",
        )  # fmt: skip
