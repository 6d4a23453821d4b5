"""A store that is an SQLite file in WAL mode: `memory:` on a tmpfs, `sqlite:` on disk.

- Each thread of an interpreter has a connection of its own. Readers wait for nobody; who writes takes its turn first
  (`turn`), so that nobody meets a busy database.
- A change is one statement, and its bounds are triggers that abort it. So whatever ends a worker, or interrupts it, a
  change is made whole or not at all.
- Who writes deletes expired entries, a few, at most once a second; all of them when the store is full. Until then they
  are not seen, but count.
- In memory time is the monotonic clock, which all processes of a system share; on disk it is the time of day.
- On a tmpfs of 64 MB: an entry of a little more than 2 KB takes a page of 4, so 24 MB of entries take 48 at most; the
  log is cut back to 4 MB once it held more, and holds the largest value (8 MB) once.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any, Final

from ..errors import StateFull
from . import sql
from .connections import Connection, Connections
from .key import end_of
from .store import MISSING
from .turn import Waited

OVERHEAD: Final = 64  # bytes that an entry counts beyond its own
SWEEP: Final = 1.0  # seconds between two sweeps of one connection
SWEPT: Final = 200  # entries at a time
STEP: Final = 2000  # entries that `clear` deletes in one turn
TOUCHES: Final = 64  # entries that were read, of which the others do not know yet
MANY: Final = 500  # keys in one SELECT


class SQLiteStore(Connections):
    """See `store.Store`."""

    remote = False

    # reading

    def get(self, key: bytes) -> Any:
        own = self._own()
        try:
            row = own.execute(sql.GET, (key,)).fetchone()
        except sqlite3.Error as error:
            raise self._failure(error) from error
        if row is None:
            return MISSING
        value, kind, expires = row
        if expires is not None and expires <= self._clock():
            return MISSING
        if self._lru:
            self._touch(own, key)
        return value if kind == sql.NATIVE else sql.thawed(value, kind)

    def get_many(self, keys: list[bytes]) -> list[Any]:
        own = self._own()
        found: dict[bytes, Any] = {}
        try:
            if len(keys) > MANY:
                own.execute("BEGIN")  # one moment for all
            for at in range(0, len(keys), MANY):
                some = keys[at : at + MANY]
                rows = own.execute(
                    f"SELECT key, value, kind, expires FROM entries WHERE key IN ({','.join('?' * len(some))})",
                    some,
                ).fetchall()
                now = self._clock()
                for key, value, kind, expires in rows:
                    if expires is None or expires > now:
                        found[key] = value if kind == sql.NATIVE else sql.thawed(value, kind)
        except sqlite3.Error as error:
            raise self._failure(error) from error
        finally:
            if own.connection.in_transaction:
                own.connection.rollback()
        if self._lru:
            for key in found:
                self._touch(own, key)
        return [found.get(key, MISSING) for key in keys]

    def keys(self, prefix: bytes) -> list[bytes]:
        try:
            rows = self._own().execute(sql.KEYS, (prefix, end_of(prefix), self._clock())).fetchall()
        except sqlite3.Error as error:
            raise self._failure(error) from error
        return [key for (key,) in rows]

    # writing

    def _write(self, statement: str, values: tuple[Any, ...]) -> Any:
        """Run one statement in turn; the first row of its answer."""
        own = self._own()
        turn = own.turn
        try:
            turn.take(own.patience)
            if self._clock() >= own.sweep_at:
                self._sweep(own)
            try:
                return own.execute(statement, values).fetchone()
            except sqlite3.IntegrityError:
                self._make_room(own)
            freed = 1
            while True:
                try:
                    return own.execute(statement, values).fetchone()
                except sqlite3.IntegrityError:
                    self._evict(own, freed)
                    freed *= 2
        except sqlite3.Error as error:
            raise self._failure(error) from error
        finally:
            turn.give()

    def _sweep(self, own: Connection) -> None:
        """Delete some expired entries, and tell of what was read."""
        now = self._clock()
        if own.execute(sql.SWEEP, (now, SWEPT)).rowcount < SWEPT:
            own.sweep_at = now + SWEEP
        if own.touched:
            touched, own.touched = own.touched, {}
            own.connection.executemany(
                "UPDATE entries SET used = ? WHERE key = ?", [(used, key) for key, used in touched.items()]
            )

    def _make_room(self, own: Connection) -> None:
        own.execute(sql.SWEEP, (self._clock(), -1))
        if self._lru:
            self._sweep(own)

    def _evict(self, own: Connection, count: int) -> None:
        """Delete what was not used for longest. `StateFull` if that is not wanted, or nothing is left."""
        if not self._lru:
            raise StateFull(f"the state is full: {self._limits()}; raise the bound, delete, or choose eviction 'lru'")
        if not own.execute(sql.EVICT, (count,)).rowcount:
            raise StateFull(f"it is more than the state may hold: {self._limits()}")

    def _limits(self) -> str:
        named = zip(("max_entries", "max_bytes"), self._bounds, strict=True)
        return ", ".join(f"{name}={bound}" for name, bound in named if bound is not None)

    def _touch(self, own: Connection, key: bytes) -> None:
        own.touched[key] = self._now()
        if len(own.touched) >= TOUCHES:
            try:
                own.turn.take(own.patience)
                self._sweep(own)
            except Waited:
                own.touched.clear()  # to read is no reason to wait
            finally:
                own.turn.give()

    def _row(self, key: bytes, value: Any, ttl: float | None) -> tuple[Any, ...]:
        value, kind, size = sql.frozen(value)
        expires = None if ttl is None else self._clock() + ttl
        return key, value, kind, expires, len(key) + size + OVERHEAD, self._now() if self._lru else 0

    def set(self, key: bytes, value: Any, ttl: float | None) -> None:
        self._write(sql.SET, self._row(key, value, ttl))

    def set_many(self, items: Iterable[tuple[bytes, Any]], ttl: float | None) -> None:
        rows = [self._row(key, value, ttl) for key, value in items]
        own = self._own()
        freed = 0
        try:
            own.turn.take(own.patience)
            self._sweep(own)
            while True:
                try:
                    own.execute("BEGIN IMMEDIATE")
                    own.connection.executemany(sql.SET, rows)
                    own.execute("COMMIT")
                    return
                except sqlite3.IntegrityError:
                    own.connection.rollback()
                if freed:
                    self._evict(own, freed)
                else:
                    self._make_room(own)
                freed = 2 * freed or 1
        except sqlite3.Error as error:
            raise self._failure(error) from error
        finally:
            if own.connection.in_transaction:
                own.connection.rollback()
            own.turn.give()

    def delete(self, key: bytes) -> bool:
        row = self._write(sql.DELETE, (key,))
        return row is not None and (row[0] is None or row[0] > self._clock())

    def incr(self, key: bytes, delta: int) -> int:
        row = None
        if not self._lru:
            row = self._write(sql.INCR, (delta, key))
        if row is None:
            used = self._now() if self._lru else 0
            row = self._write(sql.INCR_ANY, (key, delta, len(key) + 8 + OVERHEAD, used, self._clock()))
        if row is None:
            value = self.get(key)
            if type(value) is int:
                raise OverflowError(f"{value} and {delta} are more than 64 bit hold")
            raise TypeError(f"it is {type(value).__name__}, and only an int can be counted with")
        return row[0]  # type: ignore[no-any-return]

    def swap(self, key: bytes, expected: Any, value: Any, ttl: float | None) -> bool:
        row = self._row(key, value, ttl)
        if expected is MISSING or expected is None:
            statement = sql.ADD if expected is MISSING else sql.ADD_OR_NONE
            return self._write(statement, (*row, self._clock())) is not None
        old, kind, _ = sql.frozen(expected)
        return self._write(sql.SWAP, (*row[1:], key, kind, old, self._clock())) is not None

    def drop(self, key: bytes, expected: Any) -> bool:
        old, kind, _ = sql.frozen(expected)
        return self._write(sql.DROP, (key, kind, old, self._clock())) is not None

    def clear(self, prefix: bytes) -> int:
        own = self._own()
        end = end_of(prefix)
        cleared = 0
        while True:
            try:
                own.turn.take(own.patience)
                count = own.execute(sql.CLEAR, (prefix, end, STEP)).rowcount
            except sqlite3.Error as error:
                raise self._failure(error) from error
            finally:
                own.turn.give()
            cleared += count
            if count < STEP:
                return cleared
