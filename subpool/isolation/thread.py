"""Workers that are threads: for free-threaded builds. They share the host's interpreter and one imported app."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..channels.thread_lane import ThreadLane
from ..worker import Lanes, main
from .base import Kind
from .inprocess import InProcess


class Worker(InProcess):
    """See `base.Handle`."""

    kind: Kind = "thread"

    def __init__(
        self,
        setup: dict[str, Any],
        ended: Callable[[str | None], None],
        closed: Callable[[], None],
        blocked: Callable[[Any], None],
    ) -> None:
        super().__init__(setup, ended, closed, blocked)
        self.work, self.flow, self.control, self.out = (ThreadLane() for _ in range(4))

    def _live(self) -> None:
        main(self.setup, Lanes(self.work, self.flow, self.control, self.out))

    def _free(self) -> None:
        for lane in (self.work, self.flow, self.control, self.out):
            lane.close()
