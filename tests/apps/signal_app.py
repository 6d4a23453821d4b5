"""An app that sets a signal handler at import, which only a main interpreter's main thread may do."""

import signal

signal.signal(signal.SIGUSR1, signal.SIG_IGN)


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        raise RuntimeError("no lifespan")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"signal"})
