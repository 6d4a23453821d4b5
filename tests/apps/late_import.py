"""A module that tells through a pipe when it is imported."""

import os

import gates

gates.signal(os.environ.get("LATE_IMPORT_PIPE", ""), b"i")


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        raise RuntimeError("no lifespan")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"late"})
