"""What goes from a process to the next one that takes its place: configuration and bound sockets.

Twice: the process that read the configuration becomes the guard by `exec`, which frees all that reading took; and a
running guard starts a new one on its sockets (SIGUSR2, see `upgrade`). Secrets travel in neither arguments nor
environment: the configuration is in a file without a name.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from .boot import command
from .caught import held_back

if TYPE_CHECKING:
    from ..http.config import ServerConfig

VARIABLE = "SUBPOOL_SOCKETS"  # in the environment of a new guard: what it inherits


class Socket(NamedTuple):
    """A bound socket: its name in `bind`, its descriptor, and the inode of a unix socket's file that goes with it.

    `shared`: the guard before has it too, and goes on with it if this one does not come to serve.
    """

    name: str
    fd: int
    inode: int
    shared: bool = False


class Handover(NamedTuple):
    """All that a guard knows. `argv`: the command line that made it; `before`: the link to the guard before it."""

    config: dict[str, Any]
    sockets: list[Socket]
    argv: list[str]
    before: int | None


class Inherited(NamedTuple):
    """What a new guard has of the one before it: a link to it, and its sockets."""

    link: int
    sockets: list[Socket]


def inherited(environ: MutableMapping[str, str]) -> Inherited | None:
    """What the environment tells of a guard before this one; it is told once."""
    text = environ.pop(VARIABLE, None)
    if text is None:
        return None
    try:
        link, sockets = json.loads(text)
        found = Inherited(int(link), [Socket(str(name), int(fd), int(inode), True) for name, fd, inode, _ in sockets])
        for fd in (found.link, *(one.fd for one in found.sockets)):
            os.set_inheritable(fd, False)
    except (ValueError, TypeError, OSError) as error:
        raise OSError(f"{VARIABLE} is set by one guard for the next, and says nothing useful here: {error}") from None
    return found


def become_guard(config: ServerConfig, before: Inherited | None) -> NoReturn:
    """Bind, and be the guard from now on. `OSError`: nothing is bound then."""
    from .. import unix_sockets
    from ..http.binding import bind

    there = list(before.sockets) if before is not None else []
    link = [before.link] if before is not None else []
    sockets: list[Socket] = []
    try:
        for name in config.bind:
            same = next((one for one in there if one.name == name), None)
            if same is not None:
                there.remove(same)
                sockets.append(same)
            else:
                made = bind(name, config.unix_mode)
                sockets.append(Socket(name, made.sock.detach(), made.inode))
        for left in there:
            os.close(left.fd)
        with tempfile.TemporaryFile() as file:
            given = [config.model_dump(mode="json"), sockets, sys.orig_argv, link]
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


def take(fd: int) -> Handover:
    """What `become_guard` left."""
    with open(fd, "rb") as file:
        config, sockets, argv, link = json.load(file)
    given = Handover(config, [Socket(*one) for one in sockets], argv, link[0] if link else None)
    for inheritable in (*link, *(one.fd for one in given.sockets)):
        os.set_inheritable(inheritable, False)
    return given
