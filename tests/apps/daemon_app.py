"""An app that starts a daemon thread at import, as logging's QueueListener does."""

import threading

import gates  # noqa: F401

STOP = threading.Event()
threading.Thread(target=STOP.wait, args=(60,), daemon=True, name="at-import").start()


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        raise RuntimeError("no lifespan")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"daemon"})
