"""Hooks that the configuration names: imported when the server starts; what is wrong is told with its place."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from ..hooks import NAMES, Hooks

if TYPE_CHECKING:
    from .config import ServerConfig

Place = tuple[int | str, ...]


def load(given: Mapping[str, Any], hooks: Hooks) -> list[tuple[Place, str]]:
    """Import hooks by their names, "module:function", and add them to `hooks`. What is wrong: a location, a text."""
    wrong: list[tuple[Place, str]] = []
    for kind in NAMES:
        names = given.get(kind) or []
        for number, name in enumerate(names):
            try:
                hooks.add(kind, find(name), name)
            except (LookupError, TypeError) as error:
                wrong.append(((kind, number) if len(names) > 1 else (kind,), f"is {name!r}: {error.args[0]}"))
    return wrong


def find(name: str) -> Any:
    """The object called "module:name". `LookupError` says why there is none."""
    module, _, path = name.partition(":")
    try:
        found: Any = import_module(module)
    except Exception as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is not None and f"{module}.".startswith(f"{missing}."):
            raise LookupError(f"there is no module {missing!r}") from None
        raise LookupError(f"the import of {module!r} raised {type(error).__name__}: {error}") from error
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise LookupError(f"the module {module!r} has no {path!r}") from None
    if not callable(found):
        raise LookupError(f"that is of type {type(found).__name__}, which cannot be called")
    return found


def dotted(place: Place) -> str:
    """("mounts", 1, "hooks") as mounts[1].hooks."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")


def problems(config: ServerConfig) -> list[tuple[Place, str]]:
    """What is wrong with the hooks that `config` names, each with its location. They are imported for that."""
    return _named(config)[1]


def collected(config: ServerConfig, more: Hooks | None) -> Hooks:
    """The hooks that `config` names, and `more` behind them. `ConfigError` if one is wrong."""
    hooks, wrong = _named(config)
    told = [f"{dotted(place)}: {what}" for place, what in wrong]
    if more is not None:
        hooks.update(more)
        prefixes = {mount.prefix.rstrip("/") for mount in config.mounts} | ({""} if config.app else set())
        nowhere = sorted(hooks.mounts.keys() - prefixes)
        told += [f"hooks.at({prefix or '/'!r}): no app is mounted there" for prefix in nowhere]
    if told:
        raise ConfigError(told)
    return hooks


def _named(config: ServerConfig) -> tuple[Hooks, list[tuple[Place, str]]]:
    hooks = Hooks()
    wrong: list[tuple[Place, str]] = []
    given: list[tuple[Place, Any, Hooks]] = [(("hooks",), config, hooks)]
    given += ((("mounts", at, "hooks"), mount, hooks.at(mount.prefix)) for at, mount in enumerate(config.mounts))
    for place, options, into in given:
        if options.hooks is not None:
            for path in reversed([*(options.pythonpath or config.pythonpath)]):
                if path not in sys.path:
                    sys.path.insert(0, path)  # hooks may import later too
            wrong += (((*place, *inner), what) for inner, what in load(dict(options.hooks), into))
    return hooks, wrong
