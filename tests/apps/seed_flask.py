"""A Flask app in the shape of the guides that `subpool.compat` is for: only the import is another."""

from __future__ import annotations

from typing import Any

from flask import Flask, jsonify, request

from subpool.compat import state_get, state_get_multi, state_incr, state_set

app = Flask(__name__)


@app.route("/")
def index() -> str:
    views = state_incr("page_views")
    return f"Page views: {views}"


@app.route("/api/data")
def get_data() -> Any:
    cached = state_get("api_cache")
    if cached is None:
        cached = expensive_computation()
        state_set("api_cache", cached, ttl=request.args.get("ttl", 300.0, type=float))
    return jsonify(cached)


@app.route("/api/stats")
def stats() -> Any:
    return jsonify(state_get_multi(["page_views", "computed", "nobody_set_this"]))


def expensive_computation() -> dict[str, Any]:
    return {"number": state_incr("computed"), "squares": [number * number for number in range(10)]}


application = app
