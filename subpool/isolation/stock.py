"""Interpreters that outlive their workers.

For CPython 3.13, which never gives back the memory of an interpreter that is destroyed. There the interpreter of a
worker that has ended well rests, without the app's modules, and the next worker of its pool lives in it: what was there
before the app stays (the standard library as far as it was loaded, subpool), and so do extension modules, which cannot
be loaded twice. An interpreter is always entered by the same thread, for it takes that for its main thread.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Any, Final

KEEPS_MEMORY: Final = sys.version_info < (3, 14)  # of interpreters that are destroyed

resting: set[Cell] = set()  # of all pools: a process must not end with interpreters


class Cell:
    """A thread, and the interpreter that the first worker on it makes."""

    def __init__(self) -> None:
        self.interpreter: Any = None
        self._lives: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def __repr__(self) -> str:
        return f"<Cell of {self.interpreter!r}>"

    def run(self, live: Callable[[], None], name: str) -> None:
        """Call `live` on the thread. `RuntimeError` if the system has no thread for it."""
        self._lives.put(live)
        self.thread.name = name
        if self.thread.ident is None:
            self.thread.start()

    def _run(self) -> None:
        self._lives.get()()
        while self.interpreter is not None:
            self._lives.get()()

    def free(self) -> None:
        """Destroy the interpreter, on its thread. Waits for threads that the app has left."""
        interpreter, self.interpreter = self.interpreter, None
        if interpreter is not None:
            interpreter.close()
            resting.discard(self)


class Stock:
    """The interpreters of one pool that rest. Safe from any thread."""

    def __init__(self) -> None:
        self._resting: list[Cell] = []
        self.ended = False
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Stock: {len(self)} at rest>"

    def __len__(self) -> int:
        return len(self._resting)

    def take(self) -> Cell:
        """One that rests, or a new one."""
        with self._lock:
            if not self._resting:
                return Cell()
            cell = self._resting.pop()
            resting.discard(cell)
            return cell

    def put(self, cell: Cell) -> bool:
        """Let it rest. False if it is not wanted any more."""
        with self._lock:
            if not self.ended:
                self._resting.append(cell)
                resting.add(cell)
            return not self.ended

    def end(self, freed: Callable[[], None]) -> int:
        """Free all, and let none rest from now on. How many there are; `freed` is called for each, on any thread."""
        with self._lock:
            self.ended = True
            cells, self._resting = self._resting, []
        for cell in cells:
            cell.run(partial(_free, cell, freed), "subpool-rest")
        return len(cells)


def _free(cell: Cell, freed: Callable[[], None]) -> None:
    cell.free()
    freed()
