"""A chat in the shape of the guides that `subpool.compat` is for: rooms over WebSocket, each of them a topic."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from subpool import pubsub
from subpool.compat import state_decr, state_get_multi, state_incr


async def chat(websocket: WebSocket) -> None:
    """What one says in a room all in the room hear, with the number that it has there."""
    room = websocket.path_params["room"]
    worker = websocket.scope["extensions"]["subpool"]["worker"]
    async with pubsub.subscribe(f"chat:{room}") as messages:
        await websocket.accept()
        present = state_incr(f"present:{room}")
        await websocket.send_json({"worker": worker, "present": present})
        listening = asyncio.create_task(listen(websocket, messages))
        try:
            while True:
                said = await websocket.receive_json()
                await pubsub.apublish(f"chat:{room}", {"number": state_incr(f"messages:{room}"), **said})
        except WebSocketDisconnect:
            pass
        finally:
            listening.cancel()
            state_decr(f"present:{room}")


async def listen(websocket: WebSocket, messages: pubsub.Subscription) -> None:
    async for message in messages:
        await websocket.send_json({**message, "lost": messages.lost})


async def say(request: Request) -> JSONResponse:
    """Over plain HTTP: how many members of the room this process has."""
    room, text = request.path_params["room"], request.query_params["text"]
    return JSONResponse(await pubsub.apublish(f"chat:{room}", {"user": "http", "text": text}))


async def room(request: Request) -> JSONResponse:
    name = request.path_params["room"]
    return JSONResponse(state_get_multi([f"present:{name}", f"messages:{name}"]))


async def views(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(state_incr("views")))


app: Any = Starlette(
    routes=[
        WebSocketRoute("/chat/{room}", chat),
        Route("/say/{room}", say),
        Route("/room/{room}", room),
        Route("/", views),
    ]
)
