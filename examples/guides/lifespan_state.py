"""The lifespan protocol by hand: a model is loaded at the start of each worker, and every request finds it.

MODEL names a JSON file of words and their weights. If it cannot be read the app says so, and does not start.

subpool serve lifespan_state:app --pythonpath examples/guides --lifespan on
curl 'http://127.0.0.1:8000/?text=good+news'
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

WORDS = {"good": 1, "bad": -1}


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """The application."""
    if scope["type"] == "lifespan":
        await lifespan(scope, receive, send)
    elif scope["type"] == "http":
        text = parse_qs(scope["query_string"].decode()).get("text", [""])[-1]
        model = scope["state"]["model"]
        body = json.dumps({"text": text, "mood": sum(model.get(word, 0) for word in text.split())})
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body.encode()})
    else:
        raise NotImplementedError(scope["type"])


async def lifespan(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Start-up and shutdown (ASGI Lifespan 2.0). What is put into the state comes with each request's scope."""
    await receive()  # lifespan.startup
    try:
        scope["state"]["model"] = load()
    except (OSError, ValueError) as error:
        await send({"type": "lifespan.startup.failed", "message": f"no model: {error}"})
        return
    print("model loaded")
    await send({"type": "lifespan.startup.complete"})
    await receive()  # lifespan.shutdown
    print("model released")
    await send({"type": "lifespan.shutdown.complete"})


def load() -> dict[str, float]:
    """The words and their weights."""
    path = os.environ.get("MODEL")
    if path is None:
        return dict(WORDS)
    return {str(word): float(weight) for word, weight in json.loads(Path(path).read_text()).items()}
