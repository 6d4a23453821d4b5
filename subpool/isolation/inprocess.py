"""What the kinds inside the host's process share: a thread for each worker, and the way out of the process.

The threads are daemons, so that a worker that hangs does not hold the process; and because a sub-interpreter that is
still there when Python finalizes hangs or crashes it, a process that ends with workers left (abandoned ones, or a pool
that nobody closed) flushes its output and ends by `os._exit`.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Callable
from types import CodeType
from typing import Any

from ..channels.frames import Frame
from .stock import Stock, resting

_alive: set[InProcess] = set()


class InProcess:
    """Base of the thread and sub-interpreter kinds: `_live` runs the worker, `_free` frees what it had."""

    can_kill = False

    def __init__(
        self,
        setup: dict[str, Any],
        ended: Callable[[str | None], None],
        closed: Callable[[], None],
        blocked: Callable[[Any], None],
    ) -> None:
        self.setup = setup
        self._ended, self._closed = ended, closed
        self._may_close = threading.Event()
        self.thread = threading.current_thread()  # until it has one of its own
        self.abandoned = False

    def __repr__(self) -> str:
        state = "abandoned" if self.abandoned else "alive" if self in _alive else "not running"
        return f"<{type(self).__module__.rpartition('.')[2]} worker {self.setup['id']} {state}>"

    def start(self, stock: Stock | None = None) -> None:
        _alive.add(self)
        try:
            self.thread = self._begin(f"subpool-worker-{self.setup['id']}", stock)
        except BaseException:
            _alive.discard(self)
            raise

    def _begin(self, name: str, stock: Stock | None) -> threading.Thread:
        """Have a thread of that name call `_run`; the thread."""
        thread = threading.Thread(target=self._run, name=name, daemon=True)
        thread.start()
        return thread

    def _run(self) -> None:
        cause: str | None = None
        try:
            self._live()
        except BaseException as error:
            cause = f"{type(error).__name__}: {error}"
        self._ended(cause)
        self._may_close.wait()
        try:
            self._free()
        finally:
            _alive.discard(self)
            self._closed()

    def _live(self) -> None:
        raise NotImplementedError

    def _free(self) -> None:
        raise NotImplementedError

    def discard(self) -> None:
        self._free()

    def take_back(self) -> list[Frame] | None:
        return self.work.take_back()  # type: ignore[attr-defined,no-any-return]

    def release(self) -> None:
        self._may_close.set()

    def kill(self) -> None:
        """Nothing ends a thread or a running interpreter from outside."""

    def abandon(self) -> None:
        self.abandoned = True
        _watch_status()
        self._may_close.set()

    def memory(self) -> int | None:
        return None


_status: object = None  # what the SystemExit that ends the program holds


def _watch_status() -> None:
    """Learn the program's exit status: `atexit` does not tell it, and `os._exit` needs it.

    A monitoring event (PEP 669) sees a SystemExit leave the program's outermost frame. It costs nothing but when
    exceptions unwind frames, and is there only once a worker was abandoned.
    """
    monitoring = sys.monitoring
    for tool in (4, 3, 5):
        try:
            monitoring.use_tool_id(tool, "subpool")
        except ValueError:  # taken; by this function, perhaps
            if monitoring.get_tool(tool) == "subpool":
                return
            continue
        monitoring.register_callback(tool, monitoring.events.PY_UNWIND, _on_unwind)
        monitoring.set_events(tool, monitoring.events.PY_UNWIND)
        return


def _on_unwind(code: CodeType, offset: int, error: BaseException) -> None:
    global _status
    if isinstance(error, SystemExit) and threading.current_thread() is threading.main_thread():
        frame = sys._getframe(1)
        if frame.f_back is None:
            _status = error.code


def _exit_status() -> int:
    """As Python computes it (`sys.exit`): None is 0, an int itself, anything else 1; 1 after an uncaught exception."""
    if _status is None:
        return 1 if getattr(sys, "last_exc", None) is not None else 0
    return _status & 0xFF if isinstance(_status, int) else 1


@atexit.register
def _leave() -> None:
    left = [*(worker for worker in _alive if worker.thread.is_alive()), *resting]
    if not left:
        return
    sys.stderr.write(f"subpool: {len(left)} worker(s) did not end: {left}; the process ends without them\n")
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            pass
    os._exit(_exit_status())
