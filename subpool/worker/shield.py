"""Functions of `sys` that look into every interpreter of the process while those run, which crashes it.

In a worker that is one of several interpreters they tell what they can know safely: `_current_frames` and
`_current_exceptions`, which profilers and thread dumps call, of the calling thread alone; `getallocatedblocks` nothing,
as its documentation allows.
"""

from __future__ import annotations

import sys
import threading
from types import FrameType


def raise_shield() -> None:
    """Put them in place of those of this interpreter."""
    sys._current_frames = _current_frames
    sys._current_exceptions = _current_exceptions
    sys.getallocatedblocks = _getallocatedblocks


def _current_frames() -> dict[int, FrameType]:
    return {threading.get_ident(): sys._getframe(1)}


def _current_exceptions() -> dict[int, BaseException | None]:
    return {threading.get_ident(): sys.exception()}


def _getallocatedblocks() -> int:
    return 0
