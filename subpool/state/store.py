"""What every store can do. Keys are bytes (`key`), values are what `values` says.

A store is used by all threads of an interpreter. Errors: `StateFull` and `StateUnavailable`, `StateError` for the rest;
`ValueError` and `TypeError` for a value that cannot be held, or counted with. A time to live is in seconds, None is for
ever.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any, Final, Literal, Protocol


class _Missing:
    """There is no entry."""

    def __repr__(self) -> str:
        return "MISSING"

    def __bool__(self) -> Literal[False]:
        return False


MISSING: Final = _Missing()


class Store(Protocol):
    """One store, as one interpreter has it."""

    remote: bool  # each call waits for another program

    def get(self, key: bytes) -> Any:
        """The value, or MISSING."""

    def get_many(self, keys: list[bytes]) -> list[Any]:
        """Their values at one moment, each or MISSING."""

    def set(self, key: bytes, value: Any, ttl: float | None) -> None: ...

    def set_many(self, items: Iterable[tuple[bytes, Any]], ttl: float | None) -> None:
        """All of them or, if one cannot be, none."""

    def delete(self, key: bytes) -> bool:
        """Whether it was there."""

    def incr(self, key: bytes, delta: int) -> int:
        """The sum; what is missing counts as 0. The time to live stays. `TypeError` for a value that is no int,
        `OverflowError` beyond 64 bit: then nothing is changed."""

    def swap(self, key: bytes, expected: Any, value: Any, ttl: float | None) -> bool:
        """Set it if the value is `expected`, whose type counts; None stands for MISSING too."""

    def drop(self, key: bytes, expected: Any) -> bool:
        """Delete it if the value is `expected`, which is neither None nor MISSING."""

    def keys(self, prefix: bytes) -> list[bytes]:
        """Those that begin so, in order."""

    def clear(self, prefix: bytes) -> int:
        """Delete those; how many there were. In steps, between which others may set some."""

    def brief(self) -> AbstractContextManager[None]:
        """In this block, on this thread: `turn.Waited` instead of a wait of more than 1 ms."""

    def close(self) -> None:
        """Close what this interpreter has of it. It may be used again."""
