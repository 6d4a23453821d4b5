"""What goes from a process to the next one that takes its place: configuration and bound sockets.

Twice: the process that read the configuration becomes the guard by `exec`, which frees all that reading took; and a
running guard starts a new one on its sockets (SIGUSR2, see `upgrade`). Secrets travel in neither arguments nor
environment: the configuration is in a file without a name.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

from .boot import command
from .caught import held_back
from .diary import Diary

if TYPE_CHECKING:
    from ..http.config import ServerConfig

VARIABLE: Final = "SUBPOOL_SOCKETS"  # in the environment of a new guard: what it inherits
QUEUE: Final = 32  # connections to control socket and metrics that the system holds until they are accepted


class Socket(NamedTuple):
    """A bound socket: its name as in `bind`, its descriptor, and the inode of a unix socket's file that goes with it.

    `shared`: the guard before has it too, and goes on with it if this one does not come to serve. `use`: "" for the
    server's addresses; "control" and "metrics" are for its operator, and listen already.
    """

    name: str
    fd: int
    inode: int
    shared: bool = False
    use: str = ""


class Handover(NamedTuple):
    """All that a guard knows. `argv`: the command line that made it; `before`: the link to the guard before it, and
    `size`: what `Size.passed_on` gave there."""

    config: dict[str, Any]
    sockets: list[Socket]
    argv: list[str]
    before: int | None
    size: list[list[int | None]]


class Inherited(NamedTuple):
    """What a new guard has of the one before it: a link to it, its sockets, and what it knows of sizes."""

    link: int
    sockets: list[Socket]
    size: list[list[int | None]]


def inherited(environ: MutableMapping[str, str]) -> Inherited | None:
    """What the environment tells of a guard before this one; it is told once."""
    text = environ.pop(VARIABLE, None)
    if text is None:
        return None
    try:
        link, sockets, size = json.loads(text)
        found = Inherited(
            int(link),
            [Socket(str(name), int(fd), int(inode), True, str(use)) for name, fd, inode, _, use in sockets],
            list(size),
        )
        for fd in (found.link, *(one.fd for one in found.sockets)):
            os.set_inheritable(fd, False)
    except (ValueError, TypeError, OSError) as error:
        raise OSError(f"{VARIABLE} is set by one guard for the next, and says nothing useful here: {error}") from None
    return found


def become_guard(config: ServerConfig, before: Inherited | None) -> NoReturn:
    """Bind, and be the guard from now on. `OSError`: nothing is bound then."""
    import tempfile  # the guard itself needs none: it loads four ways to compress

    from .. import unix_sockets

    there = list(before.sockets) if before is not None else []
    link = [before.link] if before is not None else []
    sockets: list[Socket] = []
    try:
        for use, name, mode in [*(("", name, config.unix_mode) for name in config.bind), *_operations(config)]:
            same = next((one for one in there if (one.use, one.name) == (use, name)), None)
            if same is not None:
                there.remove(same)
                sockets.append(same)
            else:
                sockets.append(_bound(use, name, mode))
            if use:
                _listen(sockets[-1])
        for left in there:
            os.close(left.fd)
        with tempfile.TemporaryFile() as file:
            size = before.size if before is not None else []
            given = [config.model_dump(mode="json"), sockets, sys.orig_argv, link, size]
            file.write(json.dumps(given).encode())
            file.seek(0)
            for fd in (file.fileno(), *link, *(one.fd for one in sockets)):
                os.set_inheritable(fd, True)
            sys.stdout.flush()
            sys.stderr.flush()
            with held_back():
                os.execv(sys.executable, command("guard", "subpool-guard", file.fileno()))
    except BaseException:
        for one in sockets:
            os.close(one.fd)
            if not one.shared:
                unix_sockets.remove(one.name.removeprefix("unix:"), one.inode)
        raise


def _bound(use: str, name: str, mode: str) -> Socket:
    from ..http.binding import bind

    made = bind(name, mode)
    return Socket(name, made.sock.detach(), made.inode, False, use)


def _operations(config: ServerConfig) -> Iterator[tuple[str, str, str]]:
    """Use, name and mode of the sockets for the server's operator. All server processes share them: whoever asks has
    an answer while one of them lives."""
    from ..control import own_path

    if config.metrics_bind is not None:
        yield "metrics", config.metrics_bind, config.unix_mode
    if config.control_socket == "auto":
        try:
            yield "control", f"unix:{own_path(os.getpid())}", "600"
        except OSError as error:  # as on a read-only system: it runs without
            Diary(config.log_level, config.log_file).warning(f"there is no control socket: {error}")
    elif config.control_socket != "none":
        yield "control", f"unix:{config.control_socket}", "600"


def _listen(one: Socket) -> None:
    """From now on, with this process as the one that listens (SO_PEERCRED), also where another one did before."""
    sock = socket.socket(fileno=one.fd)
    try:
        sock.listen(QUEUE)
    finally:
        sock.detach()


def take(fd: int) -> Handover:
    """What `become_guard` left."""
    with open(fd, "rb") as file:
        config, sockets, argv, link, size = json.load(file)
    given = Handover(config, [Socket(*one) for one in sockets], argv, link[0] if link else None, size)
    for inheritable in (*link, *(one.fd for one in given.sockets)):
        os.set_inheritable(inheritable, False)
    return given


def close(sockets: Sequence[Socket], shared: bool) -> None:
    """Close them, and remove the files of unix sockets; if `shared`, not those of the guard before."""
    for one in sockets:
        os.close(one.fd)
        if not (shared and one.shared):
            _remove(one.name.removeprefix("unix:"), one.inode)


def _remove(path: str, inode: int) -> None:
    """As `unix_sockets.remove`, which the guard does not load."""
    try:
        if inode and os.stat(path).st_ino == inode:
            os.unlink(path)
    except OSError:
        pass
