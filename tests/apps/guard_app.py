"""An app that ends its process, for tests of the guard; and one that tells which process it is in."""

from __future__ import annotations

import os
import time


async def app(scope, receive, send):
    path = scope["path"]
    if path == "/abort":
        os.abort()
    if path == "/freeze":
        time.sleep(float(scope["query_string"]))  # noqa: ASYNC251  that is what it is for
    body = f"{os.getpid()} {os.getppid()}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
