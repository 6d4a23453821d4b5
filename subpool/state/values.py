"""Values: what MessagePack holds. None, bool, int (64 bit), float, str, bytes, and lists, tuples (which come back as
lists) and dicts of them.

Scalars go into a store as they are, so that they can be counted with and compared there. What is inside containers is
packed by the library `msgpack`, loaded with the first container: its pure Python part in interpreters that refuse its
C part. Nothing is ever unpickled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

LARGEST: Final = 8 * 2**20  # bytes of a value
LEAST: Final = -(2**63)  # of the ints that can be counted with
MOST: Final = 2**63 - 1
MOST_UNSIGNED: Final = 2**64 - 1

_pack: Callable[[Any], bytes] | None = None
_unpack: Callable[[bytes], Any]


def load() -> None:
    """Load `msgpack`."""
    global _pack, _unpack
    from msgpack import Packer, unpackb

    def unpack(data: bytes) -> Any:
        return unpackb(data, strict_map_key=False)

    _unpack = unpack
    _pack = lambda value: Packer(autoreset=True).pack(value)  # noqa: E731  a packer is no matter for two threads


def pack(value: Any, most: int = LARGEST) -> bytes:
    """`value` as MessagePack, of so many bytes at most. `TypeError`/`ValueError` say what is wrong with it."""
    if _pack is None:
        load()
    try:
        data = _pack(value)  # type: ignore[misc]
    except OverflowError:
        raise ValueError("it holds an int beyond 64 bit") from None
    except (ValueError, RecursionError) as error:
        if isinstance(error, UnicodeEncodeError):
            raise ValueError("it holds a str with a lone surrogate, which is no UTF-8") from None
        raise ValueError("it is nested too deep, or holds itself") from None
    except TypeError as error:
        raise TypeError(f"{error}; a value is None, bool, int, float, str, bytes, or a list or dict of them") from None
    if len(data) > most:
        raise ValueError(too_large(len(data)))
    return data


def unpack(data: bytes) -> Any:
    """The value that `pack` was given. `ValueError` if it cannot be read."""
    if _pack is None:
        load()
    return _unpack(data)


def check(value: Any) -> bool:
    """Whether `value` is one that stores hold as it is; else it is to be packed. `ValueError` for what nobody holds."""
    kind = type(value)
    if kind is int:
        if LEAST <= value <= MOST:
            return True
        if LEAST <= value <= MOST_UNSIGNED:
            return False
        raise ValueError("it is an int beyond 64 bit")
    if kind is str:
        if len(value) * 4 > LARGEST or not value.isascii():
            try:
                size = len(value.encode())
            except UnicodeEncodeError:
                raise ValueError("it is a str with a lone surrogate, which is no UTF-8") from None
            if size > LARGEST:
                raise ValueError(too_large(size))
        return True
    if kind is bytes:
        if len(value) > LARGEST:
            raise ValueError(too_large(len(value)))
        return True
    if kind is float:
        if value != value:
            raise ValueError("it is NaN, which equals nothing; use None")
        return True
    return value is None or kind is bool


def too_large(size: int) -> str:
    return f"it takes {size} bytes, and {LARGEST} are the limit"
