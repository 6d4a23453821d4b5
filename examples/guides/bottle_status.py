"""A Bottle app: text, JSON, a path parameter and an error page of its own.

subpool serve bottle_status:app --pythonpath examples/guides
curl http://127.0.0.1:8000/json
"""

from __future__ import annotations

import sys

from bottle import Bottle, HTTPError, abort, response

app = Bottle()

ROOMS = {"kitchen": 21.5, "cellar": 12.0}


@app.get("/")
def index() -> str:
    """Text: Bottle takes a str for HTML, so the type is set."""
    response.content_type = "text/plain; charset=utf-8"
    return "Hello from Bottle!\n"


@app.get("/json")
def status() -> dict[str, object]:
    """A dict becomes JSON."""
    return {"status": "ok", "python": ".".join(map(str, sys.version_info[:2]))}


@app.get("/rooms/<name:re:[a-z]+>")
def room(name: str) -> dict[str, object]:
    """A part of the path."""
    if name not in ROOMS:
        abort(404, f"there is no {name}")
    return {"room": name, "celsius": ROOMS[name]}


@app.error(404)
def not_found(error: HTTPError) -> str:
    """What a 404 looks like."""
    response.content_type = "text/plain; charset=utf-8"
    return f"404: {error.body}\n"
