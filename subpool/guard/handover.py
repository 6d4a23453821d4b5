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
import tempfile
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from .boot import command
from .caught import held_back

if TYPE_CHECKING:
    from ..http.binding import Binding
    from ..http.config import ServerConfig

VARIABLE = "SUBPOOL_SOCKETS"  # in the environment of a new guard: what it inherits


class Socket(NamedTuple):
    """A bound socket: its name in `bind`, its descriptor, and the inode of a unix socket's file that goes with it."""

    name: str
    fd: int
    inode: int


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
        found = Inherited(int(link), [Socket(str(name), int(fd), int(inode)) for name, fd, inode in sockets])
        for fd in (found.link, *(one.fd for one in found.sockets)):
            os.set_inheritable(fd, False)
    except (ValueError, TypeError, OSError) as error:
        raise OSError(f"{VARIABLE} is set by one guard for the next, and says nothing useful here: {error}") from None
    return found


def become_guard(config: ServerConfig, before: Inherited | None) -> NoReturn:
    """Bind, and be the guard from now on. `OSError`: nothing is bound then."""
    bindings = _bind(config, before)
    try:
        with tempfile.TemporaryFile() as file:
            sockets = [Socket(one.name, one.sock.fileno(), one.inode) for one in bindings]
            link = before.link if before is not None else None
            file.write(json.dumps([config.model_dump(mode="json"), sockets, sys.orig_argv, link]).encode())
            file.seek(0)
            for fd in (file.fileno(), *([link] if link is not None else []), *(one.fd for one in sockets)):
                os.set_inheritable(fd, True)
            sys.stdout.flush()
            sys.stderr.flush()
            with held_back():
                os.execv(sys.executable, command("guard", "subpool-guard", file.fileno()))
    except BaseException:
        for binding in bindings:
            binding.close()
        raise


def take(fd: int) -> Handover:
    """What `become_guard` left."""
    with open(fd, "rb") as file:
        config, sockets, argv, before = json.load(file)
    given = Handover(config, [Socket(*one) for one in sockets], argv, before)
    for one in (*(sock.fd for sock in given.sockets), *([before] if before is not None else [])):
        os.set_inheritable(one, False)
    return given


def _bind(config: ServerConfig, before: Inherited | None) -> list[Binding]:
    """The sockets of `config`, those of the guard before where their names are the same."""
    from ..http.binding import Binding, bind

    there = list(before.sockets) if before is not None else []
    made: list[Binding] = []
    try:
        for name in config.bind:
            same = next((one for one in there if one.name == name), None)
            if same is None:
                made.append(bind(name, config.unix_mode))
            else:
                there.remove(same)
                made.append(Binding(name, socket.socket(fileno=same.fd), same.inode))
    except BaseException:
        for binding in made:
            if before is not None and any(binding.sock.fileno() == one.fd for one in before.sockets):
                binding.inode = 0  # its file belongs to the guard that goes on
            binding.close()
        raise
    for left in there:
        os.close(left.fd)
    return made
