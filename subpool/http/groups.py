"""Which apps of a server share workers: those that agree in everything that makes a pool.

All modules of a group's apps are imported before its workers are ready: if one of them refuses sub-interpreters, `auto`
finds that out at the start, and the whole group runs in processes.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ..state.options import parse

if TYPE_CHECKING:
    from .config import ServerConfig

OPTIONS: Final = (
    "workers", "isolation", "interface", "pythonpath", "venv", "preload_app", "preload", "lifespan", "threads",
    "window", "max_pending", "max_concurrency", "max_websockets", "start_timeout", "close_timeout", "grace",
    "max_restarts", "restart_window", "max_requests", "max_requests_jitter", "max_age", "max_memory",
    "heartbeat_timeout", "max_abandoned",
)  # fmt: skip
INHERITED: Final = (*OPTIONS, "timeout", "max_body", "state_namespace")  # what a mount leaves out, it has of the server


_numbers = itertools.count(1)


class Spec(NamedTuple):
    """One mounted app. `prefix` is "" at the root."""

    prefix: str
    app: str
    timeout: float | None
    max_body: int | None
    namespace: str


class Group(NamedTuple):
    """Apps that share a pool made with `options`; the first one is its own app."""

    options: dict[str, Any]
    specs: list[Spec]


def groups(config: ServerConfig) -> list[Group]:
    """The groups of `config`: for each option a mount's own value, else the server's. They share one store."""
    store = parse(config.state).shared(f"server.{next(_numbers)}").text
    found: dict[str, Group] = {}
    mounts: list[tuple[str, Any]] = [("", config)] if config.app else []
    mounts += [("" if mount.prefix == "/" else mount.prefix, mount) for mount in config.mounts]
    for prefix, mount in mounts:

        def own(name: str, mount: Any = mount) -> Any:
            value = getattr(mount, name, None)
            return value if value is not None else getattr(config, name)

        options = {name: own(name) for name in OPTIONS}
        options["timeout"] = config.timeout
        options["state"] = store
        group = found.setdefault(repr(sorted(options.items())), Group(options, []))
        namespace = own("state_namespace") or mount.app + prefix
        group.specs.append(Spec(prefix, mount.app, own("timeout"), own("max_body"), namespace))
    for group in found.values():
        group.options["state_namespace"] = group.specs[0].namespace
        if group.options["preload_app"]:
            modules = [spec.app.partition(":")[0] for spec in group.specs[1:]]
            group.options["preload"] = [*group.options["preload"], *dict.fromkeys(modules)]
    return list(found.values())
