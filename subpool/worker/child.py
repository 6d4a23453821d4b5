"""A worker that is a process of its own: `python -c BOOT path fds...`, started by `subpool.isolation.process`."""

from __future__ import annotations

import select
import signal
import socket
import sys

from ..channels.socket_lane import SocketLane
from .life import main
from .tether import die_with_parent
from .worker import Lanes


def run() -> None:
    """Take the four sockets whose numbers end the command line, wait for SETUP, live."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the host owns signals: Ctrl-C reaches the whole group
    for number in (signal.SIGTERM, signal.SIGHUP):  # not ignored: what an app starts would inherit that
        signal.signal(number, lambda *_: None)
    die_with_parent()
    work, flow, control, out = (SocketLane(socket.socket(fileno=int(number))) for number in sys.argv[-4:])
    sys.argv[1:] = []
    item = None
    while item is None:
        select.select([control], [], [])
        item = control.receive()
    main(item[0][0][1], Lanes(work, flow, control, out))
