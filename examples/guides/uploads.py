"""Takes files of any size: the body is the file, read piece by piece into a temporary file.

For the multipart forms of browsers a framework is the better tool: see ../flask_app, ../django_app.

subpool serve uploads:application --pythonpath examples/guides
curl -T README.md http://127.0.0.1:8000/README.md
"""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from collections.abc import Iterable, Iterator
from wsgiref.types import StartResponse, WSGIEnvironment

PIECE = 65536  # bytes


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """PUT or POST a file; the answer tells what arrived."""
    if environ["REQUEST_METHOD"] not in ("PUT", "POST"):
        start_response("405 Method Not Allowed", [("Allow", "PUT, POST"), ("Content-Type", "text/plain")])
        return [b"PUT or POST a file\n"]
    with tempfile.TemporaryFile(prefix="upload-") as file:
        digest = hashlib.sha256()
        for piece in pieces(environ):
            file.write(piece)
            digest.update(piece)
        answer = {
            "name": environ["PATH_INFO"].rpartition("/")[2],
            "bytes": file.tell(),
            "sha256": digest.hexdigest(),
            "first line": first_line(file),
        }
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(answer).encode()]


def pieces(environ: WSGIEnvironment) -> Iterator[bytes]:
    """The body as it comes. Never asks for more than there is: on some servers that would wait for ever."""
    left: float = math.inf  # a server that marks the end of the input has chunked bodies too
    if not environ.get("wsgi.input_terminated"):
        left = int(environ.get("CONTENT_LENGTH") or 0)
    while left > 0 and (piece := environ["wsgi.input"].read(int(min(PIECE, left)))):
        left -= len(piece)
        yield piece


def first_line(file: Iterable[bytes]) -> str:
    """What a program that wants the file might do with it."""
    file.seek(0)  # type: ignore[attr-defined]
    return next(iter(file), b"")[:80].decode("utf-8", "replace").rstrip()
