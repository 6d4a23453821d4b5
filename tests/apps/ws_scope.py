"""A WebSocket app that shows its scope, as JSON."""

import json


async def app(scope, receive, send):
    assert scope["type"] == "websocket"
    await receive()
    await send({"type": "websocket.accept", "subprotocol": (scope["subprotocols"] or [None])[0]})
    shown = {name: scope[name] for name in ("path", "root_path", "client", "scheme")}
    shown["query_string"] = scope["query_string"].decode()
    shown["headers"] = [[name.decode(), value.decode()] for name, value in scope["headers"]]
    await send({"type": "websocket.send", "text": json.dumps(shown)})
    await receive()
