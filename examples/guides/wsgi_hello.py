"""The smallest WSGI app: it says which path was asked for.

subpool serve wsgi_hello:application --pythonpath examples/guides
curl http://127.0.0.1:8000/some/where
"""

from __future__ import annotations

from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIEnvironment


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """The application (PEP 3333). PATH_INFO holds the path's bytes, read as latin-1."""
    path = environ["PATH_INFO"].encode("latin-1").decode("utf-8", "replace")
    body = f"You asked for {path}\n".encode()
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))])
    return [body]
