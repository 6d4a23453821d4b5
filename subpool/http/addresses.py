"""The texts of addresses, peers and path prefixes: what they may be, and what they say.

Every `ValueError` here says what a value is and must be, without the name of its field: the caller knows that.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final, Literal, NamedTuple

UNIX_PATH_MAX: Final = 107  # bytes: sun_path of unix(7), less its NUL; macOS has 103
_HOST: Final = re.compile(r"[A-Za-z0-9_.-]*")


class BindAddress(NamedTuple):
    """Where to listen. `where`: the host ("" is every interface) or the path; `number`: the port or the descriptor."""

    kind: Literal["tcp", "unix", "fd"]
    where: str
    number: int = 0


def parse_bind(text: str) -> BindAddress:
    """ "127.0.0.1:8000", "[::1]:8000", "localhost:0", ":8000", "unix:/path" or "fd://3"; else `ValueError`."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path or "\0" in path:
            raise ValueError(f"is {text!r}; a path must follow 'unix:'")
        if len(path.encode(errors="surrogateescape")) > UNIX_PATH_MAX:
            raise ValueError(f"is {text!r}; the path of a unix socket has at most {UNIX_PATH_MAX} bytes")
        return BindAddress("unix", path)
    if text.startswith("fd:"):
        number = text.removeprefix("fd://")
        if not _digits(number):
            raise ValueError(f"is {text!r}; it must be fd://N, N the number of a descriptor")
        return BindAddress("fd", "", int(number))
    host, colon, port = text.rpartition(":")
    if not colon or not _digits(port) or int(port) > 65535:
        raise ValueError(f"is {text!r}; it must be HOST:PORT with a port of 0 to 65535, unix:PATH or fd://N")
    if host.startswith("[") and host.endswith("]"):
        try:
            ipaddress.IPv6Address(host[1:-1])
        except ValueError as error:
            raise ValueError(f"is {text!r}; {error}") from None
        return BindAddress("tcp", host[1:-1], int(port))
    if ":" in host:
        raise ValueError(f"is {text!r}; an IPv6 address stands in brackets, as [::1]:8000")
    if not _HOST.fullmatch(host):
        raise ValueError(f"is {text!r}; {host!r} is no host name")
    return BindAddress("tcp", host, int(port))


def _digits(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10


def check_peer(text: str) -> str:
    """`text` if it names peers: an address, a network, "unix:" or "*"."""
    if text not in ("*", "unix:"):
        try:
            ipaddress.ip_network(text)
        except ValueError as error:
            raise ValueError(f"is {text!r}; it must be an address, a network, 'unix:' or '*' ({error})") from None
    return text


def check_prefix(text: str) -> str:
    """`text` if it is a path prefix: "/", or segments such as "/api/v1". It is compared with decoded paths."""
    if text != "/":
        wrong = _wrong_path(text)
        if wrong:
            raise ValueError(f"is {text!r}; {wrong}")
    return text


def check_root_path(text: str) -> str:
    """`text` if it is "" or a path without an end slash."""
    wrong = text and _wrong_path(text)
    if wrong:
        raise ValueError(f"is {text!r}; {wrong}")
    return text


def _wrong_path(text: str) -> str:
    if not text.startswith("/"):
        return "it must start with '/'"
    if text.endswith("/"):
        return "it must not end with '/'"
    if not text.isprintable():
        return "it must be printable"
    for bad in "?#%\\":
        if bad in text:
            return f"it must not contain {bad!r}"
    for segment in text[1:].split("/"):
        if segment in ("", ".", ".."):
            return f"{segment!r} is no segment of a path"
    return ""
