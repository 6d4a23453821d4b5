"""Which peers may say for whom they speak, and what they say (RFC 7239, and the X-Forwarded headers before it).

Counted from the right, over all headers of a name in order: each proxy adds the address that it heard from. The client
is the first address from the right that is not trusted itself.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import NamedTuple

_PAIR = re.compile(r'\s*([!#$%&\'*+\-.^_`|~0-9A-Za-z]+)=("(?:[^"\\]|\\.)*"|[^;,\s]*)\s*(?:;|$)')
_ELEMENT = re.compile(r'(?:[^",]|"(?:[^"\\]|\\.)*")+')
HEADERS = frozenset({b"forwarded", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host"})


class Said(NamedTuple):
    """What trusted proxies say; None where they say nothing."""

    client: tuple[str, int] | None
    scheme: str | None
    host: bytes | None


class Trusted:
    """`allowed`: addresses, networks, "unix:" for peers on unix sockets, or "*" for everyone."""

    def __init__(self, allowed: Iterable[str]) -> None:
        allowed = [entry.strip() for entry in allowed]
        self.everyone = "*" in allowed
        self.unix = self.everyone or "unix:" in allowed
        self._networks = [ipaddress.ip_network(entry, strict=False) for entry in allowed if entry not in ("*", "unix:")]
        self._known: dict[str, bool] = {}

    def __repr__(self) -> str:
        return f"<Trusted {'everyone' if self.everyone else self._networks}>"

    def peer(self, client: tuple[str, int] | None) -> bool:
        """Whether that peer's headers count. None: it is on a unix socket."""
        return self.unix if client is None else self.host(client[0])

    def host(self, host: str) -> bool:
        if self.everyone:
            return True
        known = self._known.get(host)
        if known is None:
            try:
                address = ipaddress.ip_address(host.partition("%")[0])
            except ValueError:
                known = False
            else:
                if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
                    address = address.ipv4_mapped
                known = any(address in network for network in self._networks)
            if len(self._known) >= 4096:
                self._known.clear()
            self._known[host] = known
        return known

    def said(self, headers: list[tuple[bytes, bytes]]) -> Said:
        """What the headers of a trusted peer say. `Forwarded` wins over the others where it is there."""
        forwarded = _values(headers, b"forwarded")
        if forwarded:
            return self._forwarded(forwarded)
        hosts = [item.strip() for item in _values(headers, b"x-forwarded-for").split(",") if item.strip()]
        schemes = [item.strip() for item in _values(headers, b"x-forwarded-proto").split(",") if item.strip()]
        names = [item.strip() for item in _values(headers, b"x-forwarded-host").split(",") if item.strip()]
        return Said(
            self._client([address(item) for item in hosts]),
            _scheme(schemes[-1]) if schemes else None,
            names[-1].encode("latin-1") if names else None,
        )

    def _forwarded(self, text: str) -> Said:
        clients: list[tuple[str, int] | None] = []
        scheme = host = None
        for element in _ELEMENT.findall(text):
            fields = {name.lower(): value.strip('"') for name, value in _PAIR.findall(element)}
            if "for" in fields:
                clients.append(address(fields["for"]))
            scheme = fields.get("proto", scheme)
            host = fields.get("host", host)
        return Said(
            self._client(clients),
            _scheme(scheme) if scheme else None,
            host.encode("latin-1") if host else None,
        )

    def _client(self, clients: list[tuple[str, int] | None]) -> tuple[str, int] | None:
        found = None
        for client in reversed(clients):
            if client is None:  # hidden, or nonsense: nothing to the left of it can be believed
                return found
            found = client
            if self.everyone or not self.host(client[0]):
                break
        if self.everyone and clients and clients[0] is not None:
            return clients[0]
        return found


def with_host(headers: list[tuple[bytes, bytes]], host: bytes) -> list[tuple[bytes, bytes]]:
    """`headers` with another Host, in its place."""
    return [(b"host", host) if pair[0] == b"host" else pair for pair in headers]


def address(text: str) -> tuple[str, int] | None:
    """`192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:80` as (host, port); None if neither."""
    text = text.strip().strip('"')
    host, port = text, "0"
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest[1:] or "0"
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    try:
        return str(ipaddress.ip_address(host)), int(port) if port.isdigit() and int(port) < 65536 else 0
    except ValueError:
        return None


def _scheme(text: str) -> str | None:
    text = text.lower()
    return {"wss": "https", "ws": "http"}.get(text, text) if text in ("http", "https", "ws", "wss") else None


def _values(headers: list[tuple[bytes, bytes]], name: bytes) -> str:
    return ",".join(value.decode("latin-1") for other, value in headers if other == name)
