"""The effective options, one by one, each with where it came from. A secret is shown as `***`, whatever asks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from pydantic import BaseModel

from ..state.options import masked
from .config import Location, MountConfig
from .groups import INHERITED
from .options import Option, options
from .sources import Sources, dotted

HIDDEN: Final = "***"


class Setting(NamedTuple):
    """`name`: as messages name it, `mounts[1].prefix`. `origin`: "default", FILE:LINE, a variable or an option.

    `inherited`: a mount leaves it to the server, whose value and origin these are.
    """

    name: str
    value: Any
    origin: str
    inherited: bool = False

    @property
    def text(self) -> str:
        """The value as one would write it, on one line."""
        if isinstance(self.value, list):
            return ", ".join(map(_text, self.value)) or "none"
        return _text(self.value)


def settings(sources: Sources) -> list[Setting]:
    """All options of the server, and of each mount. `ConfigError` with all that is wrong."""
    config = sources.config()
    found = []
    for name, option in options().items():
        if name != "mounts" or not config.mounts:
            found.append(_setting(sources, (name,), option, getattr(config, name)))
            continue
        known: Mapping[str, Option] = options(MountConfig)
        for number, mount in enumerate(config.mounts):
            for key, of_mount in known.items():
                setting = _setting(sources, (name, number, key), of_mount, getattr(mount, key))
                if setting.value is None:
                    if key not in INHERITED:
                        continue
                    servers = _setting(sources, (key,), options()[key], getattr(config, key))
                    setting = servers._replace(name=setting.name, inherited=True)
                found.append(setting)
    return found


def _setting(sources: Sources, location: Location, option: Option, value: Any) -> Setting:
    hidden = option.secret and value is not None
    if isinstance(value, BaseModel):  # hooks
        value = value.model_dump(exclude_none=True)
    value = masked(value) if isinstance(value, str) else value
    return Setting(dotted(location), HIDDEN if hidden else value, sources.origin(location))


def _text(value: Any) -> str:
    if isinstance(value, dict) and all(isinstance(one, list) for one in value.values()):
        return "; ".join(f"{name}: {', '.join(names)}" for name, names in value.items())
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if text and text.isprintable() else repr(text)
