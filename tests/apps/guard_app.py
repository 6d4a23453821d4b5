"""An app that ends its process, for tests of the guard; and one that tells which process it is in."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path


async def app(scope, receive, send):
    path = scope["path"]
    if path == "/abort":
        os.abort()
    if path == "/freeze":
        time.sleep(float(scope["query_string"]))  # noqa: ASYNC251  that is what it is for
    body = f"{os.getpid()} {os.getppid()}".encode()
    if path == "/orphan":  # a process that loses its parent at once, and ends when its standard input does
        script = f"head -c1 <{scope['query_string'].decode()} >/dev/null & echo $!"
        body = subprocess.run(["sh", "-c", script], stdout=subprocess.PIPE, check=True).stdout  # noqa: ASYNC221
    if path == "/process":  # its parent and its state, if there is such a process
        try:
            stat = Path(f"/proc/{scope['query_string'].decode()}/stat").read_text()
            body = " ".join(reversed(stat.rpartition(")")[2].split()[:2])).encode()
        except FileNotFoundError:
            body = b"none"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
