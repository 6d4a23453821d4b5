"""What is around a worker's loop: the interpreter made ready before it, and what is told and flushed behind it."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from typing import Any, Final

from .. import here
from ..channels import frames as f
from ..errors import SubpoolError, to_wire
from . import logs, shield
from .interrupt import Interrupted
from .together import Together
from .worker import Lanes, Worker

SWITCH_INTERVAL: Final = 0.001  # seconds

_starting = threading.Lock()  # workers that share one interpreter start one at a time


def main(setup: dict[str, Any], lanes: Lanes) -> frozenset[str]:
    """Live the life of a worker. Returns when it has ended; what could not be said over `lanes.out` is raised. The
    names of the modules that were there before the app."""
    worker = Worker(setup, lanes)
    here.enter(worker)
    try:
        _live(worker)
    finally:
        if not worker.shared and (state := sys.modules.get("subpool.state")) is not None:
            state.closed()
        here.leave(worker)
    return worker.modules


def _live(worker: Worker) -> None:
    if worker.shared:
        logs.mark_thread(worker.id)
    else:
        _own_interpreter(worker)
    try:
        if worker.shared:
            with _starting:
                worker.load()
        else:
            worker.load()
    except SubpoolError as error:
        worker.lanes.out.send([(f.FAILED, to_wire(error))])
        return
    if worker.shared:
        worker.together = Together.join(worker.setup["pool"])
    try:
        with asyncio.Runner(loop_factory=_new_loop) as runner:
            try:
                runner.run(worker.run())
            except BaseException:
                worker.broken = True
                raise
    except Interrupted:
        pass
    finally:
        asyncio.set_event_loop(None)
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        worker.leave_others()
        worker.bye()
        if worker.steward is not None:
            worker.steward.join(5.0)
        if worker.helping is not None:
            worker.helping.end()
        if worker.services is not None:
            worker.services.close()


def _new_loop() -> asyncio.AbstractEventLoop:
    """asyncio's own, with a selector that keeps time where one is needed; or what the app's policy makes (uvloop)."""
    loop = asyncio.new_event_loop()
    if sys.platform == "linux" and type(loop) is asyncio.SelectorEventLoop:
        loop.close()
        from ..timed_loop import Loop

        loop = Loop()
    asyncio.set_event_loop(loop)  # a runner with a factory does not, and `plainly` runs code that asks for it
    return loop


def _own_interpreter(worker: Worker) -> None:
    """For workers that do not share the host's interpreter: logging to the host, output a line at a time."""
    # A handler that gives up the GIL for a moment every few milliseconds would starve the steward: who waits for the
    # GIL asks for it only after a whole interval without a release.
    sys.setswitchinterval(SWITCH_INTERVAL)
    if worker.setup["kind"] == "subinterpreter":
        shield.raise_shield()
    root = logging.getLogger()

    def post(record: tuple[Any, ...]) -> None:
        if worker.loop is None:
            worker.frames.append((f.LOG, record))
            worker.lanes.out.send(worker.frames)
            worker.frames = []
        else:
            worker.post_threadsafe((f.LOG, record))

    for handler in [one for one in root.handlers if isinstance(one, logs.HostHandler)]:
        root.removeHandler(handler)  # of the worker that had this interpreter before
    root.addHandler(logs.HostHandler(post))
    root.setLevel(worker.setup["log_level"])
    logging.captureWarnings(False)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
