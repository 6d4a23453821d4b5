"""What a worker asks of its host: functions (`subpool.functions`) and topics (`topics`, `subpool.pubsub`).

Who waits in a task of the worker's loop gets his answer by the flow lane, and so does who holds the loop's thread: he
reads that lane himself meanwhile. Answers for other threads, and for tasks of other loops (an app that calls
`asyncio.run`), come by the control lane, and the steward wakes who waits.

Everything here may be called from any thread. An interrupt must not tear a frame from its wake-up, nor a subscriber
from its topic: meanwhile the thread counts as outside of the app (`whole`), and the interrupt comes later.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from ..channels import frames as f
from ..channels.frames import Frame
from ..channels.lane import LaneClosed
from ..errors import PoolClosed, PoolOverloaded, PoolTimeout, from_wire
from .inlet import Inlet, LoopBell, OwnBell, Pump, ThreadBell
from .topics import Topics

if TYPE_CHECKING:
    from .interrupt import Step
    from .worker import Worker

MOST: Final = 4096  # calls to the host that one worker has under way

_making = threading.Lock()


class Whole:
    """While this block runs, an interrupt of the request waits."""

    __slots__ = ("_call", "_step")

    def __init__(self, step: Step | None) -> None:
        self._step = step
        self._call: int | None = None

    def __enter__(self) -> None:
        step = self._step
        if step is not None:
            self._call = step.current
            step.leave()

    def __exit__(self, *exc: object) -> None:
        if self._step is not None:
            self._step.current = self._call


class Services:
    """Of one worker."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._numbers = itertools.count(1)
        self._open: dict[int, Inlet] = {}
        self._blocked: set[ThreadBell | OwnBell] = set()
        self._pump: Pump | None = None
        self.topics = Topics(self)

    def __repr__(self) -> str:
        return f"<Services: {len(self._open)} calls under way, {self.topics!r}>"

    def __len__(self) -> int:
        """Calls under way."""
        return len(self._open)

    # sending

    def whole(self) -> Whole:
        """See `Whole`."""
        worker = self._worker
        step = worker.step if threading.get_ident() == worker.step.thread else worker.calls.wsgi.own_step()
        return Whole(step)

    def send(self, frame: Frame, now: bool = True) -> None:
        """Send a frame. `now`: at once, for the worker's thread will be held; else at the end of its loop's turn."""
        worker = self._worker
        if threading.get_ident() == worker.step.thread:
            worker.post(frame)
            if now:
                worker.flush_ahead()
            return
        try:
            worker.lanes.out.send([frame])
        except LaneClosed:
            raise PoolClosed("the host has gone") from None

    def soon(self, function: Callable[..., None], *args: Any) -> None:
        """Call `function` on the loop's thread, later: for what is collected as garbage, on any thread, at any moment,
        perhaps one that holds a lock."""
        try:
            self._worker.loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            pass  # the loop has ended, and with it the worker

    def at_loop(self) -> bool:
        """Whether the caller runs on the worker's own loop."""
        return asyncio._get_running_loop() is self._worker.loop

    def thread_bell(self) -> tuple[ThreadBell | OwnBell, int]:
        """What wakes the thread that asks, and the `how` of its frames."""
        worker = self._worker
        if threading.get_ident() != worker.step.thread:
            return ThreadBell(), f.BLOCKED
        if self._pump is None:
            self._pump = Pump(worker.lanes.flow.fileno(), self._on_flow)
        return OwnBell(self._pump), 0

    def _on_flow(self) -> None:
        with self.whole():
            self._worker.on_flow()

    def loop_bell(self) -> tuple[LoopBell, int]:
        """What wakes a task of the loop that runs here, and the `how` of its frames."""
        own = self.at_loop()
        return LoopBell(asyncio.get_running_loop(), own), 0 if own else f.BLOCKED

    def enter(self, inlet: Inlet) -> int:
        """A number for something that is asked; what comes for it goes to `inlet`. `PoolOverloaded`: too much is."""
        if self._worker.steward is None:
            raise RuntimeError("the host cannot be asked yet: a worker imports its app before it hears anything")
        if len(self._open) >= MOST:
            raise PoolOverloaded(f"this worker has {MOST} calls to the host under way already")
        number = next(self._numbers)
        self._open[number] = inlet
        return number

    # functions

    def ask(
        self, inlet: Inlet, function: str, arguments: bytes, how: int, credit: int = 0, node: str | None = None
    ) -> int:
        """Have a function of the host called, or of another node; the number of that call."""
        with self.whole():
            number = self.enter(inlet)
            frame: Frame = (f.ASK, number, function, arguments, how, credit)
            if node is not None:
                frame = (f.ASK_NODE, *frame[1:], node)
            self.send(frame, not inlet.in_task())
        return number

    def unask(self, number: int) -> None:
        """Nobody waits for it any more."""
        with self.whole():
            inlet = self._open.pop(number, None)
            if inlet is not None:
                self.send((f.UNASK, number), not inlet.in_task())

    def forget(self, number: int) -> None:
        """The same for a stream that nobody holds any more."""
        self.soon(self.unask, number)

    def more(self, number: int, count: int) -> None:
        """So many further items of a stream may come."""
        with self.whole():
            inlet = self._open.get(number)
            if inlet is not None:
                self.send((f.MORE, number, count), not inlet.in_task())

    def call(self, function: str, arguments: bytes, timeout: float | None, node: str | None = None) -> Any:
        """The answer of a function; the thread waits."""
        bell, how = self.thread_bell()
        inlet = Inlet(bell)
        number = self.ask(inlet, function, arguments, how, 0, node)
        try:
            self.block(inlet, bell, function, timeout, node)
        except BaseException:
            self.unask(number)
            raise
        return answer(inlet)

    async def acall(self, function: str, arguments: bytes, timeout: float | None, node: str | None = None) -> Any:
        """The answer of a function; the task waits."""
        bell, how = self.loop_bell()
        inlet = Inlet(bell)
        number = self.ask(inlet, function, arguments, how, 0, node)
        try:
            await self.wait(inlet, bell, function, timeout, node)
        except BaseException:
            self.unask(number)
            raise
        return answer(inlet)

    def publish(self, topic: str, message: bytes) -> Any:
        """Publish, and wait on this thread for the number of subscribers."""
        bell, how = self.thread_bell()
        inlet = Inlet(bell)
        with self.whole():
            number = self.enter(inlet)
            self.send((f.PUBLISH, number, topic, message, how))
        self.block(inlet, bell, topic, None)
        return answer(inlet)

    async def apublish(self, topic: str, message: bytes) -> Any:
        """The same in a task."""
        bell, how = self.loop_bell()
        inlet = Inlet(bell)
        with self.whole():
            number = self.enter(inlet)
            self.send((f.PUBLISH, number, topic, message, how), bool(how))
        await self.wait(inlet, bell, topic, None)
        return answer(inlet)

    def nodes(self) -> Any:
        """The names of the hosts that live; the thread waits."""
        bell, how = self.thread_bell()
        inlet = Inlet(bell)
        with self.whole():
            self.send((f.NODES, self.enter(inlet), how))
        self.block(inlet, bell, "nodes", None)
        return answer(inlet)

    async def anodes(self) -> Any:
        """The same in a task."""
        bell, how = self.loop_bell()
        inlet = Inlet(bell)
        with self.whole():
            self.send((f.NODES, self.enter(inlet), how), bool(how))
        await self.wait(inlet, bell, "nodes", None)
        return answer(inlet)

    # waiting

    def block(
        self, inlet: Inlet, bell: ThreadBell | OwnBell, what: str, timeout: float | None, node: str | None = None
    ) -> None:
        """Until an item or the end is there. `PoolTimeout` after `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self.blocking(bell):
            while not inlet.items and not inlet.over:
                if not bell.wait(deadline):
                    raise late(what, timeout, node)

    @contextmanager
    def blocking(self, bell: ThreadBell | OwnBell) -> Iterator[None]:
        """While the thread waits for the bell, an interrupt rings it."""
        self._blocked.add(bell)
        try:
            yield
        finally:
            self._blocked.discard(bell)

    async def wait(
        self, inlet: Inlet, bell: LoopBell, what: str, timeout: float | None, node: str | None = None
    ) -> None:
        """The same in a task."""
        deadline = None if timeout is None else asyncio.get_running_loop().time() + timeout
        while not inlet.items and not inlet.over:
            if not await bell.wait(deadline):
                raise late(what, timeout, node)

    def wake_blocked(self) -> None:
        """From the steward: a thread was interrupted, and takes note when it runs."""
        for bell in list(self._blocked):
            if isinstance(bell, ThreadBell):
                bell.ring()
            elif self._pump is not None:
                self._pump.wake()

    def close(self) -> None:
        """The worker has ended."""
        if self._pump is not None:
            self._pump.close()

    # receiving

    def deliver(self, frame: Frame) -> None:
        """A frame for who waits: on the loop's thread, or the steward's."""
        op = frame[0]
        if op == f.NEWS:
            self.topics.on_news(frame)
        elif op == f.PART:
            inlet = self._open.get(frame[1])
            if inlet is not None:
                inlet.put(frame[2])
        else:
            inlet = self._open.pop(frame[1], None)
            if inlet is None:
                return  # nobody waits any more
            if op == f.ANSWER:
                inlet.end(frame[2])
            else:
                inlet.end(None, frame[2])


def of(worker: Worker) -> Services:
    """The services of a worker, which are made when it first uses one."""
    with _making:
        if worker.services is None:
            worker.services = Services(worker)
        return worker.services


def answer(inlet: Inlet) -> Any:
    """What it ended with: a value, or an error that is raised."""
    if inlet.error is not None:
        raise from_wire(inlet.error)
    return inlet.value


def late(what: str, timeout: float | None, node: str | None) -> PoolTimeout:
    """The error for an answer that did not come."""
    where = "the host" if node is None else f"node {node!r}"
    return PoolTimeout(f"{what!r} on {where} did not answer within {timeout:.3g} s")
