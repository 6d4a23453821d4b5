"""The worker: what it sends and receives, from its start to its end. What is around its loop is in `life`, how each
kind of call is run in `calls`."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from .._interpreters import gil_enabled
from ..channels import frames as f
from ..channels.frames import CALM, TOGETHER, Frame
from ..channels.lane import Buffer, LaneClosed, Receiver, Sender
from ..errors import AppLoadError, to_wire
from .apps import Apps
from .calls import Calls
from .importer import extend_path, load_failure
from .interrupt import Step
from .steward import Steward
from .together import Together

if TYPE_CHECKING:
    from .helping import Helping
    from .services import Services

LOANS = 200  # lent at once at most: a release is a pending call in the owner, and those have about 300 slots
LONG = 0.001  # seconds; after CALM calls that took less, answers are sent TOGETHER
ITEMS_A_TURN = 32  # then the loop's other callbacks have their turn


class Lanes(NamedTuple):
    """A worker's ends of its channel."""

    work: Receiver
    flow: Receiver
    control: Receiver
    out: Sender


class Worker:
    """One worker. `setup` holds what the host decided: see `subpool.isolation.base.Setup`."""

    def __init__(self, setup: dict[str, Any], lanes: Lanes) -> None:
        self.setup = setup
        self.id: int = setup["id"]
        self.shared: bool = setup["kind"] == "thread"  # with the host and other workers, one interpreter
        self.lanes = lanes
        self.frames: list[Frame] = []
        self.loans: list[Buffer | int] = []
        self.lent = 0
        self.owed = 0  # loans of the host that were released, and that it does not know of yet
        self.step = Step()
        self.apps = Apps(self)
        self.calls = Calls(self)
        self.loop: asyncio.AbstractEventLoop = None  # type: ignore[assignment]  # set before anything runs
        self.together: Together | None = None
        self._drained = self._everyone = False
        self._flushing = False
        self._pulling = False
        self._calm = 0  # calls since one held the thread for long
        self.steward: Steward | None = None
        self._resetting: asyncio.Task[None] | None = None
        self._ended: asyncio.Future[float]
        self.services: Services | None = None  # made when the app first asks the host for something
        self.helping: Helping | None = None  # what it has as the host's helper
        self.broken = False  # it ends because an app ended it: what is cancelled now is lost, which the host will say
        self.modules: frozenset[str] = frozenset()  # that were there before the app

    def __repr__(self) -> str:
        return f"<Worker {self.id}: {self.calls!r}, {self.lent} loans>"

    # sending

    def post(self, frame: Frame, loan: Buffer | int | None = None) -> None:
        """Send `frame` with the next flush, at the end of this turn of the loop. On the loop's thread only. A loan that
        is an int is a descriptor, which the host gets to keep."""
        self.frames.append(frame)
        if loan is not None:
            self.loans.append(loan)
        if not self._flushing:
            self._flushing = True
            self.loop.call_soon(self.flush)

    def post_threadsafe(self, frame: Frame, loan: Buffer | None = None) -> None:
        try:
            self.loop.call_soon_threadsafe(self.post, frame, loan)
        except RuntimeError:
            pass  # the loop has ended, and with it everyone who would read this

    def lend(self, body: bytes) -> Buffer | None:
        """`body` as a loan, or None if it is small or enough are out: then it goes inside the frame, copied."""
        if len(body) < f.LOAN_SIZE or self.lent >= LOANS:
            return None
        self.lent += 1
        return body

    def borrow(self, loan: Buffer) -> bytes:
        """A loan of the host as bytes; the loan is given back."""
        data = bytes(loan)
        if isinstance(loan, memoryview):
            loan.release()
        self.owed += 1
        if not self._flushing:
            self._flushing = True
            self.loop.call_soon(self.flush)
        return data

    def flush(self) -> None:
        """Send what was posted, as one item."""
        self._flushing = False
        if self.owed:
            self.frames.append((f.LENT_BACK, self.owed))
            self.owed = 0
        if self.frames:
            frames, loans = self.frames, self.loans
            self.frames, self.loans = [], []
            try:
                self.lanes.out.send(frames, loans)
            except LaneClosed:
                self.stop(0.0)

    def flush_ahead(self) -> None:
        """The same while an app holds the thread. The flush that is due at the end of this turn stays due: else every
        post would book another, and the loop takes none of them before the app ends."""
        due = self._flushing
        self.flush()
        self._flushing = due

    def service(self) -> Services:
        """What this worker asks of its host: see `services`."""
        if self.services is None:
            from . import services

            return services.of(self)
        return self.services

    # code that must not see the loop

    def plainly(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call `function`, from a callback, as if no loop ran here: a WSGI app may use `asyncio.run`, and Django's ORM
        asks whether a loop runs."""
        asyncio._set_running_loop(None)
        try:
            return function(*args)
        finally:
            asyncio._set_running_loop(self.loop)

    async def aside(self, function: Callable[..., Any], *args: Any) -> Any:
        """The same from a task: in a callback of its own."""
        over: asyncio.Future[Any] = self.loop.create_future()

        def run() -> None:
            if over.done():
                return  # cancelled meanwhile
            try:
                value = self.plainly(function, *args)
            except BaseException as error:
                over.set_exception(error)
            else:
                over.set_result(value)

        self.loop.call_soon(run)
        return await over

    # receiving

    def on_work(self) -> None:
        self.lanes.work.clear()
        self.pull()

    def pull(self) -> None:
        """Take items of work while there is room, and begin them.

        What they answer is sent after each item; by a worker that has long been calm, some at a time: an answer must
        not wait behind a call that takes long.
        """
        self._pulling = False
        receive, begin, room = self.lanes.work.receive, self.calls.begin, self.calls.room
        clock = time.perf_counter
        last = clock()
        try:
            for _ in range(ITEMS_A_TURN):
                if not room():
                    break  # `Calls` asks again when there is
                item = receive()
                if item is None:
                    break
                self._flushing = True
                for frame in item[0]:
                    begin(frame)
                now = clock()
                self._calm = self._calm + len(item[0]) if now - last < LONG else 0
                last = now
                if self._calm < CALM or len(self.frames) >= TOGETHER:
                    self.flush()
            else:
                self.pull_soon()
        except LaneClosed:
            self.stop(0.0)
        if self._flushing:
            self.flush()

    def pull_soon(self) -> None:
        if not self._pulling:
            self._pulling = True
            self.loop.call_soon(self.pull)

    def on_flow(self, at_once: bool = False) -> None:
        """Pass on what belongs to calls under way. `at_once`: the apps that wait for it go on here and now, behind all
        that came; else in the next turn, since one of them may be who calls this."""
        lane = self.lanes.flow
        later = not at_once
        lane.clear()
        try:
            while (item := lane.receive()) is not None:
                loans: Iterator[Any] = iter(item[1])
                for frame in item[0]:
                    op = frame[0]
                    if op == f.RETURNED:
                        self.lent -= frame[1]
                    elif op == f.PING:
                        self.post((f.PONG,))
                    elif op == f.STOP:
                        self._everyone = frame[2]
                        self.stop(frame[1])
                    elif op == f.RESET:
                        from .reset import reset

                        self._resetting = self.loop.create_task(reset(self, frame[1]))
                        later = True
                    elif op == f.EVENT:
                        data = frame[3]
                        self.calls.event(frame[1], frame[2], self.borrow(next(loans)) if data is f.LOAN else data)
                    elif op >= f.ANSWER:
                        self.service().deliver(frame)
                        later = True
                    else:
                        self.calls.flow(frame)
        except LaneClosed:
            self.stop(0.0)
        woken = self.calls.woken
        try:
            if at_once:
                self._flushing = True  # one flush for all that they say
                while woken:
                    woken.popleft().go()
        finally:
            while woken:
                woken.popleft().go_soon()
            if at_once:
                self._flushing = False
        if not later:
            self.flush()
        elif not self._flushing:  # behind those who go on in the next turn
            self._flushing = True
            self.loop.call_soon(self.flush)

    # life

    def stop(self, seconds: float) -> None:
        """End: what runs has `seconds` to finish."""
        if not self._ended.done():
            self._ended.set_result(seconds)

    def load(self) -> None:
        """Everything that needs no loop: the path, the modules, the app."""
        setup = self.setup
        extend_path(setup["pythonpath"], setup["venv"])
        self.modules = frozenset(sys.modules)
        self.load_app()

    def load_app(self) -> None:
        """The modules and the app. `AppLoadError` if one cannot be imported."""
        setup = self.setup
        for module in setup["preload"]:
            try:
                __import__(module)
            except (Exception, SystemExit) as error:
                raise load_failure(f"cannot import {module!r}", error, "(named by preload)") from error
        if setup["app"] and setup["preload_app"]:
            self.apps.load(None)

    async def run(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.step = Step()
        self._ended = self.loop.create_future()
        self.steward = Steward(self)
        self.steward.start()
        self.loop.add_reader(self.lanes.flow.fileno(), self.on_flow, True)  # an app may ask the host while it starts
        try:
            if self.setup["app"] and self.setup["preload_app"]:
                await self.apps.start(None)
        except AppLoadError as error:
            self.lanes.out.send([*self.frames, (f.FAILED, to_wire(error))])
            self.frames = []
            self.loop.remove_reader(self.lanes.flow.fileno())
            return
        self.lanes.out.send([(f.READY, {"gil": gil_enabled()})])
        self.loop.add_reader(self.lanes.work.fileno(), self.on_work)
        seconds = await self._ended
        self.loop.remove_reader(self.lanes.work.fileno())
        drained_by = self.loop.time() + seconds
        await self.calls.drain(seconds)
        if self.together is not None and self._everyone:
            self._drained = True
            await self.together.drained(drained_by - self.loop.time())
        await self.apps.shutdown()
        self.flush()
        await self._loans_back(5.0)
        self.loop.remove_reader(self.lanes.flow.fileno())

    async def _loans_back(self, seconds: float) -> None:
        """Wait until the host has given every loan back: their release needs this interpreter alive."""
        deadline = self.loop.time() + seconds
        while self.lent > 0 and self.loop.time() < deadline:  # noqa: ASYNC110  once in a worker's life
            await asyncio.sleep(0.005)

    def leave_others(self) -> None:
        if self.together is not None:
            self.together.leave(self._drained)

    def bye(self) -> None:
        """The last word: which threads the app has left running (they keep an interpreter from ending)."""
        own = threading.current_thread()
        left: Sequence[str] = ()
        if not self.shared:
            left = [
                thread.name
                for thread in threading.enumerate()
                if thread is not own and not thread.daemon and thread is not threading.main_thread()
                and not getattr(thread, "_subpool", False)
            ]  # fmt: skip
        try:
            self.lanes.out.send([*self.frames, (f.BYE, list(left))])
        except LaneClosed:
            pass
