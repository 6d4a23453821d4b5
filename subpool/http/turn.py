"""The hooks of one request of the server: run in the loop's own turn, or, where one waits, in a task.

A hook that raises is logged with its traceback, and its request is answered with 500. What ends the request (its client
has gone, its time is up) cancels what waits.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final

from ..hooks import Row, run
from ..request import Request, page
from ..types import Response

log: Final = logging.getLogger("subpool.error")

Then = Callable[[Response | None], None]
Kept = tuple[Callable[..., None], tuple[Any, ...]]  # what a worker said: args end with its member, frame and body
FAILED: Final = page(500, "Internal Server Error")
LATE: Final = 504, "a hook did not answer in time"


class Turn:
    """`due`: until then the response must have begun. `responding`: the hooks of the response have begun, and see no
    other. `behind`: what the worker says meanwhile. `drops`: the body is not sent."""

    __slots__ = ("_task", "behind", "drops", "due", "request", "responding")

    def __init__(self, request: Request, due: float) -> None:
        self.request = request
        self.due = due
        self.responding = False
        self.drops = False
        self.behind: deque[Kept] | None = None
        self._task: asyncio.Task[Response | None] | None = None

    def __repr__(self) -> str:
        return f"<Turn of {self.request!r}{', waits' if self.waits else ''}>"

    @property
    def waits(self) -> bool:
        """Whether a hook does."""
        return self._task is not None

    def run(self, loop: asyncio.AbstractEventLoop, hooks: Row, args: tuple[Any, ...], then: Then) -> None:
        """Run `hooks`, and call `then` with what they answer: now, or when the last has waited."""
        try:
            found = run(hooks, *args)
        except Exception as error:
            then(self.failed(error))
            return
        if found is None or isinstance(found, Response):
            then(found)
        else:
            self._wait(loop, found, then)

    def _wait(self, loop: asyncio.AbstractEventLoop, waiting: Coroutine[Any, Any, Response | None], then: Then) -> None:
        task = asyncio.Task(waiting, loop=loop, eager_start=True)
        if task.done():
            self._end(task, then)
        else:
            self._task = task
            task.add_done_callback(lambda task: self._awaited(task, then))

    def _awaited(self, task: asyncio.Task[Response | None], then: Then) -> None:
        if task is self._task:
            self._task = None
            self._end(task, then)
        elif not task.cancelled() and (error := task.exception()) is not None:
            self.failed(error)

    def _end(self, task: asyncio.Task[Response | None], then: Then) -> None:
        error = asyncio.CancelledError("it was cancelled") if task.cancelled() else task.exception()
        then(task.result() if error is None else self.failed(error))

    def failed(self, error: BaseException) -> Response:
        """A hook raised, or left what cannot be sent: what its request is answered with."""
        request = self.request
        log.error(
            "request %d, %s %s: a hook failed", request.id, request.method, request.target.decode("latin-1"),
            exc_info=error,
        )  # fmt: skip
        return FAILED

    def keep(self, act: Callable[..., None], *args: Any) -> None:
        """Do that when the hooks of the response are through. A loan is copied, so that its worker may end."""
        assert self.behind is not None
        if isinstance(args[-1], memoryview):
            *before, member, frame, loan = args
            args = (*before, member, frame, bytes(loan))
            member.give_back(loan)
        self.behind.append((act, args))

    def end(self) -> None:
        """Nobody waits for it any more."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
        behind, self.behind = self.behind, None
        for _, args in behind or ():
            if isinstance(args[-1], tuple):  # a file
                args[-3].drop(args[-1])

