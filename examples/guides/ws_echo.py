"""A WebSocket that says everything back, text as text and bytes as bytes; "bye" ends it.

subpool serve ws_echo:app --pythonpath examples/guides
python -m websockets ws://127.0.0.1:8000/
"""

from __future__ import annotations

from typing import Any


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """The application. A path other than "/" is refused before the WebSocket is open, which is a 403."""
    if scope["type"] != "websocket":
        raise NotImplementedError(scope["type"])
    await receive()  # websocket.connect
    if scope["path"] != "/":
        await send({"type": "websocket.close"})
        return
    chosen = "echo" if "echo" in scope["subprotocols"] else None
    await send({"type": "websocket.accept", "subprotocol": chosen})
    while (message := await receive())["type"] == "websocket.receive":
        text, data = message.get("text"), message.get("bytes")
        if text == "bye":
            await send({"type": "websocket.close", "code": 1000, "reason": "bye"})
            return
        answer = {"bytes": data} if text is None else {"text": text}
        await send({"type": "websocket.send", **answer})
