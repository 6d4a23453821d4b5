"""Workers that are isolated sub-interpreters of this process, each with its own GIL (PEP 684, PEP 734)."""

from __future__ import annotations

import logging
import marshal
import sys
import threading
from collections.abc import Callable
from typing import Any

from .. import _interpreters
from ..channels.queue_lane import QueueLane
from .base import Kind
from .inprocess import InProcess
from .stock import Cell, Stock

log = logging.getLogger("subpool")

_BOOT = """
import marshal, sys
boot = marshal.loads(boot)
sys.path[:] = boot["path"]
sys.argv[:] = boot["argv"]
from subpool.channels.queue_lane import QueueLane
from subpool.worker import Lanes, main
kept = main(boot["setup"], Lanes(*(QueueLane(address) for address in boot["lanes"])))
"""

_REST = """
from subpool.worker.rest import rest
rest(kept)
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
        self._cell = Cell()
        self._stock: Stock | None = None
        self._well = False  # it has come to a good end

    def _begin(self, name: str, stock: Stock | None) -> threading.Thread:
        if stock is not None:
            self._stock, self._cell = stock, stock.take()
        self._cell.run(self._run, name)
        return self._cell.thread

    def _live(self) -> None:
        boot = {
            "path": list(sys.path),
            "argv": list(sys.argv),
            "setup": self.setup,
            "lanes": [lane.address() for lane in (self.work, self.flow, self.control, self.out)],
        }
        cell = self._cell
        if cell.interpreter is None:
            cell.interpreter = _interpreters.load().create()
        cell.interpreter.prepare_main(boot=marshal.dumps(boot))
        cell.interpreter.exec(_BOOT)
        self._well = True

    def _free(self) -> None:
        rests = self._well and self._stock is not None and not self._stock.ended and self._rest()
        if not rests:
            self._cell.free()  # waits for threads that the app has left
        for lane in (self.work, self.flow, self.control, self.out):
            lane.close()
        if rests and self._stock is not None and not self._stock.put(self._cell):
            self._cell.free()

    def _rest(self) -> bool:
        """Have the interpreter forget the app. False if that fails."""
        try:
            self._cell.interpreter.exec(_REST)
        except Exception:
            log.exception("an interpreter could not be cleared, and is not used again")
            return False
        return True
