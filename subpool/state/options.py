"""Which store a pool's workers share, as its user says it: a URL, or a mapping with `url` and the bounds.

    memory:                       in memory, the pool's own; memory:NAME: of all pools of the process that name it
    sqlite:///var/lib/site.db     a file that stays
    redis://host:6379/0           Redis or Valkey; rediss:// over TLS, unix:// through a socket

Bounds may stand in the URL: `memory:?max_entries=1000&eviction=lru`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

EVICTION: Final = ("error", "lru")
FIELDS: Final = ("url", "max_entries", "max_bytes", "eviction")
MEMORY_BYTES: Final = 24 * 2**20  # /dev/shm has 64 MB in containers; see `sqlite` for what else is in there
_NAME: Final = re.compile(r"[\w.-]{0,60}", re.ASCII)
_PASSWORD: Final = re.compile(r"(://[^/@\s]*:)[^/\s]*@|([?&](?:\w*_)?password=)[^&\s]*")


@dataclass(frozen=True, slots=True, repr=False)
class StateOptions:
    """`url` without the bounds; `max_entries` and `max_bytes` (of keys and values; 64 more an entry), None: no bound;
    `eviction`: what becomes of one entry more, "error" or "lru"."""

    url: str = "memory:"
    max_entries: int | None = None
    max_bytes: int | None = None
    eviction: str = "error"

    def __repr__(self) -> str:
        return f"StateOptions({masked(self.text)!r})"

    @property
    def kind(self) -> str:
        """ "memory", "sqlite" or "redis"."""
        scheme = self.url.partition(":")[0]
        return scheme if scheme in ("memory", "sqlite") else "redis"

    @property
    def text(self) -> str:
        """All of it as one URL."""
        given = [f"{name}={value}" for name in FIELDS[1:] if (value := getattr(self, name)) not in (None, "error")]
        if not given:
            return self.url
        return f"{self.url}{'&' if '?' in self.url else '?'}{'&'.join(given)}"

    def __post_init__(self) -> None:
        kind, rest = self.kind, self.url.partition(":")[2]
        if kind == "memory" and not _NAME.fullmatch(rest):
            raise ValueError(f"state is {self.url!r}; it must be memory: or memory:NAME")
        if kind == "sqlite" and (not rest.startswith("///") or len(rest) < 4 or "\0" in rest):
            raise ValueError(f"state is {self.url!r}; it must be sqlite:///PATH (sqlite:////PATH is absolute too)")
        for name in ("max_entries", "max_bytes"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise ValueError(f"{name} of state is {value!r}; it must be a whole number from 1 on")
        if self.eviction not in EVICTION:
            raise ValueError(f"eviction of state is {self.eviction!r}; it must be one of {', '.join(EVICTION)}")
        if kind == "redis" and (self.max_entries, self.max_bytes, self.eviction) != (None, None, "error"):
            raise ValueError("state has bounds, but those of Redis are its own: its settings maxmemory and"
                             " maxmemory-policy")  # fmt: skip
        if kind == "sqlite" and self.eviction == "lru" and self.max_entries is None and self.max_bytes is None:
            raise ValueError("eviction of state is 'lru', but neither max_entries nor max_bytes is given")

    def shared(self, name: str) -> StateOptions:
        """The same; one in memory without a name has this one."""
        return replace(self, url=f"memory:{name}") if self.url == "memory:" else self

    def setup(self, pool: int) -> dict[str, Any]:
        """What the workers of a pool are told, by its number in this process: see `spaces`."""
        kind, most = self.kind, self.max_bytes
        folder = path = None
        if kind == "memory":
            from . import place

            folder = place.of(self.url.partition(":")[2] or f"pool.{pool}")
            if most is None:
                most = MEMORY_BYTES
        elif kind == "sqlite":
            path = "/" + self.url.removeprefix("sqlite:///").lstrip("/")
        bounds = {"max_entries": self.max_entries, "max_bytes": most, "eviction": self.eviction}
        return {"url": self.url, "place": folder, "path": path, **bounds}


def parse(given: Any) -> StateOptions:
    """What a user gave. `TypeError`/`ValueError` say what is wrong with it, and show no password."""
    if isinstance(given, StateOptions):
        return given
    if isinstance(given, str):
        return StateOptions(**_from_url(given))
    if not isinstance(given, Mapping):
        raise TypeError(f"state is {type(given).__name__}; it must be a URL, or have {', '.join(FIELDS)}")
    for name in given:
        if name not in FIELDS:
            raise ValueError(f"state has no option {str(name)[:60]!r}; it has {', '.join(FIELDS)}")
    url = given.get("url", "memory:")
    if not isinstance(url, str):
        raise TypeError(f"url of state is {type(url).__name__}; it must be a URL")
    return StateOptions(**{**_from_url(url), **{name: value for name, value in given.items() if name != "url"}})


def _from_url(url: str) -> dict[str, Any]:
    scheme, colon, rest = url.partition(":")
    if not colon or scheme not in ("memory", "sqlite", "redis", "rediss", "unix"):
        raise ValueError(f"state is {masked(url)!r}; it must be memory:, sqlite:///PATH or redis://HOST:PORT/DB")
    base, _, query = rest.partition("?")
    found: dict[str, Any] = {}
    others = []
    for one in filter(None, query.split("&")):
        name, _, value = one.partition("=")
        if name in ("max_entries", "max_bytes"):
            if not value.isascii() or not value.isdecimal():
                raise ValueError(f"{name} of state is {value!r}; it must be a whole number from 1 on")
            found[name] = int(value)
        elif name == "eviction":
            found[name] = value
        elif scheme in ("memory", "sqlite"):
            raise ValueError(f"state has no option {name[:60]!r}; it has {', '.join(FIELDS)}")
        else:
            others.append(one)  # of the library `redis`
    more = f"?{'&'.join(others)}" if others else ""
    return {"url": f"{scheme}:{base}{more}", **found}


def masked(url: str) -> str:
    """`url` without its password."""
    return _PASSWORD.sub(lambda found: f"{found[1]}***@" if found[1] else f"{found[2]}***", url)
