"""Reloads a server when the files of its apps change: for development. By watchfiles, which is loaded for this alone.

- What changes within `STEP` of one another is one change: a save that writes a file beside and renames it, a checkout.
- What changes while the server reloads makes it reload once more.
- Globs are those of `pathlib.PurePath.match`, and mean what they mean to uvicorn: those given add to the defaults, and
  one that repeats a default of the other side removes it there. Caches and the like (`SKIPPED`) are not looked into.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Final

from ..errors import ConfigError, SubpoolError

if TYPE_CHECKING:
    from .config import ServerConfig

log = logging.getLogger("subpool")

STEP: Final = 100  # milliseconds of quiet behind a change
SHOWN: Final = 3  # files named in the log
INCLUDED: Final = ("*.py",)
EXCLUDED: Final = (".*", ".py[cod]", ".sw.*", "~*")
SKIPPED: Final = frozenset((
    "__pycache__", ".git", ".hg", ".svn", ".tox", ".venv", ".mypy_cache", ".pytest_cache", ".ruff_cache",
    "node_modules",
))  # fmt: skip


class Wanted:
    """Which files below `folders` are looked at. `included`, `excluded`: globs; of `excluded` also directories."""

    def __init__(self, folders: Sequence[str], included: Sequence[str], excluded: Sequence[str]) -> None:
        self._folders = [Path(folder) for folder in folders]
        self._named = [glob for glob in included if not set(glob) & set("*?[")]
        self._included = [*(glob for glob in INCLUDED if glob not in excluded), *included]
        self._excluded = [glob for glob in EXCLUDED if glob not in included]
        self._without = []
        for given in excluded:
            if os.path.isdir(given):
                self._without.append(Path(os.path.abspath(given)))
            else:
                self._excluded.append(given)

    def __call__(self, change: object, path: str) -> bool:
        """Whether a change there counts. A directory that has come may have brought files unseen."""
        file = Path(path)
        if self._left_out(file):
            return False
        if self._matches(file):
            return True
        for folder, inner, names in os.walk(path):
            here = Path(folder)
            if any(self._matches(here / name) for name in names):
                return True
            inner[:] = [name for name in inner if not self._left_out(here / name)]
        return False

    def _left_out(self, file: Path) -> bool:
        if any(folder == file or folder in file.parents for folder in self._without):
            return True
        roots = [folder for folder in self._folders if folder in file.parents]
        return not any(SKIPPED.isdisjoint(file.relative_to(root).parts) for root in roots)

    def _matches(self, file: PurePath) -> bool:
        if any(map(file.match, self._named)):
            return True  # what has a name of its own is wanted, whatever a glob says
        return any(map(file.match, self._included)) and not any(map(file.match, self._excluded))


class Watcher:
    """Calls `reload` for each change, between `begin` and `close`; looks from `start` on."""

    def __init__(self, config: ServerConfig, reload: Callable[[], Awaitable[object]]) -> None:
        self.folders = folders(config)
        self._wanted = Wanted(self.folders, config.reload_include, config.reload_exclude)
        self._reload = reload
        self._begun = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._reloading: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Watcher of {', '.join(self.folders)}>"

    async def start(self) -> None:
        """Begin to look. `ConfigError` where watchfiles is missing, `OSError` if the system has no more watches."""
        try:
            import watchfiles
        except ModuleNotFoundError as error:
            if error.name != "watchfiles":
                raise
            told = "reload: needs watchfiles, which is not installed: pip install 'subpool[reload]'"
            raise ConfigError([told]) from None
        self._watch = watchfiles.awatch
        logging.getLogger("watchfiles").setLevel(logging.WARNING)  # it counts changes; we name them
        self._task = asyncio.create_task(self._run())
        await asyncio.sleep(0)  # its first step, in which the system is asked
        if self._task.done():
            self._task.result()

    def begin(self) -> None:
        self._begun.set()
        log.info("watching %s: a change reloads", ", ".join(map(shown, self.folders)))

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        try:
            looking = self._watch(*self.folders, watch_filter=self._wanted, step=STEP, ignore_permission_denied=True)
            async for changes in looking:
                await self._begun.wait()
                log.info("%s: reloading", described([(change.name, path) for change, path in changes]))
                forget_bytecode(path for _, path in changes)
                self._reloading = asyncio.create_task(self._reload_once())
                await asyncio.shield(self._reloading)  # the end of the server ends it as any other
        except Exception as error:
            if not self._begun.is_set():
                raise OSError(f"cannot watch {', '.join(self.folders)}: {error}") from error
            log.exception("changes are not seen any more")

    async def _reload_once(self) -> None:
        try:
            await self._reload()
        except (SubpoolError, OSError, RuntimeError) as error:
            log.error("not reloaded: %s", error)


def folders(config: ServerConfig) -> list[str]:
    """The directories to watch, none within another."""
    given = list(config.reload_dir)
    if not given:
        given += config.pythonpath
        for mount in config.mounts:
            given += mount.pythonpath or ()
    found = sorted({os.path.abspath(one) for one in given if os.path.isdir(one)} or {os.getcwd()})
    return [one for one in found if not any(PurePath(other) in PurePath(one).parents for other in found)]


def described(changes: Iterable[tuple[str, str]]) -> str:
    """`app.py modified, old.py deleted and 3 more`."""
    every = [f"{shown(path)} {change}" for change, path in sorted(changes, key=lambda one: one[1])]
    more = len(every) - SHOWN
    return ", ".join(every[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def shown(path: str) -> str:
    """`path` as seen from the current directory, if it is below that."""
    return os.path.relpath(path) if PurePath(os.getcwd()) in PurePath(path).parents else path


def forget_bytecode(paths: Iterable[str]) -> None:
    """A cached module holds for its source's second and size: one that is saved twice in a second could be taken for
    the one before."""
    for path in paths:
        if path.endswith(".py"):
            try:
                os.unlink(importlib.util.cache_from_source(path))
            except (OSError, NotImplementedError):
                pass  # there is none
