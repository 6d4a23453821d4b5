"""A server's status, the plain data that `Server.status()` gives, as text for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

KINDS: Final = {"subinterpreter": "sub-interpreters", "thread": "threads", "process": "processes"}
_COLUMNS: Final = ("worker", "state", "in flight", "served", "failed", "restarts", "p50", "p90", "p99", "memory")


def table(status: Mapping[str, Any]) -> str:
    """Several lines: the server, then each pool with its workers."""
    lines = [
        f"subpool {status['version']} on Python {status['python']}, pid {status['pid']}{_guard(status)}",
        f"{status['state']}, up {_duration(status['uptime'])}",
        ", ".join(status["addresses"]) or "no address",
        f"{_count(status['connections'], 'connection')}, {_count(status['requests'], 'request')}",
    ]
    several = status.get("processes", ())
    lines += [f"process {one['process']}: pid {one['pid']}, {one['state']}" for one in several]
    columns = (*_COLUMNS, "process") if several else _COLUMNS
    for number, pool in enumerate(status["pools"], 1):
        lines += ["", f"pool {number}: {pool['app']} in {KINDS.get(pool['isolation'], pool['isolation'])}"]
        told = [f"{pool[name]} {name}" for name in ("pending", "refused", "restarts", "recycled", "abandoned")]
        lines += [", ".join(told), "", *aligned(columns, [_row(worker) for worker in pool["workers"]])]
    services = status.get("services")
    if services is not None:
        lines += ["", *_services(services)]
    return "\n".join(lines)


def _services(services: Mapping[str, Any]) -> list[str]:
    """The functions and topics of the host."""
    calls = ", ".join(f"{services[name]} {text}" for name, text in (("calls", "calls"), ("failed", "failed")))
    topics = f"{services['topics']}, {_count(services['subscribers'], 'subscriber')}"
    lines = [
        f"functions: {services['functions']}, {calls}, {services['under_way']} under way",
        f"topics: {topics}, {services['published']} published, {services['dropped']} dropped",
    ]
    helper = services["helper"]
    if helper is not None:
        told = [f"{worker['state']}, {_memory(worker)}" for worker in helper["workers"]] or ["not there"]
        lines.append(f"helper: {told[0]}, {_count(helper['restarts'], 'restart')}")
    if services["bus"] is not None:
        bus = services["bus"]
        lines.append(f"bus: {'up' if bus['up'] else 'down'}, {bus['waiting']} wait, {bus['dropped']} dropped")
    if services["node"] is not None:
        node = services["node"]
        lines.append(f"node: {node['name']}, {'up' if node['up'] else 'down'}, {node['asked']} calls to others,"
                     f" {node['taken']} for others")  # fmt: skip
    return lines


def _guard(status: Mapping[str, Any]) -> str:
    return "" if status.get("guard") in (None, status["pid"]) else f", guarded by {status['guard']}"


def _row(worker: Mapping[str, Any]) -> tuple[str, ...]:
    counts = (str(worker[name]) for name in ("in_flight", "served", "failed", "restarts"))
    times = ("-" if worker[name] is None else f"{worker[name] * 1000:.1f} ms" for name in ("p50", "p90", "p99"))
    process = (str(worker["process"]),) if "process" in worker else ()
    return (str(worker["id"]), worker["state"], *counts, *times, _memory(worker), *process)


def _memory(worker: Mapping[str, Any]) -> str:
    rss = worker["rss"]
    return "-" if rss is None else f"{rss / 1e6:.1f} MB"


def aligned(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows under their heads; the first two columns are text, the others numbers."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    return [
        "  ".join(
            text.ljust(width) if number < 2 else text.rjust(width)
            for number, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (heads, *rows)
    ]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _duration(seconds: float) -> str:
    whole = int(seconds)
    for size, unit, part, small in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // part} {small}"
    return f"{whole} s"
