"""Hooks that hear of workers and reloads. One that raises is logged, and nothing else comes of it.

Those that wait do so in tasks of their own: nobody waits for them but the pool's end, for `SETTLE` seconds.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import anyio

from .hooks import Hooks, Reload, WorkerInfo

if TYPE_CHECKING:
    from .hostloop import HostLoop
    from .member import Member

log: Final = logging.getLogger("subpool.error")

SETTLE: Final = 2.0  # seconds


class WorkerHooks:
    """Of one pool, or of a server with its pools."""

    def __init__(self, hooks: Hooks, loop: HostLoop) -> None:
        self._hooks = hooks
        self._loop = loop
        self._waiting = 0
        self._settled: anyio.Event | None = None

    def __repr__(self) -> str:
        return f"<WorkerHooks of {self._hooks!r}, {self._waiting} wait>"

    def worker(self, kind: str, member: Member, cause: str | None = None, unexpected: bool = False) -> None:
        """Tell of a worker. Its end is told once."""
        if kind == "on_worker_exit":
            if member.exit_told:
                return
            member.exit_told = True
        if row := self._hooks.row(kind):
            app = member.engine.options.app
            info = WorkerInfo(member.id, member.generation, member.kind, app, member.served, cause, unexpected)
            self._tell(row, info)

    def reloaded(self, reload: Reload) -> None:
        """Tell of a reload."""
        self._tell(self._hooks.row("on_reload"), reload)

    def _tell(self, row: Any, subject: Any) -> None:
        for hook in row:
            try:
                waiting = hook(subject)
            except Exception:
                log.exception("a hook failed: %r", hook)
                continue
            if hasattr(waiting, "__await__"):
                self._waiting += 1
                self._loop.spawn(partial(self._wait, hook, waiting))

    async def _wait(self, hook: Any, waiting: Any) -> None:
        try:
            await waiting
        except Exception:
            log.exception("a hook failed: %r", hook)
        finally:
            self._waiting -= 1
            if not self._waiting and self._settled is not None:
                self._settled.set()

    async def settle(self) -> None:
        """Wait for those that wait, for a while."""
        if self._waiting:
            self._settled = anyio.Event()
            with anyio.move_on_after(SETTLE, shield=True):
                await self._settled.wait()
