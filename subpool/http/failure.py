"""What a request that failed is answered with, and what the log says of it: the same over every protocol."""

from __future__ import annotations

import logging
from typing import Final

from ..errors import PoolTimeout, WorkerLost

log: Final = logging.getLogger("subpool.error")


def answer_for(error: BaseException) -> tuple[int, str]:
    """Status and text in place of a response that had not begun."""
    if isinstance(error, PoolTimeout):
        return 504, "the app did not answer in time"
    if isinstance(error, WorkerLost):
        return 502, "the worker ended"
    return 500, "Internal Server Error"


def told(error: BaseException) -> str:
    """The error for the log: the app's traceback where there is one."""
    return getattr(error, "remote_traceback", "") or str(error)


def log_request(number: int, method: str, target: bytes, what: str) -> None:
    """One record at level ERROR of the logger "subpool.error"."""
    log.error("request %d, %s %s: %s", number, method, target.decode("latin-1"), what)
