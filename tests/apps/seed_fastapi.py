"""A FastAPI app in the shape of the guides that `subpool.compat` is for: only the import is another."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, HTTPException

from subpool.compat import cache_stats, cached_inference, state_get, state_incr, state_set

ml_model: Any = None


class Model:
    """What the guides load from a file. It counts what it is asked, in the state of all workers."""

    def __init__(self) -> None:
        state_incr("models")

    def predict(self, text: str) -> dict[str, int]:
        state_incr("predictions")
        return {"letters": len(text), "words": len(text.split())}


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    global ml_model
    ml_model = Model()
    yield
    ml_model = None


app = FastAPI(lifespan=lifespan)


@app.get("/")
async def root() -> dict[str, int]:
    views = state_incr("api_views")
    return {"views": views}


@app.get("/items/{item_id}")
async def get_item(item_id: int) -> Any:
    cached = state_get(f"item:{item_id}")
    if cached is None:
        raise HTTPException(404)
    return cached


@app.post("/items/")
async def create_item(item: dict[str, Any]) -> dict[str, Any]:
    item_id = state_incr("item_id_seq")
    item["id"] = item_id
    state_set(f"item:{item_id}", item)
    return item


@app.get("/predict")
async def predict(text: str) -> dict[str, Any]:
    return {"result": cached_inference(ml_model.predict, text, cache_prefix="mood"), "pid": os.getpid()}


@app.get("/stats")
async def stats() -> dict[str, Any]:
    counts = {name: state_get(name) for name in ("models", "predictions")}
    return {**counts, **cache_stats()}
