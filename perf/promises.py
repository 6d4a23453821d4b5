"""What was promised, each with where it is measured. The report says of each whether it is met.

A promise is a ratio of costs of two contestants in the same rounds ("at least 4 times as cheap as"), or a bound of one
cost. `peers` are those that the best of is taken from, for the report. What has not been measured says so.
"""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median
from typing import Final, NamedTuple

from perf.results import Case, unit

MS, US = 1e-3, 1e-6


class Promise(NamedTuple):
    """`ours` in `bench/case`, its `metric`. With `against`: that one's cost over ours is at least `bound`; without:
    ours is at most `bound`, in the unit of the metric."""

    text: str
    bench: str
    case: str
    ours: str
    metric: str
    bound: float
    against: str = ""
    peers: tuple[str, ...] = ()


class Claim(NamedTuple):
    """A gain that a guide of erlang_python claims for an optimisation, and the case of `switches` that looks at ours.
    What is saved is set against `whole`, a case of whole requests: a piece may gain much that is little of a
    request."""

    text: str
    gain: str
    case: str
    off: str = "off"
    on: str = "on"
    whole: str = "direct path"


class Verdict(NamedTuple):
    """How a promise stands. `met` None: not measured."""

    promise: Promise
    met: bool | None
    wanted: str
    found: str
    best: str


SERVERS: Final = ("granian", "uvicorn", "hypercorn", "gunicorn")
EXECUTORS: Final = ("InterpreterPoolExecutor", "ProcessPoolExecutor", "anyio.to_interpreter")
IPE, PPE = EXECUTORS[:2]

PROMISES: Final = (
    Promise("hello over ASGI beside granian", "servers", "hello", "subpool", "time", 1.0, "granian", SERVERS),
    Promise("hello over ASGI beside uvicorn", "servers", "hello", "subpool", "time", 1.25, "uvicorn", SERVERS),
    Promise("hello over WSGI beside granian", "servers", "wsgi hello", "subpool", "time", 0.85, "granian", SERVERS),
    Promise("hello over WSGI beside gunicorn gthread", "servers", "wsgi hello", "subpool", "time", 4.0, "gunicorn",
            SERVERS),
    Promise("64 KB answers beside granian", "servers", "64 KB", "subpool", "time", 1.0, "granian", SERVERS),
    Promise("64 KB answers beside uvicorn", "servers", "64 KB", "subpool", "time", 1.0, "uvicorn", SERVERS),
    Promise("memory with 2 workers beside uvicorn's", "starts", "two workers", "subpool", "memory", 1.0, "uvicorn",
            SERVERS),
    Promise("memory of a further worker beside uvicorn's (at most 0.65 of it)", "starts", "further worker", "subpool",
            "memory", 1 / 0.65, "uvicorn", SERVERS),
    Promise("server beside a 20 ms burner: p90", "servers", "beside a 20 ms burner", "subpool", "p90",
            3 * MS, peers=SERVERS),
    Promise("server beside a 20 ms burner: p99", "servers", "beside a 20 ms burner", "subpool", "p99",
            10 * MS, peers=SERVERS),
    Promise("run_asgi beside InterpreterPoolExecutor", "calls", "hello", "run_asgi", "time", 4.0, IPE, EXECUTORS),
    Promise("run_asgi beside ProcessPoolExecutor", "calls", "hello", "run_asgi", "time", 6.0, PPE, EXECUTORS),
    Promise("pool.call beside InterpreterPoolExecutor", "calls", "hello", "pool.call", "time", 3.0, IPE, EXECUTORS),
    Promise("run_asgi beside pool.call of the same app", "calls", "hello", "run_asgi", "time", 1.2, "pool.call"),
    Promise("2 workers beside 1 on CPU", "calls", "cpu", "2 workers", "time", 1.8, "1 worker"),
    Promise("an 8 MiB answer beside the same inside marshal", "calls", "8 MiB", "run_asgi", "time", 4.0,
            "inside marshal"),
    Promise("beside a 20 ms burner in the pool: p90", "fairness", "ASGI", "beside it", "p90", 3 * MS),
    Promise("beside a 20 ms burner in the pool: p99", "fairness", "ASGI", "beside it", "p99", 10 * MS),
    Promise("state get, median", "state", "get", "subpool", "p50", 15 * US),
    Promise("state incr, median", "state", "incr", "subpool", "p50", 40 * US),
    Promise("state incr, p99.9", "state", "incr", "subpool", "p99.9", 5 * MS),
    Promise("state incr, the longest", "state", "incr", "subpool", "longest", 50 * MS),
    Promise("a message from host to worker, median", "services", "publish", "subpool", "p50", 200 * US),
    Promise("a call of a trivial host function, median", "services", "call", "subpool", "p50", 150 * US),
    Promise("hello beside a computing host function: p99 at most doubles", "services",
            "hello beside a computing function", "subpool", "p99", 0.5, "alone"),
    Promise("asyncio.sleep(0.001): its error, after beside before", "sleeps", "asyncio.sleep(0.001)", "after", "error",
            1.0, "before"),
)  # fmt: skip


CLAIMS: Final = (
    Claim("interned keys", "15-20 %", "interned keys"),
    Claim("response pooling", "20-25 %", "response pooling"),
    Claim("direct path", "25-30 %", "direct path", whole=""),
    Claim("direct response extraction", "5-10 %", "direct response extraction"),
    Claim("16 pre-interned headers", "3-5 %", "common header names"),
    Claim("14 cached statuses", "1-2 %", "cached statuses"),
    Claim("zero-copy bodies from 1 KB, at 1 KB", "10-15 %", "lent bodies, 1 KB", "never", "from 1 KB", ""),
    Claim("zero-copy bodies, at 64 KB", "10-15 %", "lent bodies, 64 KB", "never", "from 16 KB", ""),
    Claim("scope templates", "15-20 %", "scope templates"),
    Claim("scope templates, whole calls", "15-20 %", "scope templates, whole calls", whole=""),
    Claim("lazy headers from 4", "5-10 %", "lazy headers"),
    Claim("ours: batching of a calm worker", "", "batching", whole=""),
    Claim("ours: eager tasks", "", "eager tasks", whole=""),
    Claim("ours: request header blocks known by their bytes", "", "header blocks", whole=""),
    Claim("ours: answer header blocks", "", "answer header blocks"),
)


def gains(cases: Iterable[Case]) -> list[tuple[Claim, str, str]]:
    """The claims whose case was run, what one request saves, and how much that is of a whole one."""
    known = {case.name: case for case in cases if case.bench == "switches"}
    found = []
    for claim in CLAIMS:
        case, whole = known.get(claim.case), known.get(claim.whole or claim.case)
        if case is None or whole is None:
            continue
        on, off = (case.values.get((one, "time"), {}) for one in (claim.on, claim.off))
        saved = sorted(off[turn] - on[turn] for turn in on if turn in off)
        total = whole.median("on" if claim.whole else claim.on, "time")
        if saved and total:
            low, middle, high = (part / total * 100 for part in (saved[0], median(saved), saved[-1]))
            found.append((claim, amount(median(saved), "time"), f"{middle:+.0f} % ({low:+.0f} to {high:+.0f})"))
    return found


def verdicts(cases: Iterable[Case]) -> list[Verdict]:
    """How every promise stands."""
    known = {(case.bench, case.name): case for case in cases}
    return [judge(promise, known.get((promise.bench, promise.case))) for promise in PROMISES]


def judge(promise: Promise, case: Case | None) -> Verdict:
    wanted = f"≥ {promise.bound:.3g} ×" if promise.against else f"≤ {amount(promise.bound, promise.metric)}"
    if case is None:
        return Verdict(promise, None, wanted, "not measured", "")
    best = best_peer(promise, case)
    if promise.against:
        each = case.ratios(promise.against, promise.metric, promise.ours)
        if not each:
            who = promise.against if promise.against in case.left else promise.ours
            return Verdict(promise, None, wanted, case.left.get(who, "not measured"), best)
        value = median(each)
        met = value >= promise.bound
        found = f"{value:.2f} × ({each[0]:.2f} to {each[-1]:.2f})"
        return Verdict(promise, met, wanted, found, best)
    cost = case.median(promise.ours, promise.metric)
    if cost is None:
        return Verdict(promise, None, wanted, case.left.get(promise.ours, "not measured"), best)
    return Verdict(promise, cost <= promise.bound, wanted, amount(cost, promise.metric), best)


def best_peer(promise: Promise, case: Case) -> str:
    """The peer that it cost least, and how many times ours that was."""
    found = [
        (median(each), peer) for peer in promise.peers if (each := case.ratios(peer, promise.metric, promise.ours))
    ]
    return f"{min(found)[0]:.2f} × {min(found)[1]}" if found else ""


def amount(value: float, metric: str) -> str:
    """A cost for readers."""
    kind = unit(metric)
    if kind == "integer":
        return f"{value:,.1f}".removesuffix(".0")
    if kind == "byte":
        size = abs(value)
        for scale, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
            if size >= scale:
                return f"{value / scale:,.2f} {name}"
        return f"{value:,.0f} B"
    for scale, name in ((1.0, "s"), (MS, "ms"), (US, "us")):
        if abs(value) >= scale:
            return f"{value / scale:,.3g} {name}" if abs(value) < 1000 * scale else f"{value / scale:,.0f} {name}"
    return f"{value / 1e-9:,.3g} ns"
