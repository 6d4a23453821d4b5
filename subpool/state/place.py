"""Where stores in memory have their files: a folder for each, on a tmpfs where there is one.

The host names the folder, whoever first uses the store makes it, and the host removes it with the pool. The name says
which process it belongs to, so that what a killed one left is found: each new store sweeps those of this user whose
process has ended. A process is told by its pid, the time of its start and its PID namespace: containers may share
/dev/shm.
"""

from __future__ import annotations

import os
import re
import stat
import threading
from typing import Final

from ..errors import StateError

TMPFS: Final = "/dev/shm"
_NAME: Final = re.compile(r"subpool-state-(\d+)-(\d+)-(\d+)-(\d+)-[\w.-]+", re.ASCII)
_token = os.urandom(8).hex()
_held: dict[str, int] = {}
_lock = threading.Lock()


def folder() -> str:
    """Where the folders are made."""
    if os.path.isdir(TMPFS) and os.access(TMPFS, os.W_OK | os.X_OK):
        return TMPFS
    found = os.environ.get("TMPDIR", "")
    return found if os.path.isdir(found) else "/tmp"


def of(name: str) -> str:
    """The folder of this process's store of that name. Nothing is made."""
    start, space = _identity(os.getpid())
    return f"{folder()}/subpool-state-{os.geteuid()}-{space}-{os.getpid()}-{start}-{_token}.{name}"


def hold(path: str) -> None:
    """A pool that uses the store of this folder was opened."""
    with _lock:
        _held[path] = _held.get(path, 0) + 1


def release(path: str) -> bool:
    """A pool that used it was closed: with the last one the folder is removed. Whether that was the last."""
    with _lock:
        _held[path] = left = _held.get(path, 1) - 1
        if left:
            return False
        del _held[path]
    remove(path)
    return True


def make(path: str) -> None:
    """Make the folder unless it is there. `StateError` if it cannot be had, or is another user's."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        found = os.lstat(path)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise StateError(f"{path} is no folder of this user alone") from None
    except OSError as error:
        raise StateError(f"cannot make a folder for the state: {error}") from error
    else:
        sweep(os.path.dirname(path))


def remove(path: str) -> None:
    """Remove the folder and the files in it, if it is there."""
    try:
        for name in os.listdir(path):
            os.unlink(os.path.join(path, name))
        os.rmdir(path)
    except OSError:
        pass  # it was never made; or somebody else removes it too


def sweep(where: str) -> list[str]:
    """Remove the folders of ended processes of this user; those that were removed."""
    own = os.geteuid()
    _, space = _identity(os.getpid())
    removed: list[str] = []
    try:
        names = os.listdir(where)
    except OSError:
        return removed
    for name in names:
        found = _NAME.fullmatch(name)
        if found is None or (int(found[1]), found[2]) != (own, space) or _lives(int(found[3]), found[4]):
            continue
        path = os.path.join(where, name)
        try:
            mine = os.lstat(path).st_uid == own
        except OSError:
            continue
        if mine:
            remove(path)
            removed.append(path)
    return removed


def _lives(pid: int, start: str) -> bool:
    """Whether the process that had this pid, and began then, is there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return start == "0" or _identity(pid)[0] == start


def _identity(pid: int) -> tuple[str, str]:
    """When the process began, and this process's PID namespace; "0" where the system does not tell."""
    start = space = "0"
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            start = file.read().rpartition(b")")[2].split()[19].decode()
        space = str(os.stat("/proc/self/ns/pid").st_ino)
    except (OSError, IndexError):
        pass
    return start, space
