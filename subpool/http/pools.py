"""The pools of a server: asked, sized, renewed and ended as one."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from ..errors import SubpoolError
from ..pool import Pool

if TYPE_CHECKING:
    from .config import ServerConfig

log: Final = logging.getLogger("subpool")

_KINDS: Final = {"subinterpreter": "sub-interpreter", "thread": "thread", "process": "process"}


class Pools(list[Pool]):
    """In the order of the groups of mounts."""

    def status(self) -> list[dict[str, Any]]:
        """Of each pool its app and the fields of `PoolStats`, as JSON can hold them."""
        return [{"app": pool.options.app, **plain(dataclasses.asdict(pool.stats()))} for pool in self]

    def threads(self) -> bool:
        """Whether workers of one of them share this process's copy of the app."""
        return any(pool.isolation == "thread" for pool in self)

    def workers(self) -> list[int]:
        """How many each has, or is about to have again."""
        return [len({one.id for one in pool.stats().workers if one.state != "stopping"}) for pool in self]

    def size(self) -> list[int | None]:
        """How many each should have; None where it finds that by itself."""
        return [
            len(pool.engine.crew.ids) if pool.options.least_workers == pool.options.most_workers else None
            for pool in self
        ]

    def scale(self, count: int | None, delta: int, counts: Sequence[int | None]) -> list[int]:
        """See `Server.scale`."""
        found = []
        for number, (pool, there) in enumerate(zip(self, self.workers(), strict=True)):
            own = counts[number] if counts else None
            wanted = own or max(1, there + delta if count is None else count)
            pool.engine.crew.scale(wanted)
            found.append(wanted)
        log.info("scaled: %s workers", ", ".join(map(str, found)))
        return found

    async def recycle(self, worker: int) -> None:
        """Replace the workers of that number. `ValueError` if no pool has it."""
        found = [pool for pool in self if any(one.id == worker for one in pool.stats().workers)]
        if not found:
            raise ValueError(f"there is no worker {worker}")
        for pool in found:
            await pool.recycle(worker)

    async def renew(self) -> str | None:
        """Replace all workers. None, or what is wrong with the new code: then the old workers stay."""
        for pool in self:
            try:
                await pool.recycle()
            except SubpoolError as error:
                detail = getattr(error, "remote_traceback", "")
                log.error("not reloaded, the old workers stay: %s%s", error, f"\n{detail.rstrip()}" if detail else "")
                return str(error)
        return None

    async def close(self, drain: float) -> None:
        """End them all. What fails is logged."""
        for failed in await asyncio.gather(*(pool.close(drain) for pool in self), return_exceptions=True):
            if failed is not None and not isinstance(failed, SubpoolError):
                log.error("a pool could not be closed", exc_info=failed)

    def describe(self, config: ServerConfig) -> str:
        return "; ".join(describe(pool, config) for pool in self)


def describe(pool: Pool, config: ServerConfig) -> str:
    """`2 sub-interpreters (auto), app myapp:app`."""
    workers = len(pool.stats().workers)
    kind = _KINDS[pool.isolation] + ("" if workers == 1 else "es" if pool.isolation == "process" else "s")
    chosen = " (auto)" if config.isolation == "auto" else ""
    return f"{workers} {kind}{chosen}, app {pool.options.app}"


def plain(value: Any) -> Any:
    """`value` as JSON can hold it: a NaN is None."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    return None if value != value else value
