"""The demo's WSGI app: no framework, four paths. Each answer names the worker that gave it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Any


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Answer /json, /upload, /stream and /error; 404 for the rest (PEP 3333)."""
    worker = environ["subpool.worker"]
    headers = [("Content-Type", "application/json"), ("X-Worker", str(worker))]

    def answer(status: str, value: object) -> list[bytes]:
        start_response(status, headers)
        return [json.dumps(value).encode()]

    match environ["PATH_INFO"]:
        case "/json":
            numbers = json.loads(environ["wsgi.input"].read())["numbers"]
            return answer("200 OK", {"sum": sum(numbers)})
        case "/upload":
            body = environ["wsgi.input"].read()
            return answer("201 Created", {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()})
        case "/stream":
            start_response("200 OK", headers[1:])
            return parts()
        case "/error":
            raise ValueError(f"this handler always fails (worker {worker})")
        case path:
            return answer("404 Not Found", {"no such path": path})


def parts() -> Iterator[bytes]:
    """An answer in parts: each is made when the one before has been sent."""
    yield b"one "
    yield b"two "
    yield b"three"
