"""The steward: a worker's second thread, which answers while a handler holds the first.

It blocks on the control lane's descriptor, so it costs nothing until the host speaks: INTERRUPT (see `interrupt`), and
for workers in processes GIVE_BACK, which returns the calls that the main thread has not begun. BEAT asks whether it is
there at all. Answers of the host for a thread that waits come this way too: see `services`.
"""

from __future__ import annotations

import logging
import os
import select
import threading
from typing import TYPE_CHECKING

from ..channels import frames as f
from ..channels.lane import LaneClosed

if TYPE_CHECKING:
    from .worker import Worker

log = logging.getLogger("subpool")


class Steward:
    """Started on the main thread; the host ends it with HALT once the worker has said BYE."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._control = worker.lanes.control
        daemon = worker.setup["kind"] != "subinterpreter"  # isolated interpreters have no daemon threads
        self._thread = threading.Thread(target=self._run, name=f"subpool-steward-{worker.id}", daemon=daemon)
        self._thread._subpool = True  # type: ignore[attr-defined]

    def start(self) -> None:
        self._thread.start()

    def join(self, seconds: float) -> None:
        """Wait for its end: lanes must not be closed under it."""
        self._thread.join(seconds)

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
            except LaneClosed:  # the host has gone: end with it, even out of a handler that holds the main thread
                threading.main_thread().join(1.0)
                os._exit(1)

    def _obey(self, frame: f.Frame) -> None:
        if frame[0] == f.INTERRUPT:
            hit = self._worker.calls.interrupt(frame[1])
            if hit and self._worker.services is not None:
                self._worker.services.wake_blocked()
            self._worker.lanes.out.send([(f.INTERRUPTED, frame[1], hit)])
        elif frame[0] == f.BEAT:
            self._worker.lanes.out.send([(f.BEATEN, _allocated() if frame[1] else None)])
        elif frame[0] == f.GIVE_BACK:
            given = self._worker.lanes.work.take_back()  # type: ignore[attr-defined]
            self._worker.lanes.out.send([(f.GIVEN_BACK, [call[1] for call in given])])
        elif frame[0] >= f.ANSWER:
            self._worker.service().deliver(frame)


def _allocated() -> int | None:
    from . import memory  # and with it ctypes: for who measures

    if (found := memory.allocated()) is None:
        log.warning("max_memory: this Python does not tell what an interpreter has allocated")
    return found
