"""Shows what a WSGI server tells an app: every key of the environ, with its value, and the headers apart.

subpool serve wsgi_environ:application --pythonpath examples/guides
curl -H 'X-Colour: blue' 'http://127.0.0.1:8000/a%20path?with=a&query=string'
"""

from __future__ import annotations

from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIEnvironment

GROUPS = ("request", "headers", "wsgi", "other")


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """The application: one line a key, in groups."""
    lines = []
    for name in GROUPS:
        lines.append(f"[{name}]")
        lines += [f"{key} = {environ[key]!r}" for key in sorted(environ) if group(key) == name]
        lines.append("")
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
    return ["\n".join(lines).encode("utf-8", "backslashreplace")]


def group(key: str) -> str:
    """Where a key belongs: PEP 3333 has CGI variables, HTTP headers, and names with a dot."""
    if key.startswith("HTTP_"):
        return "headers"
    if key.startswith("wsgi."):
        return "wsgi"
    return "request" if "." not in key else "other"
