"""The SQL of `sqlite`: its tables, and its statements. Each is one change, whole or not made.

An entry's `value` is SQLite's own where it can be, `kind` says how it is read; `size` is what it counts against the
bounds, which triggers watch over; `used` is kept with eviction "lru" alone, 0 else.
"""

from __future__ import annotations

from typing import Any, Final

from . import values

NATIVE, PACKED, BOOL = 0, 1, 2  # `kind`
APPLICATION: Final = 0x73756270  # what marks the file as ours

SCHEMA: Final = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS entries (
    id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, value, kind INTEGER NOT NULL,
    expires REAL, size INTEGER NOT NULL, used INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS expiring ON entries (expires) WHERE expires IS NOT NULL;
CREATE TABLE IF NOT EXISTS totals (entries INTEGER, bytes INTEGER, max_entries INTEGER, max_bytes INTEGER);
INSERT INTO totals SELECT 0, 0, NULL, NULL WHERE NOT EXISTS (SELECT 1 FROM totals);
CREATE TRIGGER IF NOT EXISTS added AFTER INSERT ON entries BEGIN
    UPDATE totals SET entries = entries + 1, bytes = bytes + new.size;
END;
CREATE TRIGGER IF NOT EXISTS removed AFTER DELETE ON entries BEGIN
    UPDATE totals SET entries = entries - 1, bytes = bytes - old.size;
END;
CREATE TRIGGER IF NOT EXISTS changed AFTER UPDATE OF size ON entries WHEN new.size <> old.size BEGIN
    UPDATE totals SET bytes = bytes + new.size - old.size;
END;
CREATE TRIGGER IF NOT EXISTS bounds AFTER UPDATE ON totals
WHEN (new.entries > old.entries AND new.entries > new.max_entries)
  OR (new.bytes > old.bytes AND new.bytes > new.max_bytes) BEGIN
    SELECT RAISE (ABORT, 'full');
END;
PRAGMA application_id = {APPLICATION};
COMMIT;
"""
GET: Final = "SELECT value, kind, expires FROM entries WHERE key = ?"
CHANGE: Final = (
    "DO UPDATE SET value = excluded.value, kind = excluded.kind, expires = excluded.expires, size = excluded.size,"
    " used = excluded.used"
)
SET: Final = f"INSERT INTO entries (key, value, kind, expires, size, used) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (key) {CHANGE}"  # noqa: E501
ADD: Final = f"{SET} WHERE entries.expires <= ? RETURNING 1"
ADD_OR_NONE: Final = f"{SET} WHERE entries.expires <= ? OR (entries.kind = 0 AND entries.value IS NULL) RETURNING 1"
SWAP: Final = (
    "UPDATE entries SET value = ?, kind = ?, expires = ?, size = ?, used = ? WHERE key = ? AND kind = ?"
    " AND value = ?8 AND typeof(value) = typeof(?8) AND (expires IS NULL OR expires > ?) RETURNING 1"
)
DROP: Final = (
    "DELETE FROM entries WHERE key = ?1 AND kind = ?2 AND value = ?3 AND typeof(value) = typeof(?3)"
    " AND (expires IS NULL OR expires > ?4) RETURNING 1"
)
INCR: Final = (  # of an entry that is there; else the long way
    "UPDATE entries SET value = value + ?1 WHERE key = ?2 AND kind = 0 AND expires IS NULL"
    " AND typeof(value) = 'integer' AND typeof(value + ?1) = 'integer' RETURNING value"
)
INCR_ANY: Final = (
    "INSERT INTO entries (key, value, kind, expires, size, used) VALUES (?1, ?2, 0, NULL, ?3, ?4) ON CONFLICT (key)"
    " DO UPDATE SET value = CASE WHEN expires <= ?5 THEN ?2 ELSE value + ?2 END, kind = 0, size = ?3, used = ?4,"
    " expires = CASE WHEN expires <= ?5 THEN NULL ELSE expires END"
    " WHERE expires <= ?5 OR (kind = 0 AND typeof(value) = 'integer' AND typeof(value + ?2) = 'integer')"
    " RETURNING value"
)
DELETE: Final = "DELETE FROM entries WHERE key = ? RETURNING expires"
SWEEP: Final = "DELETE FROM entries WHERE id IN (SELECT id FROM entries WHERE expires <= ? LIMIT ?)"
EVICT: Final = "DELETE FROM entries WHERE id IN (SELECT id FROM entries ORDER BY used LIMIT ?)"
RANGE: Final = "key >= ? AND key < ?"
KEYS: Final = f"SELECT key FROM entries WHERE {RANGE} AND (expires IS NULL OR expires > ?) ORDER BY key"
CLEAR: Final = f"DELETE FROM entries WHERE id IN (SELECT id FROM entries WHERE {RANGE} LIMIT ?)"


def frozen(value: Any) -> tuple[Any, int, int]:
    """`value` as a column holds it, its kind and its size in bytes."""
    if not values.check(value):
        data = values.pack(value)
        return data, PACKED, len(data)
    kind = type(value)
    if kind is str:
        return value, NATIVE, len(value) if value.isascii() else len(value.encode())
    if kind is bytes:
        return value, NATIVE, len(value)
    return (int(value), BOOL, 8) if kind is bool else (value, NATIVE, 8)


def thawed(value: Any, kind: int) -> Any:
    """The value of an entry that is not held as it is."""
    return bool(value) if kind == BOOL else values.unpack(value)
