"""The pool's options, defined once. A wrong one is an error that names it, before anything is started."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .hooks import Hooks

from .state.key import check_namespace
from .state.options import StateOptions, parse

ISOLATION: Final = ("auto", "subinterpreter", "thread", "process")
INTERFACES: Final = ("auto", "asgi", "wsgi")
LIFESPANS: Final = ("auto", "on", "off")
_NAME: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*(\(\))?")
_NODE: Final = re.compile(r"\w[\w.-]{0,99}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolOptions:
    """Options of a `Pool`. Times are in seconds.

    - `app`: "module:callable", or None
    - `workers`: how many (default: one for each CPU that may be used), or `{"min": 2, "max": 8}`: as the work asks for
    - `isolation` and `interface`: see above
    - `pythonpath`: directories put first on the workers' `sys.path`; `venv`: an environment whose packages they see
    - `preload_app`: import the app before a worker counts as ready; `preload`: further modules
    - `lifespan`: of ASGI apps; `threads`: for WSGI apps, in each worker
    - `timeout`: for a call, None for no limit; `max_pending`: calls that wait on the host
    - `window`: calls that a worker holds un-started; `max_concurrency`: calls that run in a worker at once
    - `max_websockets`: WebSockets of all workers together; they take no places of calls
    - `start_timeout`: until a worker must be ready; `close_timeout`: until the pool is closed, come what may
    - `grace`: between the steps of ending a call that does not end: cancel, interrupt, abandon
    - `max_restarts` in `restart_window`: so often workers that end by themselves are started again; then it is broken
    - `max_requests`: after so many, and up to `max_requests_jitter` more, a worker is replaced; 1: a fresh one for each
    - `max_age`, `max_memory` (bytes): the same by age and size
    - `heartbeat_timeout`: a worker silent for so long is replaced; None: never
    - `bus`: redis://HOST:PORT/DB, by which the topics of several processes and machines are one, and their hosts call
      each other's functions; default: that of `state`, if it is one; "none": none
    - `node`: the name by which other hosts call this one (default: HOSTNAME-PID)
    - `max_abandoned`: workers that never ended; with more, a server asks its guard for a fresh process
    - `state`: the store of `subpool.state`, a URL or a mapping (see `state.options`); `state_namespace`: the part of it
      that is this pool's (default: the app's name); pools that name the same one share it
    - `hooks`: functions on the host that see requests, responses, errors and workers: `subpool.Hooks`
    """

    app: str | None = None
    workers: int | Mapping[str, int] | None = None
    isolation: str = "auto"
    interface: str = "auto"
    pythonpath: Sequence[str | os.PathLike[str]] = ()
    venv: str | os.PathLike[str] | None = None
    preload_app: bool = True
    preload: Sequence[str] = ()
    lifespan: str = "auto"
    threads: int = 1
    timeout: float | None = 30.0
    max_pending: int = 1024
    window: int = 16
    max_concurrency: int = 1000
    max_websockets: int = 10_000
    start_timeout: float = 60.0
    close_timeout: float = 10.0
    grace: float = 0.5
    max_restarts: int = 10
    restart_window: float = 60.0
    max_requests: int | None = None
    max_requests_jitter: int = 0
    max_age: float | None = None
    max_memory: int | None = None
    heartbeat_timeout: float | None = 30.0
    max_abandoned: int = 8
    bus: str | None = None
    node: str | None = None
    state: str | Mapping[str, Any] | StateOptions = "memory:"
    state_namespace: str | None = None
    hooks: Hooks | None = None

    @property
    def least_workers(self) -> int:
        """How many workers there are at the start, and never fewer."""
        return self.workers["min"] if isinstance(self.workers, Mapping) else self.workers or 1

    @property
    def most_workers(self) -> int:
        """How many there may be."""
        return self.workers["max"] if isinstance(self.workers, Mapping) else self.workers or 1

    def __post_init__(self) -> None:
        if self.hooks is not None:
            from .hooks import Hooks

            if not isinstance(self.hooks, Hooks):
                raise TypeError(f"hooks is {self.hooks!r:.60}; it must be a subpool.Hooks")
            if self.hooks.mounts:
                raise ValueError(f"hooks has some at {min(self.hooks.mounts)!r}; a pool has no mounts, a server has")
        if self.workers is None:
            object.__setattr__(self, "workers", os.process_cpu_count() or 1)
        if self.app is not None:
            check_name("app", self.app)
        if self.bus is not None:
            check_bus("bus", self.bus)
        if self.node is not None:
            check_node("node", self.node)
        for name, choices in (("isolation", ISOLATION), ("interface", INTERFACES), ("lifespan", LIFESPANS)):
            value = getattr(self, name)
            if value not in choices:
                raise ValueError(
                    f"{name} is {value!r}; it must be one of {', '.join(choices)}{_nearest(value, choices)}"
                )
        counts = ["threads", "max_pending", "window", "max_concurrency", "max_websockets"]
        counts += ["max_restarts", "max_abandoned"]
        if isinstance(self.workers, Mapping):
            check_range(self.workers)
            object.__setattr__(self, "workers", dict(self.workers))
        else:
            counts.append("workers")
        counts += [name for name in ("max_requests", "max_memory") if getattr(self, name) is not None]
        for name in (*counts, "max_requests_jitter"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"{name} is {value!r}, which is no int")
            least = 0 if name in ("max_requests_jitter", "max_restarts", "max_abandoned") else 1
            if value < least:
                raise ValueError(f"{name} is {value}; it must be at least {least}")
        for name in (
            *("timeout", "start_timeout", "close_timeout", "grace", "restart_window"),
            *("max_age", "heartbeat_timeout"),
        ):
            value = getattr(self, name)
            if value is None and name in ("timeout", "max_age", "heartbeat_timeout"):
                continue
            if not isinstance(value, (int, float)) or isinstance(value, bool):
                raise TypeError(f"{name} is {value!r}, which is no number of seconds")
            if not value > 0:
                raise ValueError(f"{name} is {value}; it must be more than 0 seconds")
        for name in ("pythonpath", "preload"):
            if isinstance(getattr(self, name), (str, bytes)):
                raise TypeError(f"{name} is {getattr(self, name)!r}; it must be a list")
        object.__setattr__(self, "pythonpath", tuple(os.path.abspath(os.fspath(p)) for p in self.pythonpath))
        object.__setattr__(self, "state", parse(self.state))
        if self.state_namespace is None:
            object.__setattr__(self, "state_namespace", self.app or "default")
        check_namespace(self.state_namespace)
        if self.venv is not None and not (Path(self.venv) / "pyvenv.cfg").is_file():
            raise ValueError(f"venv is {os.fspath(self.venv)!r}, which holds no pyvenv.cfg")

    def setup(self, pool: int, worker: int, kind: str, log_level: int) -> dict[str, Any]:
        """What a worker is told, as plain data."""
        return {
            "pool": pool,
            "id": worker,
            "kind": kind,
            "app": self.app,
            "interface": self.interface,
            "pythonpath": list(self.pythonpath),
            "venv": os.path.abspath(os.fspath(self.venv)) if self.venv is not None else None,
            "preload_app": bool(self.preload_app),
            "preload": list(self.preload),
            "lifespan": self.lifespan,
            "threads": self.threads,
            "max_concurrency": self.max_concurrency,
            "log_level": log_level,
            "state": self._state(pool),
        }

    def _state(self, pool: int) -> dict[str, Any]:
        store = parse(self.state)
        return {"namespace": self.state_namespace, **store.setup(pool)}


def check_name(field: str, name: Any) -> None:
    """`TypeError`/`ValueError` unless `name` is "module:callable", dotted, perhaps with "()" behind it."""
    if not isinstance(name, str):
        raise TypeError(f"{field} is {name!r}; it must be a str, 'module:callable'")
    if not _NAME.fullmatch(name):
        raise ValueError(f"{field} is {name!r}; it must be 'module:callable'")


def check_bus(field: str, url: Any) -> None:
    """`TypeError`/`ValueError` unless `url` is "none" or one of Redis. A password in it is not told."""
    if not isinstance(url, str):
        raise TypeError(f"{field} is {type(url).__name__}; it must be a str, redis://HOST:PORT/DB")
    if url != "none" and not url.startswith(("redis://", "rediss://", "unix://")):
        raise ValueError(
            f"{field} is no URL of Redis; it must be redis://HOST:PORT/DB, rediss://..., unix://PATH, or none"
        )


def bus_of(bus: str | None, state: Any) -> str | None:
    """The URL of the bus: `bus`, or the Redis of the state; None for none."""
    if bus is not None:
        return None if bus == "none" else bus
    store = parse(state)
    return store.url if store.kind == "redis" else None


def check_node(field: str, name: Any) -> None:
    """`TypeError`/`ValueError` unless `name` can be that of a node."""
    if not isinstance(name, str):
        raise TypeError(f"{field} is {name!r}; it must be a str")
    if not _NODE.fullmatch(name):
        raise ValueError(f"{field} is {name!r:.80}; it must be letters, digits, '.', '_' and '-', at most 100")


def check_range(workers: Mapping[str, Any]) -> None:
    """`TypeError`/`ValueError` unless `workers` holds a `min` and a `max` that is not less."""
    if set(workers) != {"min", "max"}:
        raise ValueError(f"workers is {dict(workers)!r}; it must be a number, or have 'min' and 'max'")
    for name, value in workers.items():
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"workers[{name!r}] is {value!r}, which is no int")
    if not 1 <= workers["min"] <= workers["max"]:
        raise ValueError(f"workers is {dict(workers)!r}; 'min' must be at least 1, and 'max' not less")


def check_timeout(timeout: Any) -> None:
    """`TypeError`/`ValueError` unless `timeout` is None or a number of seconds above 0."""
    if timeout is not None:
        if not isinstance(timeout, (int, float)) or isinstance(timeout, bool):
            raise TypeError(f"timeout is {timeout!r}, which is no number of seconds")
        if not timeout > 0:
            raise ValueError(f"timeout is {timeout}; it must be more than 0 seconds, or None for no limit")


def _nearest(value: object, choices: Sequence[str]) -> str:
    near = difflib.get_close_matches(str(value), choices, 1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def make(app: str | None, options: dict[str, Any]) -> PoolOptions:
    """`PoolOptions` of keyword arguments. `TypeError` for an unknown one names the nearest known one."""
    known = [field.name for field in fields(PoolOptions)]
    for name in options:
        if name not in known:
            raise TypeError(f"Pool has no option {name!r}{_nearest(name, known)}")
    return PoolOptions(app=app, **options)
