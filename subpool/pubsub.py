"""Publish and subscribe, between the workers of a server and its host.

    from subpool import pubsub

    await pubsub.apublish("chat", {"text": "hello"})      # 2: so many subscribers were reached
    async with pubsub.subscribe("chat") as messages:
        async for message in messages:
            ...

A topic is a str, a message plain data (see `subpool.plain`). Who has entered the block gets every message that is
published from then on, in one order for all; one who is too slow loses the oldest, and `lost` tells how many. A
subscription ends with its block, or with the task that began it.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Any, Final, Self

from . import here
from .plain import check_seconds, pack, unpack
from .worker.inlet import Bell, Inlet, LoopBell, OwnBell, ThreadBell
from .worker.services import Services
from .worker.topics import Mailbox, Topics

MOST: Final = 16 * 1024 * 1024  # bytes of one message
QUEUE: Final = 1000  # messages that wait for a subscriber


def publish(topic: str, message: Any) -> int:
    """Publish; how many subscribers are reached. The thread waits, so in async code use `apublish`.

    `TypeError` and `ValueError` for a topic that is no str, a message that is no plain data or too large.
    """
    check_topic(topic)
    return here.worker().service().publish(topic, pack_message(topic, message))  # type: ignore[no-any-return]


async def apublish(topic: str, message: Any) -> int:
    """The same for async code."""
    check_topic(topic)
    return await here.worker().service().apublish(topic, pack_message(topic, message))  # type: ignore[no-any-return]


def subscribe(topic: str, *, queue: int = QUEUE) -> Subscription:
    """Subscribe to a topic: `async with` and `async for`, or `with` and `for`.

    `queue`: so many messages wait for this subscriber, and at most 4 MiB of them; then the oldest is lost.
    """
    check_topic(topic)
    _check_queue(queue)
    return Subscription(topic, queue)


def _check_queue(queue: Any) -> None:
    if not isinstance(queue, int) or isinstance(queue, bool):
        raise TypeError(f"queue is {queue!r}, which is no int")
    if queue < 1:
        raise ValueError(f"queue is {queue}; it must be at least 1")


def check_topic(topic: Any) -> None:
    """`TypeError` unless it is a str."""
    if not isinstance(topic, str):
        raise TypeError(f"a topic is a str, not {type(topic).__name__}")


def pack_message(topic: str, message: Any) -> bytes:
    """A message as bytes. `TypeError`/`ValueError` if it is no plain data, or too large."""
    return pack(f"the message to {topic!r}, a {type(message).__name__},", message, MOST)


class Subscription:
    """One subscriber. Not to be entered twice. An iteration outside of a block begins it, too."""

    def __init__(self, topic: str, queue: int) -> None:
        self._box: Mailbox | None = None
        self.topic = topic
        self._queue = queue
        self._service: Services = here.worker().service()
        self._bell: ThreadBell | OwnBell | LoopBell | None = None
        self._task: asyncio.Task[Any] | None = None
        self._on_done: Any = None

    def __repr__(self) -> str:
        state = "not begun" if self._box is None else "over" if self._box.over else f"{len(self._box.messages)} wait"
        return f"<Subscription {self.topic!r} {state}>"

    @property
    def lost(self) -> int:
        """How many messages it has lost so far, because it was too slow."""
        return 0 if self._box is None else self._box.lost

    def _begin(self, bell: Bell, how: int) -> tuple[Mailbox, Inlet]:
        """Subscribe; what hears when it counts."""
        if self._box is not None:
            raise RuntimeError("a subscription is entered once; subscribe again")
        box, inlet = Mailbox((self.topic, how), bell, self._queue), Inlet(bell)
        self._service.topics.add(box, inlet)
        self._box = box
        return box, inlet

    def close(self) -> None:
        """End the subscription; an iteration ends when it has had what came before. A second call does nothing."""
        if self._box is not None:
            self._service.topics.remove(self._box)
        if self._task is not None:
            self._task.remove_done_callback(self._on_done)
            self._task = self._on_done = None

    def __del__(self) -> None:
        if self._box is not None and not self._box.over:
            self._service.topics.forget(self._box)

    # async

    async def __aenter__(self) -> Self:
        bell, how = self._service.loop_bell()
        box, inlet = self._begin(bell, how)
        self._bell = bell
        self._task = asyncio.current_task()
        if self._task is not None:
            self._on_done = partial(_end, self._service.topics, box)
            self._task.add_done_callback(self._on_done)
        try:
            await self._service.wait(inlet, bell, self.topic, None)
        except BaseException:
            self.close()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        if self._box is None:
            await self.__aenter__()
        box, bell = self._box, self._bell
        if box is None or not isinstance(bell, LoopBell):
            raise RuntimeError("this subscription was entered with 'with': iterate with 'for'")
        while not box.messages:
            if box.over:
                raise StopAsyncIteration
            await bell.wait(None)
        return unpack(box.take())

    # sync

    def __enter__(self) -> Self:
        bell, how = self._service.thread_bell()
        _, inlet = self._begin(bell, how)
        self._bell = bell
        try:
            self._service.block(inlet, bell, self.topic, None)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        try:
            return self.get()
        except EOFError:
            raise StopIteration from None

    def get(self, timeout: float | None = None) -> Any:
        """The next message; the thread waits. `TimeoutError` after `timeout` seconds, `EOFError` when it has ended."""
        check_seconds(timeout)
        if self._box is None:
            self.__enter__()
        box, bell = self._box, self._bell
        if box is None or bell is None or isinstance(bell, LoopBell):
            raise RuntimeError("this subscription was entered with 'async with': iterate with 'async for'")
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._service.blocking(bell):
            while not box.messages:
                if box.over:
                    raise EOFError(f"the subscription of {self.topic!r} has ended")
                if not bell.wait(deadline):
                    raise TimeoutError(f"no message of {self.topic!r} within {timeout:.3g} s")
        return unpack(box.take())


def _end(topics: Topics, box: Mailbox, _: object) -> None:
    topics.remove(box)
