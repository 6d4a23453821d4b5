"""The guard's life: one thread, one selector, no event loop. What happens is an event here, never a poll.

Rules:

- The first server process must start: if it does not, the guard ends with what that said, and starts no other.
- One that ends unasked is replaced, as `Restarts` allows; beyond that the guard ends with status BROKEN. The sockets
  stay open meanwhile, so that clients wait in the system's queue.
- One that asks for a fresh process is drained when its replacement is ready.
- Who is told to end has `graceful_timeout` and a moment; then it is killed.
- Orphans whose parent it became, as the first process of a container does, are reaped.
- What an operator asks of one server process is asked of all; what was asked of their size holds for those to come.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final

from ..restarts import BROKEN, FRESH, Restarts
from .caught import Caught, name_of
from .diary import Diary
from .events import Events
from .handover import Handover, close, take
from .link import Link, Message
from .relay import HEARD, Relay
from .size import Size
from .upgrade import Upgrade
from .ward import Ward

MARGIN: Final = 0.7  # seconds beyond `graceful_timeout` until a process is killed


class Guard:
    """`run` it once."""

    def __init__(self, given: Handover) -> None:
        self._config = given.config
        self._argv = given.argv
        self._sockets = given.sockets
        self._before = None if given.before is None else Link(socket.socket(fileno=given.before), blocking=False)
        self._diary = Diary(given.config["log_level"], given.config["log_file"])
        self._restarts = Restarts(given.config["max_restarts"], given.config["restart_window"])
        self._events = Events()
        self._wards: set[Ward] = set()
        self._upgrade: Upgrade | None = None
        self._upgrade_wanted = False
        self._started = False  # a server process was ready once
        self._stopping = False
        self._size = Size(given.size)
        self._since = time.monotonic()
        self._status = 0
        self._does: dict[int, Callable[[int], None]] = {
            signal.SIGTERM: self._end,
            signal.SIGINT: self._end,
            signal.SIGHUP: lambda number: self._tell("reload"),
            signal.SIGTTIN: lambda number: self._scale(1),
            signal.SIGTTOU: lambda number: self._scale(-1),
            signal.SIGUSR1: lambda number: self._tell("reopen"),
            signal.SIGUSR2: lambda number: self._start_upgrade(),
            signal.SIGCHLD: lambda number: self._reap(),
        }

    def __repr__(self) -> str:
        return f"<Guard of {self._wards}>"

    def run(self) -> int:
        """Guard until the end; the status."""
        with Caught() as caught:
            self._guard(caught)
        self._events.close()
        close(self._sockets, self._before is not None)
        if self._upgrade is not None:
            self._upgrade.release()
        return self._status

    def _guard(self, caught: Caught) -> None:
        self._events.watch(caught, lambda: self._on_signals(caught))
        self._start(1, None)
        while self._wards or not self._stopping:
            self._events.turn()

    def _on_signals(self, caught: Caught) -> None:
        for number in dict.fromkeys(caught.take()):
            self._does[number](number)

    # server processes: their start

    def _start(self, place: int, old: Ward | None) -> None:
        """Start one; in place of `old`, which goes on until then, if that is still there."""
        if self._stopping or (old is not None and old not in self._wards):
            return
        try:
            ward = Ward(self._config, self._sockets, place, old, not self._started, self._before is None)
        except OSError as error:
            self._failed(f"a server process could not be started ({error.strerror})", False, place, old)
            return
        if old is not None:
            old.successor = ward
        self._wards.add(ward)
        self._events.watch(ward.link, lambda: self._listen(ward))

    def _listen(self, ward: Ward) -> bool:
        """Take what it says now. False when it says no more."""
        if ward.link.fileno() < 0:  # closed a moment ago
            return False
        ward.link.flush()
        messages = ward.link.receive()
        if messages is None:
            self._events.end(ward.link)
            return False
        for message in messages:
            event = ward.hear(message)
            if event == "ready" and ward.state == "ready":
                self._ready(ward, message["size"])
            elif event == "ask":
                self._relay(ward, message)
            elif event == "fresh" and ward.state == "ready" and ward.successor is None:
                self._diary.info(f"server process {ward.pid} asks for a fresh one in its place")
                ward.worn = message["worn"]
                self._start(ward.place, ward)
            elif event == "stop" and not self._stopping:
                self._diary.info("told to stop: draining")
                self._stop(0)
        return bool(messages)

    def _ready(self, ward: Ward, size: Sequence[int | None]) -> None:
        if self._size.told(size):
            ward.ask("scale", counts=self._size.counts)
        if ward.old is not None and ward.old in self._wards:
            self._drain(ward.old)
        ward.old = None
        if self._started:
            self._diary.info(f"server process {ward.pid} is ready")
        else:
            self._started = True
            for place in range(2, self._config["processes"] + 1):
                self._start(place, None)
            if self._upgrade_wanted:
                self._start_upgrade()
        if self._before is not None and len(self._serving()) == self._config["processes"]:
            self._before.send({"event": "ready", "names": [one.name for one in self._sockets]})
            self._before.close()
            self._before = None
            self._tell("operate")

    def _serving(self) -> list[Ward]:
        return [ward for ward in self._wards if ward.state == "ready"]

    # their end

    def _reap(self) -> None:
        for ward in list(self._wards):
            status = ward.poll()
            if status is not None:
                while ward.link.fileno() >= 0 and self._listen(ward):
                    pass  # its last words
                self._events.end(ward.link)
                self._wards.discard(ward)
                ward.ended()
                self._ended(ward, status)
        if self._upgrade is not None and self._upgrade.names is None and self._upgrade.poll() is not None:
            self._upgrade_failed(self._upgrade)
        self._reap_strangers()

    def _reap_strangers(self) -> None:
        """Reap the children that this guard did not start. One of its own that has ended meanwhile is left to the
        signal that comes with it; those behind it then too."""
        own = {ward.pid for ward in self._wards}
        if self._upgrade is not None and self._upgrade.names is None:
            own.add(self._upgrade.pid)
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) and found.si_pid not in own:
                os.waitpid(found.si_pid, 0)
                self._diary.debug(f"process {found.si_pid}, an orphan, has ended")

    def _ended(self, ward: Ward, status: int) -> None:
        if ward.old is not None:
            ward.old.successor = None
        if self._stopping or ward.state == "draining" or ward.successor in self._wards:
            return
        what = f"server process {ward.pid} {ward.end_of_it()}"
        if not self._started and ward.told:
            self._stop(1)
        elif status == FRESH and ward.state == "ready":
            self._start(ward.place, None)
        elif ward.told and ward.old in self._wards and not ward.old.worn:  # new code that does not start
            self._diary.error(f"{what}; the one that it was to replace goes on")
        elif status == BROKEN:  # as it has said
            self._stop(BROKEN)
        else:
            self._failed(what, ward.state == "ready" and ward.served, ward.place, ward.old)

    def _failed(self, what: str, proved: bool, place: int, old: Ward | None) -> None:
        """Something ended, or did not start: begin anew, as far as that makes sense."""
        if not self._started:
            sys.stderr.write(f"subpool: error: {what} before it was ready\n")
            self._stop(1)
            return
        wait = self._restarts.ended(time.monotonic(), proved)
        if wait is not None:
            self._diary.error(f"{what}; another is started" + (f" in {wait:.2f} s" if wait else ""))
            self._events.later(wait, lambda: self._start(place, old))
        elif old is not None:
            self._diary.error(f"{what}; the one that it was to replace goes on")
        else:
            most, window = self._restarts.most, self._restarts.window
            sys.stderr.write(
                f"subpool: error: {what}; that is more than max_restarts={most} in restart_window={window:g} s\n"
            )
            self._stop(BROKEN)

    # ending

    def _end(self, number: int) -> None:
        if not self._stopping:
            self._diary.info(f"{name_of(number)}: draining")
            self._stop(0)
            return
        self._diary.warning(f"{name_of(number)} again: ending at once")
        self._status = 128 + number
        for ward in self._wards:
            ward.kill()
        self._events.later(1.0, self._wards.clear)  # what cannot even be killed is left

    def _stop(self, status: int, taken: Sequence[str] = ()) -> None:
        """Listen no more, drain all, end with `status`. `taken`: the sockets that another guard goes on with; those
        for the operator are left to it at once, else they stay until the end."""
        self._stopping = True
        self._status = status
        operations = [one for one in self._sockets if one.use and one.name not in taken]
        for ward in self._wards:
            self._drain(ward, [one.use for one in operations])
        close([one for one in self._sockets if one not in operations], self._before is not None)
        self._sockets = operations
        if self._upgrade is not None:
            self._upgrade.cancel()

    def _drain(self, ward: Ward, operations: Sequence[str] = ("control", "metrics")) -> None:
        if ward.state == "draining":
            return
        ward.state = "draining"
        ward.ask("drain", operations=list(operations))
        limit = self._config["graceful_timeout"] + MARGIN

        def late() -> None:
            if ward in self._wards:
                self._diary.error(f"server process {ward.pid} did not end within {limit:g} s: it is killed")
                ward.kill()

        self._events.later(limit, late)

    # what else signals ask for

    def _tell(self, do: str) -> None:
        for ward in self._wards:
            ward.ask(do)

    def _scale(self, delta: int) -> None:
        """One worker more or less in each server process, and in those to come."""
        self._size.step(delta)
        for ward in self._serving():
            ward.ask("scale", counts=self._size.counts, delta=delta)

    def _relay(self, asker: Ward, message: Message) -> None:
        """What an operator asks of one server process, for all."""
        do, more, wards = message["what"], message["more"], list(self._wards)
        if do != "status":
            wards = [ward for ward in wards if ward.state == "ready" or (do == "reload" and ward.state == "starting")]
        if do == "scale" and wards:
            self._size.set(more["count"])
            more["counts"] = self._size.counts

        def done(answers: list[Message]) -> None:
            up = time.monotonic() - self._since
            asker.link.send({"do": "told", "id": message["id"], "answers": answers, "uptime": up})

        relay = Relay(do, more, wards, done)
        self._events.later(HEARD, relay.look)
        self._events.later(message["seconds"], relay.end)

    def _start_upgrade(self) -> None:
        if self._stopping:
            return
        if not self._started:
            self._upgrade_wanted = True  # when there is something to follow
            return
        if self._upgrade is not None:
            self._diary.warning(f"an upgrade is under way: guard {self._upgrade.pid}")
            return
        try:
            upgrade = self._upgrade = Upgrade(self._argv, self._sockets, self._size.passed_on())
        except OSError as error:
            self._diary.error(f"a new guard cannot be started: {error.strerror}")
            return
        self._diary.info(f"a new guard is started: {upgrade.pid}")
        self._events.watch(upgrade.link, lambda: self._hear_upgrade(upgrade))

    def _hear_upgrade(self, upgrade: Upgrade) -> None:
        if upgrade.link.fileno() < 0:  # closed a moment ago
            return
        messages = upgrade.link.receive()
        if messages is None:
            self._events.end(upgrade.link)
        for message in messages or ():
            upgrade.names = message["names"]
            self._diary.info(f"guard {upgrade.pid} has taken over: draining")
            # What it took is not ours to remove.
            self._sockets = [one._replace(inode=0) if one.name in message["names"] else one for one in self._sockets]
            if not self._stopping:
                self._stop(0, message["names"])

    def _upgrade_failed(self, upgrade: Upgrade) -> None:
        self._diary.error(f"the new guard {upgrade.pid} ended with status {upgrade.poll()}; this one goes on")
        self._events.end(upgrade.link)
        upgrade.release()
        self._upgrade = None


def main(arguments: Sequence[str]) -> int:
    """Be the guard that the descriptor in `arguments` describes."""
    return Guard(take(int(arguments[0]))).run()
