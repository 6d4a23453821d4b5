"""An ordinary Bottle app: JSON, an upload, a template, a streamed answer, an error.

It knows nothing of subpool.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from bottle import Bottle, abort, request, response, template

app = Bottle()

PAGE = "<ul>\n% for item in items:\n<li>{{item}}</li>\n% end\n</ul>\n"


@app.get("/json/<name>")
def greet(name: str) -> dict[str, object]:
    """A JSON answer from the path and the query string."""
    return {"hello": name, "times": int(request.query.get("times", 1))}


@app.post("/upload")
def upload() -> dict[str, object]:
    """A file of a multipart form."""
    part = request.files.get("file")
    with request.body, part.file as file:  # Bottle keeps large ones in temporary files, and does not close them
        data = file.read()
    response.status = 201
    return {"name": part.filename, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


@app.get("/page")
def page() -> str:
    """A template."""
    return str(template(PAGE, items=["one", "<two>"]))


@app.get("/stream")
def stream() -> Iterator[str]:
    """An answer made while it is sent."""
    response.content_type = "text/plain"
    for number in range(5):
        yield f"line {number}\n"


@app.get("/missing")
def missing() -> None:
    """An HTTP error."""
    abort(404, "no such thing")


@app.get("/error")
def error() -> None:
    """A bug: Bottle answers 500 and writes the traceback to wsgi.errors."""
    raise LookupError("a bug in the app")
