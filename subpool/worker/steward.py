"""The steward: a worker's second thread, which answers while a handler holds the first.

It blocks on the control lane's descriptor, so it costs nothing until the host speaks: INTERRUPT (see `interrupt`), and
for workers in processes GIVE_BACK, which returns the calls that the main thread has not begun.
"""

from __future__ import annotations

import select
import threading
from typing import TYPE_CHECKING

from ..channels import frames as f
from ..channels.lane import LaneClosed

if TYPE_CHECKING:
    from .worker import Worker


class Steward:
    """`start` and `stop` it on the main thread."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._control = worker.lanes.control
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=f"subpool-steward-{worker.id}", daemon=False)
        self._thread._subpool = True  # type: ignore[attr-defined]

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """The host ends the thread with HALT, which it sends once the worker said BYE, or here if it never ran."""
        self._stopping = True

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._control.fileno(), select.POLLIN)
        while True:
            poll.poll()
            self._control.clear()
            try:
                while (item := self._control.receive()) is not None:
                    for frame in item[0]:
                        if frame[0] == f.HALT:
                            return
                        self._obey(frame)
            except LaneClosed:
                return

    def _obey(self, frame: f.Frame) -> None:
        if frame[0] == f.INTERRUPT:
            self._worker.calls.interrupt(frame[1])
        elif frame[0] == f.GIVE_BACK:
            given = self._worker.lanes.work.take_back()  # type: ignore[attr-defined]
            self._worker.lanes.out.send([(f.GIVEN_BACK, [call[1] for call in given])])
