"""Workers that are isolated sub-interpreters of this process, each with its own GIL (PEP 684, PEP 734)."""

from __future__ import annotations

import marshal
import sys
from collections.abc import Callable
from typing import Any

from .. import _interpreters
from ..channels.queue_lane import QueueLane
from .base import Kind
from .inprocess import InProcess

_BOOT = """
import marshal, sys
boot = marshal.loads(boot)
sys.path[:] = boot["path"]
sys.argv[:] = boot["argv"]
from subpool.channels.queue_lane import QueueLane
from subpool.worker import Lanes, main
main(boot["setup"], Lanes(*(QueueLane(address) for address in boot["lanes"])))
"""


class Worker(InProcess):
    """See `base.Handle`."""

    kind: Kind = "subinterpreter"

    def __init__(
        self,
        setup: dict[str, Any],
        ended: Callable[[str | None], None],
        closed: Callable[[], None],
        blocked: Callable[[Any], None],
    ) -> None:
        super().__init__(setup, ended, closed, blocked)
        self.work, self.flow, self.control, self.out = (QueueLane() for _ in range(4))
        self._interpreter: Any = None

    def _live(self) -> None:
        boot = {
            "path": list(sys.path),
            "argv": list(sys.argv),
            "setup": self.setup,
            "lanes": [lane.address() for lane in (self.work, self.flow, self.control, self.out)],
        }
        self._interpreter = _interpreters.load().create()
        self._interpreter.prepare_main(boot=marshal.dumps(boot))
        self._interpreter.exec(_BOOT)

    def _free(self) -> None:
        if self._interpreter is not None:
            self._interpreter.close()  # waits for threads that the app has left
            self._interpreter = None
        for lane in (self.work, self.flow, self.control, self.out):
            lane.close()
