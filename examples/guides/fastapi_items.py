"""A FastAPI app: checked paths and bodies, errors, and a model that is loaded once a worker at its start.

Its extension module (pydantic-core) refuses sub-interpreters: processes, or threads on a free-threaded Python.

subpool serve fastapi_items:app --pythonpath examples/guides --isolation process
curl http://127.0.0.1:8000/items/1
curl 'http://127.0.0.1:8000/predict?text=what+a+good+day'
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import FastAPI, HTTPException, Query, Request
from pydantic import BaseModel, Field

CATALOGUE = {1: ("tea", 3.0), 2: ("coffee", 4.5)}


class Model:
    """Stands for something large which takes its time to load."""

    def __init__(self) -> None:
        self.words = {"good": 1, "great": 2, "bad": -1, "awful": -2}

    def predict(self, text: str) -> int:
        return sum(self.words.get(word, 0) for word in text.lower().split())


class Order(BaseModel):
    """What a customer wants."""

    item: int
    count: int = Field(1, ge=1, le=100)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, object]]:
    """Runs in each worker: what is before `yield` before its first request, what is behind after its last."""
    print("model loaded")
    yield {"model": Model()}
    print("model released")


app = FastAPI(title="Items", lifespan=lifespan)


@app.get("/")
async def root() -> dict[str, object]:
    """What there is."""
    return {"items": [name for name, _ in CATALOGUE.values()]}


@app.get("/items/{item_id}")
async def item(item_id: int) -> dict[str, object]:
    """One item; a path that is no number is 422, an unknown one 404."""
    if item_id not in CATALOGUE:
        raise HTTPException(404, f"no item {item_id}")
    name, price = CATALOGUE[item_id]
    return {"id": item_id, "name": name, "price": price}


@app.post("/orders", status_code=201)
async def order(order: Order) -> dict[str, object]:
    """A body that pydantic has checked."""
    if order.item not in CATALOGUE:
        raise HTTPException(404, f"no item {order.item}")
    name, price = CATALOGUE[order.item]
    return {"name": name, "count": order.count, "total": price * order.count}


@app.get("/predict")
async def predict(request: Request, text: Annotated[str, Query(max_length=1000)]) -> dict[str, object]:
    """Asks the model, which lifespan has put into the state."""
    return {"text": text, "mood": request.state.model.predict(text)}
