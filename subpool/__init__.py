"""subpool: a pool of isolated Python interpreters for ASGI and WSGI apps.

    from subpool import Pool

    async with Pool("myapp:app", workers=4) as pool:
        response = await pool.run_asgi({"type": "http", "path": "/"})

Every worker imports this package, so names load on first use (PEP 562).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .asgi import PoolApp
    from .blocking import BlockingPool
    from .errors import (
        AppError,
        AppLoadError,
        ClientGone,
        ConfigError,
        NotIsolatable,
        PoolBroken,
        PoolClosed,
        PoolOverloaded,
        PoolTimeout,
        RunnerError,
        StateError,
        StateFull,
        StateUnavailable,
        SubpoolError,
        UnknownFunction,
        WebSocketClosed,
        WebSocketDenied,
        WebSocketUnsupported,
        WorkerLost,
    )
    from .functions import acall, astream, call, cast, stream
    from .hooks import Hooks, Reload, WorkerInfo
    from .http.config import MountConfig, ServerConfig
    from .http.server import Server, serve
    from .pool import Pool
    from .request import Request, ResponseHead
    from .scope import ScopeTemplate, build_scope
    from .stats import PoolStats, ServiceStats, WorkerStats
    from .types import Response, WSGIResponse

__version__ = "0.1.0"

_HOME = {
    "PoolApp": "asgi",
    "BlockingPool": "blocking",
    "acall": "functions",
    "anodes": "functions",
    "astream": "functions",
    "call": "functions",
    "cast": "functions",
    "nodes": "functions",
    "stream": "functions",
    "Hooks": "hooks",
    "Reload": "hooks",
    "WorkerInfo": "hooks",
    "MountConfig": "http.config",
    "ServerConfig": "http.config",
    "Server": "http.server",
    "serve": "http.server",
    "Pool": "pool",
    "Request": "request",
    "ResponseHead": "request",
    "ScopeTemplate": "scope",
    "build_scope": "scope",
    "PoolStats": "stats",
    "ServiceStats": "stats",
    "WorkerStats": "stats",
    "Response": "types",
    "WSGIResponse": "types",
}

__all__ = [
    "AppError",
    "AppLoadError",
    "BlockingPool",
    "BusUnavailable",
    "ClientGone",
    "ConfigError",
    "Hooks",
    "MountConfig",
    "NodeLost",
    "NotIsolatable",
    "Pool",
    "PoolApp",
    "PoolBroken",
    "PoolClosed",
    "PoolOverloaded",
    "PoolStats",
    "PoolTimeout",
    "Reload",
    "Request",
    "Response",
    "ResponseHead",
    "RunnerError",
    "ScopeTemplate",
    "Server",
    "ServerConfig",
    "ServiceStats",
    "StateError",
    "StateFull",
    "StateUnavailable",
    "SubpoolError",
    "UnknownFunction",
    "UnknownNode",
    "WSGIResponse",
    "WebSocketClosed",
    "WebSocketDenied",
    "WebSocketUnsupported",
    "WorkerInfo",
    "WorkerLost",
    "WorkerStats",
    "acall",
    "anodes",
    "astream",
    "build_scope",
    "call",
    "cast",
    "nodes",
    "serve",
    "stream",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f".{_HOME.get(name, 'errors')}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
