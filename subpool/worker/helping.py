"""What the host's helper runs: plain functions, on threads, and the generators among them. See `services.helper`.

A call comes in a frame of its own (CALL_HELP), which a thread takes and answers itself (`jobs`). What must be loaded
first, is async or a generator takes the way of `pool.call`: `run`, `open`, `take` and `shut` here.

The helper is a worker as any other, so a function may itself call functions of the host, and publish.

A call that nobody waits for any more is interrupted, as a request would be. A C call is not; its thread is left to it.
When every thread is held so, the process ends itself, and another takes its place: what was loaded is loaded again,
which is why not before.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from .. import here
from ..channels import frames as f
from ..channels.frames import Frame
from ..errors import WorkerLost
from ..plain import pack, unpack
from .answers import error_frame
from .importer import load_object, method_of
from .jobs import QUICK, Job, Threads

if TYPE_CHECKING:
    from .worker import Worker

log = logging.getLogger("subpool")

AGAIN: Final = 0.5  # seconds between interrupts of one call
PATIENCE: Final = 5.0  # seconds with no thread left
STATUS: Final = 70  # of a helper that ends itself (EX_SOFTWARE of sysexits.h)
SHUT: Final = 1024  # generators given up that are remembered
HOST: Final = True  # the answer for what is async
PACKED: Final = 1  # the "status" of a REPLY whose body is the answer itself
_END: Final = object()


class Flow:
    """One generator. Its items are taken one after another."""

    __slots__ = ("items", "job", "lock", "name")

    def __init__(self, name: str, items: Any) -> None:
        self.name = name
        self.items = items
        self.lock = asyncio.Lock()
        self.job: Job | None = None


class Helping:
    """What a helper has: its threads, what it has loaded, what runs."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._most: int = worker.setup["threads"]
        worker.loop.remove_reader(worker.lanes.work.fileno())  # the threads look there
        self._threads = Threads(self._most, worker, self.begin)
        self._objects: dict[tuple[str, str], Any] = {}
        self._methods: dict[tuple[str, str, str | None], Any] = {}  # what may go to a thread at once
        self._quick: dict[tuple[str, str, str | None], bool] = {}  # whether it was, the last time
        self._loading = threading.Lock()
        self._jobs: dict[int, Job] = {}
        self._numbers = 0
        self._lost: set[Job] = set()  # given up, and still on their threads
        self.flows: dict[int, Flow] = {}
        self.shut: dict[int, None] = {}  # generators that were given up before they were there

    def __repr__(self) -> str:
        return f"<Helping: {len(self._jobs)} calls, {len(self._lost)} lost, {len(self.flows)} generators>"

    # calls that go to a thread at once

    def begin(self, frame: Frame) -> Job | None:
        """On a thread: the job of a CALL_HELP, or None if it takes more."""
        if frame[0] != f.CALL_HELP:
            return None
        _, call, name, spec, method, arguments = frame
        key = name, spec, method
        function = self._methods.get(key)
        if function is None or self._worker.calls.was_cancelled(call):
            return None
        worker = self._worker

        def work() -> bytes:
            args, kwargs = unpack(arguments)
            return pack(f"the answer of {called(name, method)!r}", function(*args, **kwargs))

        def done(value: Any, error: BaseException | None) -> None:
            self._jobs.pop(call, None)
            self._lost.discard(job)
            self._quick[key] = job.seconds < QUICK
            worker.lanes.out.send([(f.REPLY, call, PACKED, None, value) if error is None else error_frame(call, error)])

        job = self._jobs[call] = Job(call, work, done)
        job.quick = self._quick.get(key, False)
        return job

    def cancel(self, call: int) -> bool:
        """Nobody waits for the call any more. False if it is not here."""
        job = self._jobs.get(call)
        if job is None:
            return False
        self._worker.post((f.STARTED, call))  # it ends when it ends: nobody is to escalate
        self._give_up(job)
        return True

    # what a task waits for

    async def object(self, name: str, spec: str) -> Any:
        """What is registered under the name; what is not loaded yet is, on a thread. `AppLoadError`."""
        found = self._objects.get((name, spec))
        return found if found is not None else await self.on_thread(lambda: self._load(name, spec))

    def _load(self, name: str, spec: str) -> Any:
        with self._loading:
            found = self._objects.get((name, spec))
            if found is None:
                found = load_object(spec)
                if isinstance(found, type):
                    found = found()
                self._objects[name, spec] = found
            return found

    async def method(self, name: str, spec: str, method: str | None) -> Any:
        """The function that is meant. `UnknownFunction` if it is not there."""
        function = method_of(await self.object(name, spec), name, method)
        if not is_async(function):
            self._methods[name, spec, method] = function
        return function

    async def on_thread(self, function: Callable[[], Any], flow: Flow | None = None) -> Any:
        """What `function` answers, called on a thread. Cancelled, it is interrupted."""
        loop = self._worker.loop
        over: asyncio.Future[Any] = loop.create_future()

        def tell(value: Any, error: BaseException | None) -> None:
            if over.done():
                return
            if error is None:
                over.set_result(value)
            else:
                over.set_exception(error)

        def done(value: Any, error: BaseException | None) -> None:
            self._lost.discard(job)
            loop.call_soon_threadsafe(tell, value, error)

        self._numbers -= 1  # those of calls are above 0
        job = Job(self._numbers, function, done)
        if flow is not None:
            flow.job = job
        self._threads.submit(job)
        try:
            return await over
        except asyncio.CancelledError:
            self._give_up(job)
            raise

    def close(self, flow: Flow) -> None:
        """End a generator, on a thread, when it does not run any more."""
        if flow.job is not None and not flow.job.over:
            self._worker.loop.call_later(0.05, self.close, flow)
        elif hasattr(flow.items, "close"):
            self._threads.submit(Job(0, flow.items.close, lambda value, error: None))

    def end(self) -> None:
        """The worker has ended."""
        self._threads.close()

    def _give_up(self, job: Job) -> None:
        if not job.over:
            self._lost.add(job)
            if job.over:
                self._lost.discard(job)
            self._interrupt(job)
            if len(self._lost) >= self._most:
                self._worker.loop.call_later(PATIENCE, self._look, self._threads)

    def _interrupt(self, job: Job) -> None:
        if not job.over:
            job.interrupt()
            self._worker.loop.call_later(AGAIN, self._interrupt, job)

    def _look(self, threads: Threads) -> None:
        """Whether every thread is still held by calls that nobody waits for."""
        if len(self._lost) < self._most or threads is not self._threads:
            return
        log.error("all %s threads of the helper are held by functions that were given up: it ends", self._most)
        if self._worker.setup["kind"] == "process":
            self._worker.flush()
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os._exit(STATUS)
        self._lost.clear()  # threads of this process cannot be ended: others take their place
        threads.close()
        self._threads = Threads(self._most, self._worker, self.begin)
        self._worker.loop.call_later(AGAIN, self._threads.take_over, threads)


def is_async(found: Any) -> bool:
    """Whether calling it makes a coroutine, or an asynchronous generator."""
    return inspect.iscoroutinefunction(found) or inspect.isasyncgenfunction(found)


def called(name: str, method: str | None) -> str:
    """A function as its callers name it."""
    return name if method is None else f"{name}.{method}"


def helping(worker: Worker) -> Helping:
    """What this worker has as a helper, from the first call on."""
    if worker.helping is None:
        worker.helping = Helping(worker)
    return worker.helping


# for `pool.call`


async def load(name: str, spec: str) -> bool:
    """Load it; whether it is async, and so belongs onto the host's loop."""
    return is_async(await helping(here.worker()).object(name, spec))


async def run(name: str, spec: str, method: str | None, arguments: bytes) -> Any:
    """The answer, packed."""
    own = helping(here.worker())
    function = await own.method(name, spec, method)
    if is_async(function) and method is None:
        return HOST
    args, kwargs = unpack(arguments)
    if is_async(function):
        answer = await function(*args, **kwargs)
    else:
        answer = await own.on_thread(lambda: function(*args, **kwargs))
    return pack(f"the answer of {called(name, method)!r}", answer)


async def open(number: int, name: str, spec: str, method: str | None, arguments: bytes) -> Any:  # noqa: A001
    """Make the generator. `TypeError` if what the function answers cannot be iterated."""
    own = helping(here.worker())
    function = await own.method(name, spec, method)
    if is_async(function) and method is None:
        return HOST

    def work() -> Any:
        args, kwargs = unpack(arguments)
        items = function(*args, **kwargs)
        return items if hasattr(items, "__anext__") else iter(items)

    flow = Flow(called(name, method), await own.on_thread(work))
    if number in own.shut:
        del own.shut[number]
        own.close(flow)
    else:
        own.flows[number] = flow
    return None


async def take(number: int) -> bytes | None:
    """The generator's next item, packed; None at its end. `WorkerLost` if it was in a helper that died."""
    own = helping(here.worker())
    flow = own.flows.get(number)
    if flow is None:
        raise WorkerLost("the generator has ended with the process that it was in")
    async with flow.lock:
        items = flow.items
        try:
            if hasattr(items, "__anext__"):
                item = await anext(items, _END)
            else:
                item = await own.on_thread(lambda: next(items, _END), flow)
            if item is not _END:
                return pack(f"an item of {flow.name!r}", item)
        except Exception:
            own.flows.pop(number, None)
            own.close(flow)
            raise
    own.flows.pop(number, None)
    return None


async def shut(number: int) -> None:
    """Nobody reads the generator any more."""
    own = helping(here.worker())
    flow = own.flows.pop(number, None)
    if flow is None:
        own.shut[number] = None
        if len(own.shut) > SHUT:
            del own.shut[next(iter(own.shut))]
    elif hasattr(flow.items, "aclose"):
        await flow.items.aclose()
    else:
        own.close(flow)
