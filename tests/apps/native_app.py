"""An app whose chain of imports ends at an extension module that refuses sub-interpreters."""

import native_layer


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        raise RuntimeError("no lifespan")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": native_layer.VERSION.encode()})
