"""A server's status as metrics for Prometheus, in the exposition format of prometheus_client (the extra `metrics`).

Names follow Prometheus: base units, `_total` for what only grows. Workers come and go, so what they count themselves is
not among the counters; the labels `pool` (its number, `subpool_pool_info` has its app) and `worker` are few and stay.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from .. import __version__

STATES: Final = ("starting", "ready", "stalled", "resetting", "stopping")
COUNTERS: Final = {
    "refused": "Requests refused because too many waited",
    "abandoned": "Workers that would not end, and were given up",
    "taken_back": "Requests moved away from a worker that had not begun them",
    "worker_restarts": "Workers started again because one had ended by itself",
    "worker_recycles": "Workers replaced by order, or because their time had come",
}
_FIELDS: Final = {"worker_restarts": "restarts", "worker_recycles": "recycled"}


class ServerCollector(Collector):
    """Makes the metrics of `status`, which is what `Server.status` gives."""

    status: dict[str, Any]

    def collect(self) -> Iterator[Metric]:
        status = self.status
        yield InfoMetricFamily("subpool", "The server", {"version": __version__})
        yield GaugeMetricFamily("subpool_ready", "1 while it takes requests, else 0", float(not unready(status)))
        yield GaugeMetricFamily("subpool_connections", "Connections that are open", status["connections"])
        yield CounterMetricFamily("subpool_requests", "Requests since the start", status["requests"])
        pools = [(str(number), pool) for number, pool in enumerate(status["pools"], 1)]
        yield from _of_pools(pools)
        yield from _of_workers(pools)


def _of_pools(pools: list[tuple[str, dict[str, Any]]]) -> Iterator[Metric]:
    info = InfoMetricFamily("subpool_pool", "The pools: first app, kind of workers", None, ["pool"])
    pending = GaugeMetricFamily("subpool_pending", "Requests that wait for a worker", labels=["pool"])
    running = GaugeMetricFamily("subpool_in_flight", "Requests that are with workers", labels=["pool"])
    workers = GaugeMetricFamily("subpool_workers", "Workers by their state", labels=["pool", "state"])
    for number, pool in pools:
        info.add_metric([number], {"app": pool["app"] or "", "isolation": pool["isolation"]})
        pending.add_metric([number], pool["pending"])
        running.add_metric([number], sum(worker["in_flight"] for worker in pool["workers"]))
        states = Counter(worker["state"] for worker in pool["workers"])
        for state in dict.fromkeys([*STATES, *states]):
            workers.add_metric([number, state], states[state])
    yield from (info, pending, running, workers)
    for name, text in COUNTERS.items():
        counter = CounterMetricFamily(f"subpool_{name}", text, labels=["pool"])
        for number, pool in pools:
            counter.add_metric([number], pool.get(_FIELDS.get(name, name), 0))
        yield counter


def _of_workers(pools: list[tuple[str, dict[str, Any]]]) -> Iterator[Metric]:
    """Of two that have one place, the one that goes and the one that comes, the newer is shown once it has answered."""
    latency = GaugeMetricFamily(
        "subpool_latency_seconds",
        "From a request's acceptance to its answer, over the last 1024 of each worker",
        labels=["pool", "worker", "quantile"],
    )
    memory = GaugeMetricFamily(
        "subpool_worker_resident_bytes", "Memory of workers that are processes", labels=["pool", "worker"]
    )
    for number, pool in pools:
        shown: dict[tuple[str, str], tuple[int, dict[str, Any]]] = {}
        for worker in pool["workers"]:
            for field in ("p50", "rss"):
                place = (str(worker["id"]), field)
                if worker[field] is not None and worker["generation"] > shown.get(place, (0, {}))[0]:
                    shown[place] = worker["generation"], worker
        for (name, field), (_, worker) in shown.items():
            if field == "rss":
                memory.add_metric([number, name], worker["rss"])
                continue
            for quantile, key in (("0.5", "p50"), ("0.9", "p90"), ("0.99", "p99")):
                latency.add_metric([number, name, quantile], worker[key])
    yield latency
    yield memory


def unready(status: dict[str, Any]) -> str:
    """Why a server with this status takes no requests; "" if it does."""
    if status["state"] != "ready":
        return str(status["state"])
    for number, pool in enumerate(status["pools"], 1):
        if not any(worker["state"] == "ready" for worker in pool["workers"]):
            return f"no worker of pool {number} is ready"
    return ""


class Exposition:
    """Called with a header Accept and a status: its metrics and those of this process, and their content type."""

    def __init__(self) -> None:
        self._collector = ServerCollector()
        self._registry = CollectorRegistry()
        self._registry.register(self._collector)
        ProcessCollector(registry=self._registry)

    def __call__(self, accept: str, status: dict[str, Any]) -> tuple[bytes, str]:
        encode, kind = choose_encoder(accept)
        self._collector.status = status
        return encode(self._registry), kind
