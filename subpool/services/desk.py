"""What one worker has asked of the host's services, and the topics that it hears. It ends with the worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..channels import frames as f
from ..channels.frames import Frame
from ..errors import PoolClosed, SubpoolError, to_wire
from .asked import WorkerAsked
from .hub import WorkerFeed

if TYPE_CHECKING:
    from ..link import Link
    from .services import Services


class Desk:
    """Takes the frames of one worker; on the host's loop."""

    def __init__(self, services: Services, link: Link) -> None:
        self.services = services
        self.asked: dict[int, WorkerAsked] = {}
        self._link = link
        self._feeds: dict[tuple[str, int], WorkerFeed] = {}
        self._gone = False

    def __repr__(self) -> str:
        return f"<Desk: {len(self.asked)} calls, {len(self._feeds)} feeds>"

    def hear(self, frame: Frame) -> None:
        """A frame of the worker."""
        op = frame[0]
        if op == f.ASK:
            _, number, name, arguments, how, credit = frame
            asked = self.asked[number] = WorkerAsked(self, number, name, how, credit)
            self.services.ask(asked, arguments)
        elif op == f.UNASK:
            given_up = self.asked.pop(frame[1], None)
            if given_up is not None:
                given_up.cancel()
        elif op == f.MORE:
            reading = self.asked.get(frame[1])
            if reading is not None:
                reading.more(frame[2])
        elif op == f.PUBLISH:
            reached = self.services.hub.publish(frame[2], frame[3])
            self.send(frame[4], (f.ANSWER, frame[1], reached))
        elif op == f.SUBSCRIBE:
            self._subscribe(*frame[1:])
        elif op == f.ASK_NODE:
            _, number, name, arguments, how, credit, node = frame
            asked = self.asked[number] = WorkerAsked(self, number, name, how, credit)
            self.services.ask_node(asked, node, arguments, how)
        elif op == f.NODES:
            self._nodes(frame[1], frame[2])
        else:
            feed = self._feeds.get((frame[1], frame[2]))
            if feed is not None:
                feed.heard(frame[3])

    def _subscribe(self, topic: str, how: int, count: int, number: int) -> None:
        hub, key = self.services.hub, (topic, how)
        feed = self._feeds.get(key)
        if not count:
            if feed is not None:
                del self._feeds[key]
                hub.remove(topic, feed)
            return
        if feed is None:
            feed = self._feeds[key] = WorkerFeed(self, topic, how)
        feed.count = count

        def counts() -> None:
            if number:
                self.send(how, (f.ANSWER, number, None))

        hub.add(topic, feed, counts)

    def _nodes(self, number: int, how: int) -> None:
        def seen(names: list[str] | SubpoolError) -> None:
            if isinstance(names, SubpoolError):
                self.send(how, (f.REFUSED, number, to_wire(names)))
            else:
                self.send(how, (f.ANSWER, number, names))

        try:
            self.services.nodes.look(seen)
        except SubpoolError as error:
            seen(error)

    def send(self, how: int, frame: Frame) -> None:
        """Answer: to the steward where a thread waits, else to the worker's loop."""
        if self._gone:
            return
        if how & f.BLOCKED:
            self._link.control(frame)
        else:
            self._link.flow(frame)

    def refuse(self) -> None:
        """The worker is to have ended: who waits there waits no longer."""
        for asked in list(self.asked.values()):
            running = asked.running
            asked.refuse(PoolClosed("this worker ends"))
            if running is not None:
                running.cancel()

    def leave(self) -> None:
        """The worker has ended."""
        self._gone = True
        for asked in list(self.asked.values()):
            asked.cancel()
        self.asked.clear()
        for (topic, _), feed in self._feeds.items():
            self.services.hub.remove(topic, feed)
        self._feeds.clear()
