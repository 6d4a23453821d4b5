"""A server's status as metrics for Prometheus, in the exposition format of prometheus_client (the extra `metrics`).

Names follow Prometheus: base units, `_total` for what only grows. Workers come and go, so what they count themselves is
not among the counters; the labels `pool` (its number, `subpool_pool_info` has its app) and `worker` are few and stay.
So does `process`, the place of a server process among several: a sum would fall when one of them dies, which no counter
may do but to begin anew.
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

STATES: Final = ("starting", "ready", "stalled", "stopping")
COUNTERS: Final = {
    "refused": "Requests refused because too many waited",
    "abandoned": "Workers that would not end, and were given up",
    "taken_back": "Requests moved away from a worker that had not begun them",
    "worker_restarts": "Workers started again because one had ended by itself",
    "worker_recycles": "Workers replaced by order, or because their time had come",
}
SERVICES: Final = {
    "function_calls": ("calls", "Calls of functions of the host"),
    "function_failures": ("failed", "Calls of functions of the host that failed"),
    "messages": ("published", "Messages published to topics"),
    "messages_dropped": ("dropped", "Messages that a slow worker did not get"),
}
_FIELDS: Final = {"worker_restarts": "restarts", "worker_recycles": "recycled"}


Each = list[tuple[list[str], dict[str, Any]]]  # labels of a process, and its status
Pools = list[tuple[list[str], dict[str, Any]]]  # labels of a pool, and what its process says of it


class ServerCollector(Collector):
    """Makes the metrics of `status`, which is what `Operations.status_of_each` gives."""

    status: dict[str, Any]

    def collect(self) -> Iterator[Metric]:
        status = self.status
        yield InfoMetricFamily("subpool", "The server", {"version": __version__})
        yield GaugeMetricFamily("subpool_ready", "1 while it takes requests, else 0", float(not unready(status)))
        names = ["process"] if "each" in status else []
        each: Each = [([str(place)], one) for place, one in status["each"].items()] if names else [([], status)]
        connections = GaugeMetricFamily("subpool_connections", "Connections that are open", labels=names)
        requests = CounterMetricFamily("subpool_requests", "Requests since the start", labels=names)
        for labels, one in each:
            connections.add_metric(labels, one["connections"])
            requests.add_metric(labels, one["requests"])
        yield from (connections, requests)
        pools = [
            ([*labels, str(number)], pool) for labels, one in each for number, pool in enumerate(one["pools"], 1)
        ]
        yield from _of_pools([*names, "pool"], pools)
        yield from _of_workers([*names, "pool"], pools)
        yield from _of_services(names, [(labels, one["services"]) for labels, one in each if one.get("services")])


def _of_services(names: list[str], each: Each) -> Iterator[Metric]:
    """Functions and topics of the host, where an app uses them."""
    if not each:
        return
    subscribers = GaugeMetricFamily("subpool_subscribers", "Subscribers of topics", labels=names)
    restarts = CounterMetricFamily(
        "subpool_helper_restarts", "Ends of the helper process that were made good", labels=names
    )
    for labels, services in each:
        subscribers.add_metric(labels, services["subscribers"])
        restarts.add_metric(labels, services["helper"]["restarts"] if services["helper"] else 0)
    yield from (subscribers, restarts)
    for name, (field, text) in SERVICES.items():
        counter = CounterMetricFamily(f"subpool_{name}", text, labels=names)
        for labels, services in each:
            counter.add_metric(labels, services[field])
        yield counter


def _of_pools(names: list[str], pools: Pools) -> Iterator[Metric]:
    info = InfoMetricFamily("subpool_pool", "The pools: first app, kind of workers", None, names)
    pending = GaugeMetricFamily("subpool_pending", "Requests that wait for a worker", labels=names)
    running = GaugeMetricFamily("subpool_in_flight", "Requests that are with workers", labels=names)
    workers = GaugeMetricFamily("subpool_workers", "Workers by their state", labels=[*names, "state"])
    for labels, pool in pools:
        info.add_metric(labels, {"app": pool["app"] or "", "isolation": pool["isolation"]})
        pending.add_metric(labels, pool["pending"])
        running.add_metric(labels, sum(worker["in_flight"] for worker in pool["workers"]))
        states = Counter(worker["state"] for worker in pool["workers"])
        for state in dict.fromkeys([*STATES, *states]):
            workers.add_metric([*labels, state], states[state])
    yield from (info, pending, running, workers)
    for name, text in COUNTERS.items():
        counter = CounterMetricFamily(f"subpool_{name}", text, labels=names)
        for labels, pool in pools:
            counter.add_metric(labels, pool.get(_FIELDS.get(name, name), 0))
        yield counter


def _of_workers(names: list[str], pools: Pools) -> Iterator[Metric]:
    """Of two that have one place, the one that goes and the one that comes, the newer is shown once it has answered."""
    latency = GaugeMetricFamily(
        "subpool_latency_seconds",
        "From a request's acceptance to its answer, over the last 1024 of each worker",
        labels=[*names, "worker", "quantile"],
    )
    memory = GaugeMetricFamily(
        "subpool_worker_resident_bytes", "Memory of workers that are processes", labels=[*names, "worker"]
    )
    for labels, pool in pools:
        shown: dict[tuple[str, str], tuple[int, dict[str, Any]]] = {}
        for worker in pool["workers"]:
            for field in ("p50", "rss"):
                place = (str(worker["id"]), field)
                if worker[field] is not None and worker["generation"] > shown.get(place, (0, {}))[0]:
                    shown[place] = worker["generation"], worker
        for (name, field), (_, worker) in shown.items():
            if field == "rss":
                memory.add_metric([*labels, name], worker["rss"])
                continue
            for quantile, key in (("0.5", "p50"), ("0.9", "p90"), ("0.99", "p99")):
                latency.add_metric([*labels, name, quantile], worker[key])
    yield latency
    yield memory


class ProcessesCollector(Collector):
    """Makes the `process_` metrics of the server's processes: their places by pid; this one alone, without a label."""

    def __init__(self) -> None:
        self.places: dict[int, str] = {}
        self._own = ProcessCollector(registry=None)

    def collect(self) -> Iterator[Metric]:
        if not self.places:
            yield from self._own.collect()
            return
        found: dict[str, Metric] = {}
        for pid, place in self.places.items():
            for family in ProcessCollector(pid=lambda pid=pid: pid, registry=None).collect():  # type: ignore[misc]  # a default is no surprise
                total = found.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    total.add_sample(sample.name, {**sample.labels, "process": place}, sample.value)
        yield from found.values()


def unready(status: dict[str, Any]) -> str:
    """Why a server with this status takes no requests, or not with all of its processes; "" if it does."""
    if status["state"] == "degraded":
        return ", ".join(f"process {one['process']} is {one['state']}" for one in status["processes"])
    if status["state"] != "ready":
        return str(status["state"])
    for place, one in status.get("each", {"": status}).items():
        for number, pool in enumerate(one["pools"], 1):
            if not any(worker["state"] == "ready" for worker in pool["workers"]):
                return f"no worker of pool {number} is ready" + (f" in process {place}" if place else "")
    return ""


class Exposition:
    """Called with a header Accept and a status: its metrics and those of its processes, and their content type."""

    def __init__(self) -> None:
        self._collector = ServerCollector()
        self._processes = ProcessesCollector()
        self._registry = CollectorRegistry()
        self._registry.register(self._collector)
        self._registry.register(self._processes)

    def __call__(self, accept: str, status: dict[str, Any]) -> tuple[bytes, str]:
        encode, kind = choose_encoder(accept)
        self._collector.status = status
        self._processes.places = {one["pid"]: str(place) for place, one in status.get("each", {}).items()}
        return encode(self._registry), kind
