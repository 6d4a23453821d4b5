"""Channels by themselves: there and back, and pipelined, by payload and isolation kind; beside what Python offers.

An echo runs on the other side: in a sub-interpreter, a thread or a process. Ours are lanes as a worker has them:
frames, a counted wake-up, a payload of 16 KiB and more as a loan, which its reader copies and gives back. Beside
them: `queue.Queue` between threads, the queues of `concurrent.interpreters` (whose blocking `get` looks every 10 ms),
pipes with pickle (`multiprocessing.Pipe`) between processes. Pipelined: 16 are under way.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from perf import KIB, MIB, ROOT
from perf.frame import Session, Turn, counted
from subpool import _interpreters
from subpool.channels import frames as f
from subpool.channels.queue_lane import QueueLane
from subpool.channels.socket_lane import SocketLane
from subpool.channels.thread_lane import ThreadLane

SIZES: Final = {"0 B": 0, "1 KB": KIB, "64 KB": 64 * KIB, "1 MB": MIB}
PIPELINED: Final = 16

Send = Callable[[bytes], None]
Receive = Callable[[], int]  # takes one or more echoes; how many
Talk = tuple[Send, Receive]
STOP: Final = b"stop"
SILENCE: Final = 20.0  # seconds without an echo that are a failure


# Ours


def put(lane: Any, payload: bytes) -> None:
    """A payload as an engine or a worker sends it."""
    if len(payload) < f.LOAN_SIZE:
        lane.send([(f.REPLY, 1, 200, [], payload)])
    else:
        lane.send([(f.REPLY, 1, 200, [], f.LOAN)], [payload])


def taken(lane: Any, other: Any) -> list[bytes]:
    """Wait, then take all payloads that are there; what `other` could not send yet goes out meanwhile."""
    while True:
        full = [other.fileno()] if isinstance(other, SocketLane) and other._unsent else []
        readable, room, _ = select.select([lane.fileno()], full, [], SILENCE)
        if room:
            other.flush()
        elif not readable:
            raise RuntimeError(f"nothing came for {SILENCE:g} s")
        lane.clear()
        found = []
        while (item := lane.receive()) is not None:
            loans = iter(item[1])
            for frame in item[0]:
                if frame[4] is f.LOAN:
                    loan = next(loans)
                    found.append(bytes(loan))
                    loan.release()
                else:
                    found.append(frame[4])
        if found:
            return found


def echo(inward: Any, outward: Any) -> None:
    """The other side, until it is told to stop."""
    while True:
        for payload in taken(inward, outward):
            if payload == STOP:
                return
            put(outward, payload)


def talk(there: Any, back: Any) -> Talk:
    return (lambda payload: put(there, payload)), (lambda: len(taken(back, there)))


@contextlib.contextmanager
def thread_lanes() -> Iterator[Talk]:
    there, back = ThreadLane(), ThreadLane()
    thread = threading.Thread(target=echo, args=(there, back))
    thread.start()
    try:
        yield talk(there, back)
    finally:
        put(there, STOP)
        thread.join()
        there.close()
        back.close()


@contextlib.contextmanager
def queue_lanes() -> Iterator[Talk]:
    there, back = QueueLane(), QueueLane()
    interpreter = _interpreters.load().create()
    code = f"""if True:
        import sys; sys.path.insert(0, {ROOT!r})
        from perf.channels import echo, QueueLane
        echo(QueueLane({there.address()!r}), QueueLane({back.address()!r}))"""
    thread = threading.Thread(target=interpreter.exec, args=(code,))
    thread.start()
    try:
        yield talk(there, back)
    finally:
        put(there, STOP)
        thread.join()
        interpreter.close()
        there.close()
        back.close()


@contextlib.contextmanager
def socket_lanes() -> Iterator[Talk]:
    pairs = [socket.socketpair(), socket.socketpair()]
    numbers = [pairs[0][1].fileno(), pairs[1][1].fileno()]
    code = f"""if True:
        import socket
        from perf.channels import echo, SocketLane
        echo(*(SocketLane(socket.socket(fileno=number), lambda: None) for number in {numbers!r}))"""
    process = subprocess.Popen([sys.executable, "-c", code], pass_fds=numbers, env={**os.environ, "PYTHONPATH": ROOT})
    there, back = SocketLane(pairs[0][0], lambda: None), SocketLane(pairs[1][0])
    for _, theirs in pairs:
        theirs.close()
    try:
        yield talk(there, back)
    finally:
        put(there, STOP)
        end(process)
        there.close()
        back.close()


def end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


# Python's


@contextlib.contextmanager
def queues() -> Iterator[Talk]:
    there: queue.Queue[bytes] = queue.Queue()
    back: queue.Queue[bytes] = queue.Queue()

    def other() -> None:
        while (payload := there.get()) != STOP:
            back.put(payload)

    def receive() -> int:
        back.get()
        return 1

    thread = threading.Thread(target=other)
    thread.start()
    try:
        yield there.put, receive
    finally:
        there.put(STOP)
        thread.join()


@contextlib.contextmanager
def interpreter_queues() -> Iterator[Talk]:
    module = _interpreters.load()
    there, back = module.create_queue(), module.create_queue()
    interpreter = module.create()
    interpreter.prepare_main(there=there, back=back)
    code = f"while (payload := there.get()) != {STOP!r}: back.put(payload)"
    thread = threading.Thread(target=interpreter.exec, args=(code,))
    thread.start()

    def receive() -> int:
        back.get()
        return 1

    try:
        yield there.put, receive
    finally:
        there.put(STOP)
        thread.join()
        interpreter.close()


@contextlib.contextmanager
def pipes() -> Iterator[Talk]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=pipe_echo, args=(theirs,), daemon=True)
    process.start()
    theirs.close()

    def receive() -> int:
        ours.recv()
        return 1

    try:
        yield ours.send, receive
    finally:
        ours.send(STOP)
        process.join(10)
        process.kill()
        ours.close()


def pipe_echo(pipe: Any) -> None:
    """The other side of `pipes`; a thread sends, so that two full pipes do not wait for each other."""
    back: queue.Queue[bytes] = queue.Queue()

    def send() -> None:
        while (payload := back.get()) != STOP:
            pipe.send(payload)

    thread = threading.Thread(target=send)
    thread.start()
    while (payload := pipe.recv()) != STOP:
        back.put(payload)
    back.put(STOP)
    thread.join()


KINDS: Final[dict[str, Callable[[], Any]]] = {
    "subinterpreter": queue_lanes,
    "thread": thread_lanes,
    "process": socket_lanes,
    "queue.Queue": queues,
    "interpreters.Queue": interpreter_queues,
    "multiprocessing.Pipe": pipes,
}


def exchanged(sides: Talk, size: int, window: int) -> Turn:
    """A turn of `window` payloads under way."""
    send, receive = sides

    async def measure(number: int) -> float:
        payload = bytes(size)
        start = time.perf_counter()
        sent = min(window, number)
        for _ in range(sent):
            send(payload)
        left = number
        while left:
            got = receive()
            left -= got
            more = min(got, number - sent)
            sent += more
            for _ in range(more):
                send(payload)
        return time.perf_counter() - start

    return counted(measure)


async def run(session: Session) -> None:
    with contextlib.ExitStack() as stack:
        sides: dict[str, Talk] = {}
        left: dict[str, str] = {}
        for name, make in KINDS.items():
            try:
                sides[name] = stack.enter_context(make())
            except Exception as error:
                left[name] = f"{type(error).__name__}: {error}"
        for label, size in SIZES.items():
            for name, window in (("there and back", 1), ("pipelined", PIPELINED)):
                await session.compare(
                    f"{name}, {label}",
                    f"A payload of {label}" + (f", {window} under way." if window > 1 else ", one at a time."),
                    {one: exchanged(side, size, window) for one, side in sides.items()},
                    left=left,
                    seconds=0.25,
                    rounds=3,
                    ours=session.isolation,
                    note="queue.Queue hands over the very object: it copies nothing, and isolates nothing.",
                )
