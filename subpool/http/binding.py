"""The sockets that a server listens on: bound by the names of its option `bind`, before anything is started.

A socket is bound here and listens only when there is someone to serve (see `acceptor`). A unix socket has a file; who
bound it removes it, and only if it is still the same file: another server may have taken the path.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket

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
        remove(self.name, self.inode)
        self.inode = 0


def remove(name: str, inode: int) -> None:
    """Remove the file of the unix socket that is called `name`, if it is still that one."""
    if inode:
        with contextlib.suppress(OSError):
            path = name.removeprefix("unix:")
            if os.stat(path).st_ino == inode:
                os.unlink(path)


def bind(name: str, unix_mode: str) -> Binding:
    """A socket bound as `name` says: see `addresses.parse_bind`. `OSError` tells the name."""
    address = parse_bind(name)
    if address.kind == "unix":
        return _bind_unix(name, address.where, int(unix_mode, 8))
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


def _bind_unix(name: str, path: str, mode: int) -> Binding:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if _answers(path):
            raise OSError(errno.EADDRINUSE, "another server does")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        sock.bind(path)
        os.chmod(path, mode)
    except OSError as error:
        sock.close()
        raise OSError(error.errno, f"cannot listen on {name}: {error.strerror}") from None
    return Binding(name, sock, os.stat(path).st_ino)


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
    return True
