"""Serves the files of a folder through wsgi.file_wrapper, which lets the server send them its own way.

FILES_ROOT names the folder; without it, it is the one of this file.

subpool serve files:application --pythonpath examples/guides
curl http://127.0.0.1:8000/files.py
"""

from __future__ import annotations

import mimetypes
import os
from collections.abc import Iterable
from email.utils import formatdate
from pathlib import Path
from wsgiref.types import StartResponse, WSGIEnvironment
from wsgiref.util import FileWrapper

ROOT = Path(os.environ.get("FILES_ROOT") or Path(__file__).parent).resolve()


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """The file that the path names."""
    if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
        start_response("405 Method Not Allowed", [("Allow", "GET, HEAD"), ("Content-Type", "text/plain")])
        return [b"GET a file\n"]
    path = find(environ["PATH_INFO"])
    if path is None:
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return [b"no such file\n"]
    file = path.open("rb")
    facts = os.fstat(file.fileno())
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    headers = [
        ("Content-Type", kind),
        ("Content-Length", str(facts.st_size)),
        ("Last-Modified", formatdate(facts.st_mtime, usegmt=True)),
    ]
    start_response("200 OK", headers)
    if environ["REQUEST_METHOD"] == "HEAD":
        file.close()
        return []
    wrapper = environ.get("wsgi.file_wrapper", FileWrapper)  # the server closes the wrapper, and that the file
    return wrapper(file, 65536)  # type: ignore[no-any-return]


def find(path_info: str) -> Path | None:
    """The file under ROOT; None if there is none, or if the path leads out of it ("..", links)."""
    try:
        path = (ROOT / os.fsdecode(path_info.encode("latin-1")).lstrip("/")).resolve()
        return path if path.is_relative_to(ROOT) and path.is_file() else None
    except (OSError, ValueError):  # a name that is too long, or holds a NUL
        return None
