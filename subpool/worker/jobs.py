"""The threads of the host's helper, which take their work from its lane themselves.

A thread that is woken by another costs more than all else that a small call costs there, the more so as both want the
GIL. So one of the threads, the leader, waits at the work lane, and what it takes it runs; before that it lets another
lead. With `most` calls under way the leader only collects; who has finished takes what was collected first.

A function that was quick the last time is run by the leader as such, and nobody is woken for it at all. If it is slow
this time, the loop takes the lead from its thread (`_tick`).
"""

from __future__ import annotations

import select
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from .. import here
from ..channels.frames import Frame
from ..channels.lane import LaneClosed
from ..channels.wakeup import Wakeup
from .importer import as_app_error
from .interrupt import Interrupted, Step

if TYPE_CHECKING:
    from .worker import Worker

PATIENCE: Final = 1.0  # seconds for threads that have nothing to do to end
QUICK: Final = 0.002  # seconds that a quick function takes at most
TICK: Final = 0.01  # seconds after which the lead is taken from one that is slow after all
IDLE: Final = 20  # ticks without a quick function; then they stop


class Job:
    """One call, on a thread: `function` is called there, and then `done` with its value and what it raised."""

    __slots__ = ("_done", "_function", "given_up", "number", "over", "quick", "seconds", "step")

    def __init__(
        self, number: int, function: Callable[[], Any], done: Callable[[Any, BaseException | None], None]
    ) -> None:
        self.number = number
        self._function = function
        self._done = done
        self.step: Step | None = None
        self.given_up = self.over = False
        self.quick = False  # so far as is known before
        self.seconds = 0.0  # that it took

    def __repr__(self) -> str:
        return f"<Job {self.number}{' given up' if self.given_up else ''}{' over' if self.over else ''}>"

    def run(self, step: Step) -> None:
        """On its thread."""
        value: Any = None
        failed: BaseException | None = None
        try:
            self.step = step
            step.current = self.number
            started = time.perf_counter()
            try:
                if self.given_up:
                    raise Interrupted
                value = self._function()
            finally:
                step.leave()
                self.seconds = time.perf_counter() - started
        except (Interrupted, GeneratorExit) as error:
            failed = error
        except BaseException as error:  # `sys.exit()` is no reason to end a helper
            failed = as_app_error(error)
        self.over = True
        self._done(value, failed)

    def interrupt(self) -> None:
        """From another thread. If it has not begun it never will."""
        self.given_up = True
        if self.step is not None and not self.over:
            self.step.interrupt(self.number)


class Threads:
    """At most `most` jobs at once. `job_of` makes one of a frame, or answers None if the loop is to begin that."""

    def __init__(self, most: int, worker: Worker, job_of: Callable[[Frame], Job | None]) -> None:
        self._most = most
        self._worker = worker
        self._job_of = job_of
        self._lead = threading.Lock()
        self._lock = threading.Lock()  # for what follows
        self._frames: deque[Frame] = deque()  # taken from the lane
        self._sent: deque[Job] = deque()  # by the loop
        self._backlog: deque[Job] = deque()
        self._running = 0
        self._waiting = 0  # to lead
        self._threads: set[threading.Thread] = set()
        self._kept: Job | None = None  # a quick one, which the leader runs
        self._kept_at = 0.0
        self._idle = IDLE  # ticks; with so many they have stopped
        self._closing = False
        self._wakeup = Wakeup()
        self._poll = select.poll()
        self._poll.register(worker.lanes.work.fileno(), select.POLLIN)
        self._poll.register(self._wakeup.fileno(), select.POLLIN)
        with self._lock:
            self._start()

    def __repr__(self) -> str:
        return f"<Threads: {self._running} run, {len(self._backlog)} wait>"

    def _start(self) -> None:
        """Start a thread that leads, or waits until it does. With the lock."""
        self._waiting += 1
        name = f"subpool-function-{len(self._threads) + 1}"
        thread = threading.Thread(target=self._live, name=name, daemon=True)
        thread._subpool = True  # type: ignore[attr-defined]
        self._threads.add(thread)
        thread.start()

    def submit(self, job: Job) -> None:
        """From the loop: have a job run."""
        self._sent.append(job)
        self._wakeup.wake()

    def take_over(self, others: Threads) -> None:
        """On the loop: what others, which were closed a while ago, have not begun."""
        for job in (*others._sent, *others._backlog):
            self.submit(job)
        for frame in others._frames:
            job_of = self._job_of(frame)
            if job_of is None:
                self._worker.calls.begin(frame)
            else:
                self.submit(job_of)

    def close(self) -> None:
        """End those that have nothing to do; a job that runs on is left to itself."""
        self._closing = True
        self._wakeup.wake()
        idle = len(self._threads) == self._waiting
        for thread in list(self._threads) if idle else ():
            thread.join(PATIENCE)
        if not any(thread.is_alive() for thread in self._threads):
            self._wakeup.close()

    def _live(self) -> None:
        here.adopt(self._worker)
        step = Step()
        job: Job | None = None
        leads = False
        while True:
            if job is None:
                if not leads:
                    self._lead.acquire()
                    leads = True
                try:
                    job = self._next()
                except LaneClosed:
                    self._closing = True  # the host has gone
                if job is None:
                    self._lead.release()
                    return
                if not job.quick:
                    self._lead.release()
                    leads = False
            try:
                job.run(step)
            except (Interrupted, LaneClosed):
                pass  # it came late; or nobody is left to be answered
            with self._lock:
                if leads and self._kept is job:
                    self._kept = job = None
                    continue
                leads = False  # or no longer
                job = self._backlog.popleft() if self._backlog else None
                if job is None:
                    self._running -= 1
                    self._waiting += 1

    def _next(self) -> Job | None:
        """As the leader: the next job for this thread. None at the end."""
        while not self._closing:
            job = self._sent.popleft() if self._sent else self._taken()
            if job is None:
                self._poll.poll()
                self._wakeup.take()
                self._receive()
                continue
            with self._lock:
                if self._running >= self._most:
                    job.quick = False
                    self._backlog.append(job)
                    continue
                if job.quick:
                    self._kept, self._kept_at = job, time.monotonic()
                    if self._idle >= IDLE:
                        self._worker.loop.call_soon_threadsafe(self._tick)
                    self._idle = 0
                    return job
                self._running += 1
                self._waiting -= 1
                if not self._waiting:
                    self._start()
                return job
        return None

    def _tick(self) -> None:
        """On the loop: whether the leader runs something slow. Then another leads."""
        with self._lock:
            self._idle += 1
            if self._kept is not None and time.monotonic() - self._kept_at > TICK:
                self._kept = None
                self._running += 1
                self._waiting -= 1
                if not self._waiting:
                    self._start()
                self._lead.release()
            if self._idle < IDLE and not self._closing:
                self._worker.loop.call_later(TICK, self._tick)

    def _receive(self) -> None:
        lane = self._worker.lanes.work
        lane.clear()
        while (item := lane.receive()) is not None:
            self._frames += item[0]

    def _taken(self) -> Job | None:
        """A job of what the lane has brought. What is not for a thread is begun by the loop."""
        while self._frames:
            frame = self._frames.popleft()
            job = self._job_of(frame)
            if job is not None:
                return job
            self._worker.loop.call_soon_threadsafe(self._worker.calls.begin, frame)
        return None
