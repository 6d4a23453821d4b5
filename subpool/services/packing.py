"""Plain data as MessagePack, for what leaves the process: the messages of a bus, and calls between machines.

`marshal`, in which it comes, is no format to be read from a socket, and differs between versions of Python. Tuples,
sets, complex numbers and large integers are extensions. What holds itself does not pass.
"""

from __future__ import annotations

from typing import Any, Final

import msgpack

_KINDS: Final[dict[int, type[Any]]] = {1: tuple, 2: set, 3: frozenset}  # extensions of MessagePack
_CODES: Final[dict[type[Any], int]] = {kind: code for code, kind in _KINDS.items()}
_COMPLEX, _INT = 4, 5


def encode(value: Any) -> bytes:
    """Plain data as MessagePack. `TypeError`, `ValueError`, `RecursionError` if that cannot be."""
    return msgpack.packb(value, default=_extend, strict_types=True)  # type: ignore[no-any-return]


def _extend(value: Any) -> Any:
    kind = type(value)
    code = _CODES.get(kind)
    if code is not None:
        return msgpack.ExtType(code, encode(list(value)))
    if kind is complex:
        return msgpack.ExtType(_COMPLEX, encode([value.real, value.imag]))
    if kind is int:
        return msgpack.ExtType(_INT, str(value).encode())
    raise TypeError(f"{kind.__name__} is no plain data")


def decode(data: bytes) -> Any:
    """What `encode` was given. `ValueError` for what it never makes."""
    try:
        return msgpack.unpackb(data, ext_hook=_contract, strict_map_key=False)
    except (msgpack.UnpackException, ValueError, TypeError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from None


def _contract(code: int, data: bytes) -> Any:
    if code in _KINDS:
        return _KINDS[code](decode(data))
    if code == _COMPLEX:
        return complex(*decode(data))
    if code == _INT:
        return int(data)
    raise ValueError(f"an extension {code}")
