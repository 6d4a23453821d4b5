"""A chat whose rooms span all workers: what one says in a room, all in the room hear, whichever worker has them.

subpool serve ws_rooms:app --pythonpath examples/guides --workers 2

Then, in two terminals: `python -m websockets ws://127.0.0.1:8000/lobby`. With `--bus redis://127.0.0.1` the rooms span
machines too. It runs under subpool alone: ASGI itself has no way from one worker to another.
"""

from __future__ import annotations

import asyncio
from typing import Any

from subpool import pubsub


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Each path is a room."""
    if scope["type"] == "websocket":
        await member(scope, receive, send)
    elif scope["type"] == "http":
        text = b"Talk to this over WebSocket; the path is the room.\n"
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": text})
    else:
        raise RuntimeError("this app has no lifespan")


async def member(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """One member of a room, from coming to going."""
    room = f"room:{scope['path']}"
    worker = scope["extensions"]["subpool"]["worker"]
    await receive()
    async with pubsub.subscribe(room) as messages:
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": f"you are in {scope['path']}, with worker {worker}"})
        listening = asyncio.create_task(listen(messages, send))
        try:
            while (event := await receive())["type"] == "websocket.receive":
                await pubsub.apublish(room, event.get("text") or "(bytes)")
        finally:
            listening.cancel()


async def listen(messages: pubsub.Subscription, send: Any) -> None:
    """Pass on what is said. Who is too slow is told what he missed."""
    told = 0
    async for text in messages:
        if messages.lost > told:
            await send({"type": "websocket.send", "text": f"({messages.lost - told} messages missed)"})
            told = messages.lost
        await send({"type": "websocket.send", "text": text})
