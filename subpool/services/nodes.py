"""Functions of other hosts: the calls that this one makes, and those that others make of it. A `Post` carries them.

A host is a node with a name. Hosts of one name, such as the processes of one server, are one node: each call goes to
one of them, in turns. A message names its sender, and a number that the caller gave the call:

    the caller:  ASK, then MORE for a stream, UNASK when nobody waits any more
    the other:   PART for each item of a stream, then ANSWER or REFUSED

Who holds a call hears of its end, whatever happens. A host that ended, or whose connection broke, is not in the list of
the living at two looks; a connection of our own that breaks ends all that is under way, since what was said is lost.
Messages are MessagePack (`packing`); what is none of ours is logged and changes nothing.
"""

from __future__ import annotations

import itertools
import logging
import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

from ..channels import frames as f
from ..errors import (
    AppError,
    BusUnavailable,
    NodeLost,
    PoolClosed,
    PoolOverloaded,
    SubpoolError,
    UnknownFunction,
    UnknownNode,
    from_wire,
)
from ..plain import pack, pack_arguments, unpack
from .asked import Asked
from .far import FarAsked, FarCall, error_data
from .packing import decode, encode

if TYPE_CHECKING:
    from .services import Services

log = logging.getLogger("subpool")

MOST: Final = 4096  # calls under way, ours to others and others' to us
MOST_BYTES: Final = 4 * 1024 * 1024  # of one call's arguments, or of its answer, as MessagePack
MOST_ITEM: Final = 1024 * 1024  # of one item of a stream: a reader is sent 16 ahead, and Redis holds 32 MB for him
ENVELOPE: Final = 1024  # bytes of a message beside them
MOST_AHEAD: Final = 1000  # items that a reader may ask for at a time
LOG_EVERY: Final = 1.0  # seconds between messages that are none of ours and are logged

ASK, UNASK, MORE, ANSWER, REFUSED, PART = 1, 2, 3, 4, 5, 6

Living = dict[str, str]  # hosts by an id of their own, with their names
_ID: Final = re.compile("[0-9a-f]{16}")


class Post(Protocol):
    """Carries messages between hosts, and knows which of them live. Nothing here waits."""

    up: bool

    def send(self, to: str, data: bytes, sent: Callable[[int], None] | None, instead: bytes | None) -> bool:
        """Send a message to a host. `sent` is told how many got it, 0 or 1. If the connection breaks before that is
        known, `instead` is sent when there is another. False: too much waits, nothing was sent."""

    def look(self, seen: Callable[[Living | None], None]) -> None:
        """Look who lives. None: the connection broke."""


class Nodes:
    """Of one host. All on its loop."""

    def __init__(self, services: Services, name: str) -> None:
        self.services = services
        self.name = name
        self.own = os.urandom(8).hex()
        self.post: Post
        self._numbers = itertools.count(1)
        self._asked: dict[int, FarCall] = {}  # of others, by us
        self._taken: dict[tuple[str, int], FarAsked] = {}  # of us, by others
        self._living: Living = {}
        self._missing: set[str] = set()  # not there at the last look
        self._closed = False
        self._log_at = 0.0

    def __repr__(self) -> str:
        return f"<Nodes {self.name!r}: {len(self._asked)} calls to others, {len(self._taken)} for others>"

    def status(self) -> dict[str, Any]:
        """As plain data."""
        return {"name": self.name, "up": self.post.up, "asked": len(self._asked), "taken": len(self._taken)}

    def names(self) -> list[str]:
        return sorted(set(self._living.values()))

    # ours to others

    def ask(self, asked: Asked, node: str, arguments: bytes, how: int) -> None:
        """Have a function called on a node; `asked` hears of its end."""
        if node == self.name:
            self.services.ask(asked, arguments)
            return
        if self._closed:
            raise PoolClosed("the pool is closed")
        if not self.post.up:
            raise BusUnavailable("the Redis of the option bus cannot be reached; nothing was sent")
        if len(self._asked) >= MOST:
            raise PoolOverloaded(f"{MOST} calls to other nodes are under way already")
        number = next(self._numbers)
        args, kwargs = unpack(arguments)
        what = f"what {asked.name!r} is called with"
        message = [ASK, self.own, number, asked.name, list(args), kwargs, how & ~f.BLOCKED, asked.credit]
        data = _encoded(what, message, MOST_BYTES)
        call = self._asked[number] = FarCall(self, asked, node, number, how, data)
        asked.running = call
        call.begin()

    def choose(self, node: str, number: int) -> str | None:
        """One of the hosts of that name, in turns."""
        found = [host for host, name in self._living.items() if name == node]
        return found[number % len(found)] if found else None

    def gone(self, host: str) -> None:
        """It does not hear any more."""
        self._living.pop(host, None)

    def unknown(self, node: str) -> UnknownNode:
        return UnknownNode(f"no node {node!r} answers; those that do: {', '.join(self.names()) or 'none'}")

    def drop(self, call: FarCall) -> None:
        self._asked.pop(call.number, None)

    def unask(self, call: FarCall) -> None:
        """Nobody waits for it any more."""
        self.drop(call)
        if call.host is not None:
            data = encode([UNASK, self.own, call.number])
            self.post.send(call.host, data, None, data)

    def more(self, call: FarCall, count: int) -> None:
        if call.host is not None:
            self.post.send(call.host, encode([MORE, self.own, call.number, count]), None, None)

    # others' of us

    def answer(self, taken: FarAsked, data: bytes | None) -> None:
        """It has ended well."""
        if data is None or taken.how & (f.CAST | f.STREAM):
            self._reply(taken, encode([ANSWER, self.own, taken.number]))
            return
        try:
            message = [ANSWER, self.own, taken.number, unpack(data)]
            self._reply(taken, _encoded(f"the answer of {taken.name!r}", message, MOST_BYTES))
        except AppError as error:
            self.refuse(taken, error)

    def item(self, taken: FarAsked, data: bytes) -> None:
        """An item of a stream. `AppError` if it cannot leave."""
        message = [PART, self.own, taken.number, unpack(data)]
        self._reply(taken, _encoded(f"an item of {taken.name!r}", message, MOST_ITEM))

    def refuse(self, taken: FarAsked, error: SubpoolError) -> None:
        """It has failed."""
        self._reply(taken, self._refusal(taken.number, error))

    def forget(self, taken: FarAsked) -> None:
        self._taken.pop((taken.host, taken.number), None)

    def _reply(self, taken: FarAsked, data: bytes) -> None:
        lost = self._refusal(taken.number, BusUnavailable(f"node {self.name!r} lost its connection to Redis"))
        if not self.post.send(taken.host, data, None, lost):
            full = self._refusal(taken.number, PoolOverloaded(f"too much waits on node {self.name!r} to be sent"))
            self.post.send(taken.host, full, None, full)

    def _refusal(self, number: int, error: SubpoolError) -> bytes:
        return encode([REFUSED, self.own, number, error_data(error)])

    # what comes

    def arrived(self, data: bytes) -> None:
        """A message. Whatever it is, this raises nothing."""
        try:
            message = decode(data)
            if type(message) is not list or len(message) < 3:
                raise ValueError("it is no message")
            kind, host, number, *rest = message
            if type(host) is not str or not _ID.fullmatch(host) or type(number) is not int or number < 1:
                raise ValueError("it has no sender")
            if kind == ASK:
                self._on_ask(host, number, rest)
            elif kind in (UNASK, MORE):
                taken = self._taken.get((host, number))
                if taken is not None:
                    self._on_taken(taken, kind, *rest)
            elif kind in (ANSWER, REFUSED, PART):
                call = self._asked.get(number)
                if call is not None and call.host == host:
                    self._on_call(call, kind, rest)
            else:
                raise ValueError(f"there is no kind {kind!r:.40}")
        except (ValueError, TypeError, RecursionError) as error:
            self._odd(error)

    def _odd(self, error: Exception) -> None:
        now = self.services.loop.time()
        if now >= self._log_at:
            self._log_at = now + LOG_EVERY
            log.warning("a message to node %r from Redis is none of ours: %.200s", self.name, error)

    def _on_ask(self, host: str, number: int, rest: list[Any]) -> None:
        if (host, number) in self._taken:
            return
        try:
            name, args, kwargs, how, credit = rest
            if type(name) is not str or type(args) is not list or type(kwargs) is not dict:
                raise ValueError("it calls no function")
            if not all(type(key) is str for key in kwargs) or how not in (0, f.STREAM, f.CAST):
                raise ValueError("it calls no function")
            taken = FarAsked(self, host, number, name, how, _count(credit, 0))
            arguments = pack_arguments(name, tuple(args), kwargs)
        except (ValueError, TypeError):
            data = self._refusal(number, SubpoolError(f"node {self.name!r} cannot read the call"))
            self.post.send(host, data, None, None)
            raise
        if self._closed:
            self.refuse(taken, PoolClosed(f"node {self.name!r} ends"))
        elif len(self._taken) >= MOST:
            self.refuse(taken, PoolOverloaded(f"{MOST} calls of others are under way on node {self.name!r} already"))
        else:
            self._taken[host, number] = taken
            self.services.ask(taken, arguments)

    def _on_taken(self, taken: FarAsked, kind: int, count: Any = None) -> None:
        if kind == MORE:
            taken.more(_count(count, 1))
        else:
            self.forget(taken)
            taken.cancel()

    def _on_call(self, call: FarCall, kind: int, rest: list[Any]) -> None:
        asked = call.asked
        if kind == PART:
            if not call.takes_item() or len(rest) != 1:
                raise ValueError(f"an item of {asked.name!r} that was not asked for")
            asked.item(pack(f"an item of {asked.name!r}", rest[0]))
            return
        self.drop(call)
        try:
            if kind == REFUSED:
                error = from_wire(tuple(rest[0]))
                if isinstance(error, UnknownFunction):
                    error = UnknownFunction(f"node {call.node!r}: {error}")
                asked.refuse(error)
            elif rest or call.valued:
                asked.answer(pack(f"the answer of {asked.name!r}", rest[0]))
            else:
                asked.answer(None)
        except (ValueError, TypeError, LookupError) as error:
            asked.refuse(SubpoolError(f"what node {call.node!r} answered to {asked.name!r} cannot be read: {error}"))

    # who lives

    def look(self, seen: Callable[[list[str] | SubpoolError], None]) -> None:
        """The names of those that live now."""

        def looked(living: Living | None) -> None:
            if living is None:
                seen(BusUnavailable("the connection to Redis broke"))
            else:
                self._living = living
                seen(self.names())

        if self.post.up:
            self.post.look(looked)
        else:
            seen(BusUnavailable("the Redis of the option bus cannot be reached"))

    def beat(self, living: Living) -> None:
        """The same, once a second: who is missing twice has gone."""
        self._living = living
        lost = self._missing - living.keys()
        for call in list(self._asked.values()):
            if call.host in lost:
                self._fail(call, NodeLost(f"node {call.node!r} has gone; whether {call.asked.name!r} ran is unknown"))
        for taken in list(self._taken.values()):
            if taken.host in lost and not taken.how & f.CAST:
                self.forget(taken)
                taken.cancel()
        hosts = {call.host for call in self._asked.values()} | {host for host, _ in self._taken}
        self._missing = {host for host in hosts if host is not None} - living.keys()

    def broken(self) -> None:
        """A connection of ours broke. Casts go on."""
        self._missing.clear()
        for call in list(self._asked.values()):
            ran = (
                f"whether {call.asked.name!r} ran on node {call.node!r} is unknown" if call.host else "nothing was sent"
            )
            if not call.cast:
                self.unask(call)
            self._fail(call, BusUnavailable(f"the connection to Redis broke; {ran}"))
        for taken in list(self._taken.values()):
            if not taken.how & f.CAST:
                self._end(taken, BusUnavailable(f"node {self.name!r} lost its connection to Redis"))

    def close(self) -> None:
        """This host ends: nobody waits any longer."""
        self._closed = True
        for call in list(self._asked.values()):
            self.unask(call)
            self._fail(call, PoolClosed("the pool is closed"))
        for taken in list(self._taken.values()):
            self._end(taken, PoolClosed(f"node {self.name!r} ends"))

    def _fail(self, call: FarCall, error: SubpoolError) -> None:
        self.drop(call)
        call.asked.refuse(error)

    def _end(self, taken: FarAsked, error: SubpoolError) -> None:
        running = taken.running
        taken.refuse(error)
        if running is not None:
            running.cancel()


def _count(value: Any, least: int) -> int:
    if type(value) is not int or not least <= value <= MOST_AHEAD:
        raise ValueError("it asks for no number of items")
    return value


def _encoded(what: str, message: list[Any], most: int) -> bytes:
    """A message as bytes. `AppError` if it cannot leave the machine."""
    try:
        data = encode(message)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise AppError("TypeError", f"{what} cannot leave the machine: {error}") from None
    if len(data) > most + ENVELOPE:
        raise AppError("ValueError", f"{what} takes {len(data)} bytes; {most} are the most between machines")
    return data
