"""An ML app in the shape of the guides that `subpool.compat` is for: Flask, and a model that the host has."""

from __future__ import annotations

from typing import Any

from flask import Flask, jsonify, request

from subpool.compat import cache_stats, cached_inference, call

app = Flask(__name__)


@app.route("/search")
def search() -> Any:
    found = cached_inference(call, "model.search", request.args["text"], cache_prefix="search", ttl=300)
    return jsonify([{"title": title, "likeness": likeness} for title, likeness in found])


@app.route("/model")
def about() -> Any:
    return jsonify(call("model.about"))


@app.route("/cache")
def cache() -> Any:
    return jsonify(cache_stats())


application = app
