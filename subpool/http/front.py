"""What every connection of a server knows: where requests go, what the limits are, what time it is.

Time is one coarse tick for all connections: each has one `deadline`, and `expired()` says what that means at the
moment. So a request costs no timer object.
"""

from __future__ import annotations

import asyncio
import logging
import marshal
from typing import TYPE_CHECKING, Any, Final, Protocol

from ..engine import Engine
from ..hostcall import numbers
from ..types import Headers
from .proxy import Trusted, with_host
from .target import mount_path

if TYPE_CHECKING:
    from ..hooks import Chain
    from .access import AccessLog
    from .config import ServerConfig
    from .h2_call import H2Call
    from .h2_headers import Familiar

log = logging.getLogger("subpool")

TICK: Final = 0.1  # seconds: how coarse the clocks of connections are
NEVER: Final = float("inf")
HEADS: Final = 256  # blocks of header lines that are remembered

Address = tuple[str, int | None]


class Connection(Protocol):
    """What the front asks of a connection, whichever its protocol."""

    deadline: float

    def expired(self) -> None:
        """The deadline has passed."""

    def idle(self) -> bool:
        """Whether it waits for its client to begin a request."""

    def drain(self) -> None:
        """The server ends: take no further request, close when what is under way is over."""

    def abort(self) -> None:
        """End now."""


class Mount:
    """One app under its prefix: `engine` runs it, `app` is its name there (None: the engine's own), `namespace` its
    part of the state (None: the pool's own)."""

    def __init__(
        self,
        prefix: str,
        engine: Engine,
        app: str | None,
        timeout: float | None,
        max_body: int | None,
        namespace: str | None = None,
    ) -> None:
        self.prefix = prefix
        self.engine = engine
        self.app = app
        self.namespace = namespace
        self.timeout = timeout if timeout is not None else NEVER
        self.max_body = max_body if max_body is not None else NEVER
        self.hooks: Chain | None = None  # of its requests; `within` those of the server

    def __repr__(self) -> str:
        return f"<Mount {self.prefix or '/'} {self.app or self.engine.options.app}>"


class Listener:
    """One bound address. `server` is what scopes say of it."""

    def __init__(self, name: str, scheme: str, server: Address | None, tls: dict[str, Any] | None = None) -> None:
        self.name = name
        self.scheme = scheme
        self.server = server
        self.tls = tls  # what the extension "tls" says of every connection

    def __repr__(self) -> str:
        return f"<Listener {self.name}>"


class Front:
    """Shared by all connections."""

    def __init__(self, config: ServerConfig, loop: asyncio.AbstractEventLoop, access: AccessLog | None = None) -> None:
        self.config = config
        self.loop = loop
        self.access = access
        self.mounts: list[Mount] = []
        self._prefixes: dict[str, Mount] = {}
        self._longest = 0  # of the prefixes
        self.only: Mount | None = None  # the one mount at the root, if there is no other
        self.connections: set[Connection] = set()
        self.ids = numbers
        self.now = loop.time()  # of the last tick
        self.draining = False
        self.trusted = Trusted(config.forwarded_allow_ips) if config.proxy_headers else None
        self.hooks: Chain | None = None  # of all requests
        self.requests = 0
        self.heads: dict[bytes, Headers] = {}  # the headers of requests by their lines, see `h1`
        self.familiar: Familiar | None = None  # the same for HTTP/2
        self.h2_call: type[H2Call]  # what requests of HTTP/2 are, from the first on
        self._sites: dict[tuple[Any, ...], bytes] = {}
        self.extra = b"server: %s\r\n" % config.server_header.encode() if config.server_header else b""
        self._ticking: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Front: {len(self.connections)} connections>"

    # where requests go

    def set_mounts(self, mounts: list[Mount]) -> None:
        self.mounts = mounts
        self._prefixes = {mount.prefix: mount for mount in mounts}
        self._longest = max((len(prefix) for prefix in self._prefixes), default=0)
        self.only = mounts[0] if len(mounts) == 1 and not mounts[0].prefix else None

    @property
    def hooked(self) -> bool:
        """Whether any request has hooks: then connections are of another kind, see `h1_hooked`."""
        return self.hooks is not None or any(mount.hooks is not None for mount in self.mounts)

    def route(self, path: str) -> Mount | None:
        """The mount for a percent-decoded path: the longest prefix that ends at a "/"."""
        prefixes, end = self._prefixes, len(path)
        if end > self._longest:
            end = path.rfind("/", 0, self._longest + 1)
        while end > 0:
            mount = prefixes.get(path[:end])
            if mount is not None:
                return mount
            end = path.rfind("/", 0, end)
        return prefixes.get("")

    def find(self, target: bytes) -> Mount | None:
        """The mount for a target in origin form."""
        return self.only or self.route(mount_path(target.partition(b"?")[0]))

    def site(self, listener: Listener, mount: Mount, scheme: str, server: Address | None) -> bytes:
        """What requests to `mount` through `listener` have in common, as workers want it: see `worker.http.Site`."""
        key = (listener, mount, scheme, server)
        found = self._sites.get(key)
        if found is None:
            fields = {
                "scope": {
                    "scheme": scheme,
                    "server": server,
                    "root_path": self.config.root_path + mount.prefix,
                },
                "extensions": {} if listener.tls is None else {"tls": listener.tls},
                "mount": mount.prefix,
                "date": self.config.date_header,
                "extra": self.extra,
            }
            found = marshal.dumps(fields)
            if len(self._sites) < 256:
                self._sites[key] = found
        return found

    def remember(self, block: bytes, headers: Headers) -> None:
        """Header lines that were parsed and found good, with their last empty one."""
        if len(self.heads) >= HEADS:
            self.heads.clear()
        self.heads[block] = headers

    def speaker(
        self, listener: Listener, client: tuple[str, int] | None, headers: Headers
    ) -> tuple[tuple[str, int] | None, str, Headers]:
        """Client, scheme and headers of a request with headers of proxies: as they say, if the peer is trusted."""
        scheme = listener.scheme
        if self.trusted is None or not self.trusted.peer(client):
            return client, scheme, headers
        said = self.trusted.said(headers)
        if said.host is not None:
            headers = with_host(headers, said.host)
        return said.client or client, said.scheme or scheme, headers

    # connections

    def opened(self, connection: Connection) -> bool:
        """A new connection. False if there is no room, though an idle one was closed where there is one."""
        if len(self.connections) >= self.config.max_connections:
            waiting = [other for other in self.connections if other.idle()]
            if not waiting:
                return False
            min(waiting, key=lambda other: other.deadline).abort()
        self.connections.add(connection)
        return True

    def closed(self, connection: Connection) -> None:
        self.connections.discard(connection)

    # time

    def start(self) -> None:
        self._tick()

    def stop(self) -> None:
        if self._ticking is not None:
            self._ticking.cancel()

    def _tick(self) -> None:
        before, self.now = self.now, self.loop.time()
        now = self.now
        if (stood_still := now - before - TICK) > TICK:  # nobody could be heard meanwhile, and `before` was the time
            for connection in self.connections:
                connection.deadline += stood_still
        for connection in [one for one in self.connections if one.deadline < now]:
            try:
                connection.expired()
            except Exception:
                log.exception("a connection could not be ended: %r", connection)
                connection.abort()
        self._ticking = self.loop.call_later(TICK, self._tick)
