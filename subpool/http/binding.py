"""The sockets that a server listens on: bound by the names of its option `bind`, before anything is started.

A socket is bound here and listens only when there is someone to serve (see `acceptor`).
"""

from __future__ import annotations

import os
import socket

from .. import unix_sockets
from .addresses import parse_bind


class Binding:
    """A bound socket. `name` is what it was asked for by; `inode`: of the file that goes with it, 0 if it stays."""

    __slots__ = ("inode", "name", "sock")

    def __init__(self, name: str, sock: socket.socket, inode: int = 0) -> None:
        self.name = name
        self.sock = sock
        self.inode = inode
        sock.setblocking(False)

    def __repr__(self) -> str:
        return f"<Binding {self.name}>"

    def close(self) -> None:
        """Listen no more, as far as this process goes. A second call does nothing."""
        self.sock.close()
        if self.inode:
            unix_sockets.remove(self.name.removeprefix("unix:"), self.inode)
            self.inode = 0


def bind(name: str, unix_mode: str) -> Binding:
    """A socket bound as `name` says: see `addresses.parse_bind`. `OSError` tells the name."""
    address = parse_bind(name)
    if address.kind == "unix":
        path = address.where
        return Binding(name, unix_sockets.bind(path, int(unix_mode, 8)), os.stat(path).st_ino)
    try:
        if address.kind == "fd":
            return Binding(name, socket.socket(fileno=os.dup(address.number)))
        return Binding(name, _bind_tcp(address.where, address.number))
    except OSError as error:
        raise OSError(error.errno, f"cannot listen on {name}: {error.strerror}") from None


def _bind_tcp(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    if host and family == socket.AF_INET:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock
