"""A file of SQLite as the threads of one interpreter have it open: a connection for each, closed with its thread."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from ..errors import StateError, StateFull, StateUnavailable
from . import place, sql
from .turn import Turn

PATIENCE: Final = 5.0  # seconds that a write waits for its turn
BRIEF: Final = 0.001


class Connection:
    """What one thread has of a store."""

    __slots__ = ("__weakref__", "connection", "execute", "patience", "sweep_at", "touched", "turn")

    def __init__(self, connection: sqlite3.Connection, turn: Turn) -> None:
        self.connection = connection
        self.execute = connection.execute
        self.turn = turn
        self.patience = PATIENCE
        self.sweep_at = 0.0
        self.touched: dict[bytes, int] = {}

    def close(self) -> None:
        self.connection.close()
        self.turn.close()

    def __del__(self) -> None:  # with its thread
        self.close()


class Connections:
    """What `SQLiteStore` stands on. `clock`: what lives for so many seconds is told by it."""

    def __init__(
        self,
        path: str,
        *,
        durable: bool,
        max_entries: int | None = None,
        max_bytes: int | None = None,
        lru: bool = False,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._path = path
        self._durable = durable
        self._bounds = max_entries, max_bytes
        self._lru = lru
        self._clock = clock or (time.time if durable else time.monotonic)
        self._now = time.time_ns if durable else time.monotonic_ns
        self._local = threading.local()
        self._open: weakref.WeakSet[Connection] = weakref.WeakSet()
        _stores.add(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._path}, {len(self._open)} connections>"

    def _own(self) -> Connection:
        try:
            return self._local.own  # type: ignore[no-any-return]
        except AttributeError:
            return self._connect()

    def _connect(self) -> Connection:
        path = self._path
        if not self._durable:
            place.make(os.path.dirname(path))
        try:
            turn = Turn(f"{path}-turn")
        except OSError as error:
            raise StateError(f"the store cannot be had: {error}") from error
        own = None
        try:
            turn.take(PATIENCE)
            own = Connection(
                sqlite3.connect(path, timeout=PATIENCE, isolation_level=None, check_same_thread=False), turn
            )
            self._prepare(own.connection)
        except sqlite3.Error as error:
            raise self._failure(error) from error
        finally:
            turn.give()
            if own is None:
                turn.close()
        self._local.own = own
        self._open.add(own)
        return own

    def _prepare(self, connection: sqlite3.Connection) -> None:
        execute = connection.execute
        (mark,) = execute("PRAGMA application_id").fetchone()
        if mark != sql.APPLICATION:
            if execute("SELECT 1 FROM sqlite_master").fetchone() is not None:
                raise StateError(f"{self._path} is the database of another program")
            execute("PRAGMA journal_mode = WAL")
            connection.executescript(sql.SCHEMA)
        execute(f"PRAGMA synchronous = {'NORMAL' if self._durable else 'OFF'}")
        execute("PRAGMA cache_size = -256")
        execute("PRAGMA wal_autocheckpoint = 256")
        execute(f"PRAGMA journal_size_limit = {4 * 2**20}")
        if self._lru:
            execute("CREATE INDEX IF NOT EXISTS used ON entries (used)")
        if execute("SELECT max_entries, max_bytes FROM totals").fetchone() != self._bounds:
            execute("UPDATE totals SET max_entries = ?, max_bytes = ?", self._bounds)

    def _failure(self, error: sqlite3.Error) -> StateError:
        name = getattr(error, "sqlite_errorname", "")
        if name == "SQLITE_FULL":
            return StateFull(f"no room on the disk of {self._path}")
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return StateUnavailable(f"another program holds {self._path}; nothing was changed")
        return StateError(f"{self._path}: {error}")

    def _forget(self) -> None:
        """In the child of a fork: what the parent has open must not be touched."""
        _inherited.append(self._open)
        _inherited.extend(self._open)
        self._local = threading.local()
        self._open = weakref.WeakSet()

    @contextmanager
    def brief(self) -> Iterator[None]:
        own = self._own()
        own.patience = BRIEF
        try:
            yield
        finally:
            own.patience = PATIENCE

    def close(self) -> None:
        for own in list(self._open):
            own.close()
        self._open = weakref.WeakSet()
        self._local = threading.local()


_stores: weakref.WeakSet[Connections] = weakref.WeakSet()
_inherited: list[Any] = []  # of the parent of a fork: never closed here


def _forked() -> None:
    for store in list(_stores):
        store._forget()


os.register_at_fork(after_in_child=_forked)
