"""Unix sockets and their files: bound in place of one that nobody listens to, removed by who bound them.

A file is removed only if it is still the same one: another server may have taken the path.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat


def bind(path: str, mode: int) -> socket.socket:
    """A socket bound at `path`, its file with that mode; it does not listen yet. `OSError` names the path: something
    listens there, or it is no socket."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISSOCK(os.lstat(path).st_mode):
                raise OSError(errno.EEXIST, "there is a file of that name")
            if lives(path):
                raise OSError(errno.EADDRINUSE, "another server does")
            os.unlink(path)
        sock.bind(path)
        os.chmod(path, mode)  # before it listens: nobody was connected until now
    except OSError as error:
        sock.close()
        raise OSError(error.errno, f"cannot listen on unix:{path}: {error.strerror or error}") from None
    return sock


def lives(path: str) -> bool:
    """Whether something listens at `path`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except (TimeoutError, BlockingIOError):
            return True  # its backlog is full
        except OSError:
            return False
    return True


def remove(path: str, inode: int) -> None:
    """Remove a socket's file, unless another one has its place by now."""
    with contextlib.suppress(OSError):
        if os.stat(path).st_ino == inode:
            os.unlink(path)
