"""What a call ends with: answers checked where they are not ours, errors as frames."""

from __future__ import annotations

import asyncio
from typing import Any

from ..channels import frames as f
from ..channels.exchange import AppProtocolError, check_headers, check_status
from ..channels.frames import Frame
from ..errors import AppError, RunnerError, SubpoolError, to_wire
from .importer import as_app_error
from .interrupt import Interrupted


def error_frame(call: int, error: BaseException) -> Frame:
    """The ERROR frame for what a call ended with."""
    failure: SubpoolError
    if isinstance(error, AppProtocolError):
        failure = AppError("AppProtocolError", str(error), "")
    elif isinstance(error, asyncio.CancelledError):
        failure = AppError("CancelledError", "the request was cancelled", "")
    elif isinstance(error, Interrupted):
        failure = AppError("Interrupted", "the request was interrupted", "")
    else:
        failure = as_app_error(error)
    return (f.ERROR, call, to_wire(failure))


def asgi_answer(status: str, headers: list[tuple[str, str]]) -> tuple[int, list[tuple[bytes, bytes]]]:
    """Status and headers of a WSGI answer in the types of ASGI."""
    return int(status[:3]), [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]


def checked_asgi(runner: str, answer: Any) -> tuple[int, Any, bytes]:
    """What a custom runner answered. `RunnerError` names it if that is no ASGI answer."""
    try:
        status, headers, body = answer
        return check_status(status), check_headers(headers)[0], _body(body)
    except (TypeError, ValueError, AppProtocolError) as error:
        raise _wrong(runner, answer, error) from None


def checked_wsgi(runner: str, answer: Any) -> tuple[str, Any, bytes]:
    """The same for WSGI: the status as in "200 OK", headers of str."""
    try:
        status, headers, body = answer
        pairs = [(name, value) for name, value in headers]
        if type(status) is not str or not all(type(n) is str and type(v) is str for n, v in pairs):
            raise TypeError("status, header names and values are str")
        return status, pairs, _body(body)
    except (TypeError, ValueError) as error:
        raise _wrong(runner, answer, error) from None


def _body(body: Any) -> bytes:
    if not isinstance(body, (bytes, bytearray, memoryview)):
        raise TypeError(f"the body is {type(body).__name__}, not bytes")
    return bytes(body)


def _wrong(runner: str, answer: Any, error: Exception) -> RunnerError:
    return RunnerError(f"runner {runner!r} answered {answer!r:.120}, which is no (status, headers, body): {error}")
