"""An ordinary Flask app: JSON, an upload, a template, a streamed answer, an error.

It knows nothing of subpool.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from flask import Flask, Response, abort, render_template, request

app = Flask(__name__)


@app.get("/json/<name>")
def greet(name: str) -> dict[str, object]:
    """A JSON answer from the path and the query string."""
    return {"hello": name, "times": request.args.get("times", 1, type=int)}


@app.post("/upload")
def upload() -> tuple[dict[str, object], int]:
    """A file of a multipart form."""
    file = request.files["file"]
    data = file.read()
    return {"name": file.filename, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}, 201


@app.get("/page")
def page() -> str:
    """A template."""
    return render_template("flask_page.html", items=["one", "<two>"])


@app.get("/stream")
def stream() -> Response:
    """An answer made while it is sent."""

    def lines() -> Iterator[str]:
        for number in range(5):
            yield f"line {number}\n"

    return Response(lines(), mimetype="text/plain")


@app.get("/missing")
def missing() -> None:
    """An HTTP error."""
    abort(404, "no such thing")


@app.get("/error")
def error() -> None:
    """A bug: Flask answers 500 and logs it."""
    raise LookupError("a bug in the app")
