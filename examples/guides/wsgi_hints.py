"""Early hints (RFC 8297) from a WSGI app: the browser fetches style and script while the page is being made.

`wsgi.early_hints` is an extension; servers that lack it do not have the key.

subpool serve wsgi_hints:application --pythonpath examples/guides
curl -i http://127.0.0.1:8000/
"""

from __future__ import annotations

from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIEnvironment

PAGE = b"""<!doctype html>
<title>Early hints</title>
<link rel="stylesheet" href="/style.css">
<script src="/script.js" defer></script>
<p>This page told of its parts before it was there.</p>
"""
ASSETS = {
    "/style.css": ("text/css", b"p { color: teal; font: 1.5rem sans-serif; }\n"),
    "/script.js": ("text/javascript", b"document.querySelector('p').append(' And the script is here.');\n"),
}
LINKS = [("Link", "</style.css>; rel=preload; as=style"), ("Link", "</script.js>; rel=preload; as=script")]


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """The page at "/", and its two parts."""
    path = environ["PATH_INFO"]
    if path in ASSETS:
        kind, body = ASSETS[path]
        start_response("200 OK", [("Content-Type", kind)])
        return [body]
    if path != "/":
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return [b"not here\n"]
    if early_hints := environ.get("wsgi.early_hints"):
        early_hints(LINKS)
    # Here a real app would ask its database.
    start_response("200 OK", [("Content-Type", "text/html; charset=utf-8"), *LINKS])
    return [PAGE]
