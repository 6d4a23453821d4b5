"""An ASGI app that turns what goes wrong into answers: the client's mistakes to 400, its own to 500.

subpool serve asgi_errors:app --pythonpath examples/guides
curl 'http://127.0.0.1:8000/divide?a=7&b=2'
curl -i 'http://127.0.0.1:8000/divide?a=7&b=zero'
curl -i http://127.0.0.1:8000/bug
curl -i http://127.0.0.1:8000/late
"""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import parse_qsl

log = logging.getLogger("asgi_errors")


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """The application: the work is in `handle`."""
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    started = False

    async def watched(message: dict[str, Any]) -> None:
        nonlocal started
        started = True
        await send(message)

    try:
        await handle(scope, watched)
    except Exception as error:
        if started:  # too late for another answer: the server cuts the connection
            raise
        if isinstance(error, (ValueError, ZeroDivisionError)):
            await respond(send, 400, str(error))
        elif isinstance(error, LookupError):
            await respond(send, 404, f"no such thing: {error}")
        else:
            log.exception("%s %s failed", scope["method"], scope["path"])  # for us; the client is not told
            await respond(send, 500, "something broke here")


async def handle(scope: dict[str, Any], send: Any) -> None:
    """One request; what is wrong is raised."""
    path, given = scope["path"], dict(parse_qsl(scope["query_string"].decode()))
    if path == "/divide":
        if missing := {"a", "b"} - given.keys():
            raise ValueError(f"please give {' and '.join(sorted(missing))}")
        await respond(send, 200, str(float(given["a"]) / float(given["b"])))
    elif path == "/bug":
        raise TypeError("a bug in the app")
    elif path == "/late":
        await respond(send, 200, "the first half", more=True)
        raise TypeError("a bug in the middle")
    else:
        raise LookupError(path)


async def respond(send: Any, status: int, text: str, more: bool = False) -> None:
    """A response, or the beginning of one."""
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": f"{text}\n".encode(), "more_body": more})
