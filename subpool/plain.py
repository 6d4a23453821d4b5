"""Plain data: what `marshal` carries without code objects, so None, bool, int, float, complex, str, bytes, tuple, list,
dict, set and frozenset of these. Arguments, answers and messages cross as such a string, and nothing is unpickled.
"""

from __future__ import annotations

import marshal
from collections.abc import Mapping, Sequence
from typing import Any, Final

MOST: Final = 64 * 1024 * 1024  # bytes of one call's arguments, or of its answer


def pack(what: str, value: Any, most: int = MOST) -> bytes:
    """`value` as bytes. `TypeError` names `what` if it is no plain data, `ValueError` if it takes more than `most`."""
    try:
        data = marshal.dumps(value, allow_code=False)
    except (ValueError, TypeError) as error:
        raise TypeError(f"{what} is no plain data: {error}") from None
    if len(data) > most:
        raise ValueError(f"{what} takes {len(data)} bytes; {most} are the most")
    return data


def unpack(data: bytes) -> Any:
    """What `pack` was given."""
    return marshal.loads(data, allow_code=False)


def pack_arguments(function: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
    """Arguments as bytes. `TypeError` names the one that is no plain data."""
    try:
        return pack(f"what {function!r} is called with", (args, kwargs))
    except TypeError:
        for number, value in enumerate(args, 1):
            pack(f"argument {number} of {function!r}, a {type(value).__name__},", value)
        for name, value in kwargs.items():
            pack(f"argument {name!r} of {function!r}, a {type(value).__name__},", value)
        raise


def check_target(node: Any) -> None:
    """`TypeError` unless `node` is None or a str."""
    if node is not None and not isinstance(node, str):
        raise TypeError(f"node is {node!r}; it must be the name of a host, a str")


def check_seconds(timeout: Any) -> None:
    """`TypeError`/`ValueError` unless `timeout` is None or a number of seconds above 0."""
    if timeout is None:
        return
    if not isinstance(timeout, (int, float)) or isinstance(timeout, bool):
        raise TypeError(f"timeout is {timeout!r}, which is no number of seconds")
    if not timeout > 0:
        raise ValueError(f"timeout is {timeout}; it must be more than 0 seconds, or None for no limit")
