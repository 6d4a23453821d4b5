"""WSGI middleware: apps around an app. One prints a line a request, one adds headers to every answer.

subpool serve wsgi_middleware:application --pythonpath examples/guides
curl -i http://127.0.0.1:8000/some/where
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import wsgi_hello


class RequestLog:
    """Prints method, path, status and the milliseconds up to the answer's start."""

    def __init__(self, app: WSGIApplication) -> None:
        self.app = app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        began = time.perf_counter()

        def logged(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
            elapsed = (time.perf_counter() - began) * 1000
            print(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']!r} {status[:3]} {elapsed:.1f} ms")
            return start_response(status, headers, *exc_info)

        return self.app(environ, logged)


class ExtraHeaders:
    """Adds headers which the app did not set itself."""

    def __init__(self, app: WSGIApplication, extra: dict[str, str]) -> None:
        self.app = app
        self.extra = extra

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        def extended(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
            there = {name.lower() for name, _ in headers}
            more = [(name, value) for name, value in self.extra.items() if name.lower() not in there]
            return start_response(status, headers + more, *exc_info)

        return self.app(environ, extended)


application = RequestLog(
    ExtraHeaders(wsgi_hello.application, {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"})
)
