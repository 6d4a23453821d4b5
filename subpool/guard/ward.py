"""A server process, as its guard holds it: started fresh, joined by a socket pair, ended by order or by force.

States: starting -> ready -> draining; it is over when its end has been seen (`poll`).
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Sequence
from typing import Any

from .boot import command
from .caught import held_back, name_of
from .handover import Socket
from .link import Link, Message

Answer = Callable[[Message], None]


class Ward:
    """One server process. `OSError` if it cannot be started."""

    def __init__(
        self,
        config: dict[str, Any],
        sockets: Sequence[Socket],
        place: int,
        old: Ward | None,
        announce: bool,
        taken_over: bool,
    ) -> None:
        """`place`: from 1 to `processes`; `taken_over`: what the guard before shared with this one is this one's."""
        self.state = "starting"
        self.place = place
        self.old = old  # drains when this one is ready
        self.successor: Ward | None = None  # coming, in place of this one
        self.served = False
        self.worn = False  # it must be replaced, or else it may go on as it is
        self.told = False  # that and why it did not start: nobody need say it again
        self.heard = 0  # the number of the last question that it took note of
        self.silent = False  # it took no note of one in time
        self._answers: dict[int, Answer] = {}
        self._asked = 0
        ours, theirs = socket.socketpair()
        fds = [one.fd for one in sockets]
        try:
            with theirs, held_back():
                self._process = subprocess.Popen(
                    command("served", "subpool-server", theirs.fileno(), os.getpid()),
                    pass_fds=[theirs.fileno(), *fds],
                )
        except BaseException:
            ours.close()
            raise
        self.pid = self._process.pid
        self.link = Link(ours, blocking=False)
        given = {
            "config": config,
            "place": place,
            "sockets": [[one.name, one.fd] for one in sockets if not one.use],
            "operations": {one.use: [one.name, one.fd, taken_over or not one.shared] for one in sockets if one.use},
            "announce": announce,
        }
        if not self.link.send(given):
            self.kill()

    def __repr__(self) -> str:
        return f"<Ward {self.pid} {self.state}>"

    def ask(self, do: str, answer: Answer | None = None, **more: Any) -> int:
        """Tell it to do something; `answer` is called with what comes of it. The question's number."""
        self._asked += 1
        if answer is not None:
            self._answers[self._asked] = answer
        self.link.send({"do": do, "id": self._asked, **more})
        return self._asked

    def hear(self, message: Message) -> str:
        """Take a message; the event that it is."""
        event = str(message["event"])
        if event == "heard":
            self.heard = message["id"]
            self.silent = False
        elif event == "answer":
            answer = self._answers.pop(message["id"], None)
            if answer is not None:
                answer(message)
        elif event == "ready":
            if self.state == "starting":
                self.state = "ready"
        elif event == "served":
            self.served = True
        elif event == "failed":
            self.told = True
        return event

    def ended(self) -> None:
        """What it was asked will not be answered any more."""
        answers, self._answers = self._answers, {}
        for answer in answers.values():
            answer({"error": self.end_of_it()})

    def kill(self) -> None:
        self._process.kill()

    def poll(self) -> int | None:
        """Its status once it has ended."""
        return self._process.poll()

    def end_of_it(self) -> str:
        """How it ended, for people."""
        status = self._process.returncode or 0
        if status < 0:
            return f"was killed by {name_of(-status)}"
        return f"ended with status {status}"
