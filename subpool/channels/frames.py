"""Frames: what crosses a channel, and the one codec for them.

A frame is a plain tuple that begins with its opcode; a batch is a list of frames, and one `marshal` string. Tuples, not
dataclasses: a frozen dataclass costs more to make than everything else that a small request costs on its way, and
`marshal` carries exact tuples alone. `LAYOUT` says what each holds, `describe` prints one.

`marshal` carries None, bool, int, float, complex, str, bytes, tuple, list, dict, set and frozenset of these, and with
`allow_code=False` nothing else: nothing is unpickled on either side.

Large bodies do not go inside a frame: from `LOAN_SIZE` bytes on they follow their batch as items of their own (see
`lane`), and the frame holds a `LOAN` in their place.
"""

from __future__ import annotations

import marshal
from typing import Any, Final

Frame = tuple[Any, ...]

VERSION: Final = 2  # of marshal: without references between objects, which cost half as much again in small frames

LOAN_SIZE: Final = 16 * 1024  # bytes; below, copying inside the batch is cheaper than an item of its own
LOAN: Final = False  # stands where a body would: the next lent item is it

# What is sent together, which saves wake-ups while every call is short: see docs/design.md, "Channels".
CALM: Final = 20000  # calls without a long one after which a worker counts as calm, for the host and for itself
ITEM: Final = 4  # calls in one item of work to a calm worker: what shares an item cannot be taken back apart
TOGETHER: Final = 8  # answers that a calm worker sends at a time
UNTOLD: Final = TOGETHER - 1 + ITEM  # calls that a calm worker may have begun while the host knows of none of them

OVERHEAD: Final = 64  # bytes that a WebSocket message counts beyond its own, where it is sent ahead

# host to worker, on the work lane
CALL_ASGI, CALL_WSGI, CALL_EXCHANGE, CALL_FUNCTION, CALL_HTTP, CALL_WEBSOCKET = 1, 2, 3, 4, 5, 6
CALL_HELP = 7
# host to worker, on the flow lane
PING, EVENT, ACK, CANCEL, GONE, STOP, RETURNED = 9, 10, 11, 12, 13, 14, 15
# host to worker's steward, on the control lane
INTERRUPT, GIVE_BACK, HALT, SETUP, BEAT = 16, 17, 18, 19, 35
# worker to host
REPLY, ERROR, STARTED, WANT, MESSAGE, END = 20, 21, 22, 23, 24, 25
LOG, READY, FAILED, BYE, LENT_BACK, GIVEN_BACK, INTERRUPTED, PONG, WIRE = 26, 27, 28, 29, 30, 31, 32, 33, 34
BEATEN, TAKEN = 36, 37
# worker to host: functions and topics of the host (`services`)
ASK, UNASK, MORE, PUBLISH, SUBSCRIBE, HEARD, ASK_NODE, NODES = 40, 41, 42, 43, 44, 45, 46, 47
# and the answers, on the flow lane, or on the control lane where a thread is blocked
ANSWER, REFUSED, PART, NEWS = 48, 49, 50, 51

BLOCKED: Final = 1  # in `how`: a thread waits, so the answer goes to the steward; else to the loop
STREAM: Final = 2  # the answer is many items
CAST: Final = 4  # nobody waits for the answer

LAYOUT: Final[dict[int, tuple[str, ...]]] = {
    CALL_ASGI: ("CALL_ASGI", "id", "app", "runner", "head", "body"),
    CALL_WSGI: ("CALL_WSGI", "id", "app", "runner", "environ", "body"),
    CALL_EXCHANGE: ("CALL_EXCHANGE", "id", "app", "runner", "head", "body"),
    CALL_FUNCTION: ("CALL_FUNCTION", "id", "function", "arguments"),
    # `namespace`: the state's, of a mount that has another than its pool. Answered in WIRE frames; see `worker.http`
    CALL_HTTP: ("CALL_HTTP", "id", "app", "namespace", "request", "body"),
    CALL_WEBSOCKET: ("CALL_WEBSOCKET", "id", "app", "namespace", "head", "ahead"),  # an exchange; takes no call's place
    CALL_HELP: ("CALL_HELP", "id", "name", "spec", "method", "arguments"),  # to the host's helper: see `worker.helping`
    PING: ("PING",),  # say something as soon as the loop runs
    EVENT: ("EVENT", "id", "message", "data"),  # an ASGI event for `receive()`; `data` is its body. None: see TAKEN
    ACK: ("ACK", "id", "size"),  # that many bytes of the answer were consumed
    CANCEL: ("CANCEL", "id"),  # nobody waits for the answer any more
    GONE: ("GONE", "id"),  # the client has left: `http.disconnect`
    STOP: ("STOP", "seconds", "all"),  # finish what runs, for at most so long, shut the app down, end; all workers do
    RETURNED: ("RETURNED", "count"),  # that many of the worker's loans were released
    BEAT: ("BEAT", "measure"),  # are you there? and how much memory have you allocated?
    BEATEN: ("BEATEN", "allocated"),  # yes; so many bytes, None if not asked or not known
    INTERRUPT: ("INTERRUPT", "id"),
    GIVE_BACK: ("GIVE_BACK",),  # return the calls that were not begun
    SETUP: ("SETUP", "setup"),  # the first word to a worker in a process
    HALT: ("HALT",),  # end the steward
    REPLY: ("REPLY", "id", "status", "headers", "body"),
    ERROR: ("ERROR", "id", "error"),
    STARTED: ("STARTED", "id"),  # the app began to run it and waits for something
    WANT: ("WANT", "id"),  # the app waits in `receive()`
    MESSAGE: ("MESSAGE", "id", "message", "data"),  # an ASGI event of `send()`; `data` is its body. None: see TAKEN
    # Of a WebSocket with `ahead`: so many bytes of messages are sent before the app asks (there is no WANT), and TAKEN
    # says how many messages it took. EVENT and MESSAGE without `message` are messages: `data` is text or bytes.
    TAKEN: ("TAKEN", "id", "count"),
    END: ("END", "id"),  # the app has returned
    LOG: ("LOG", "record"),
    READY: ("READY", "info"),
    FAILED: ("FAILED", "error"),  # the worker could not start
    BYE: ("BYE", "threads"),  # the worker's last word: the threads that the app left running
    LENT_BACK: ("LENT_BACK", "count"),  # that many of the host's loans were released
    GIVEN_BACK: ("GIVEN_BACK", "ids"),
    PONG: ("PONG",),
    # bytes for the socket, in three parts of which `body` may be a loan, or the (offset, count) of a part of a
    # file, whose descriptor then is the loan; `flags` are those of `wire`; of so many bytes is the response's body
    WIRE: ("WIRE", "id", "status", "flags", "head", "body", "tail", "size"),
    INTERRUPTED: ("INTERRUPTED", "id", "hit"),  # whether the call was on its thread, and has been interrupted
    # Functions: an id is the worker's own. Arguments, answers and messages are `marshal` strings that the host only
    # passes on. `credit`: so many items of a stream may come; MORE adds to it.
    ASK: ("ASK", "id", "function", "arguments", "how", "credit"),
    ASK_NODE: ("ASK_NODE", "id", "function", "arguments", "how", "credit", "node"),  # the same, on another host
    NODES: ("NODES", "id", "how"),  # answered with the names of the hosts that live
    UNASK: ("UNASK", "id"),  # nobody waits for it any more
    MORE: ("MORE", "id", "count"),
    ANSWER: ("ANSWER", "id", "data"),  # the end of a stream without data
    REFUSED: ("REFUSED", "id", "error"),
    PART: ("PART", "id", "data"),  # an item of a stream
    # Topics: the worker says how many subscribers it has by a topic and a `how`, and how much of what came it has
    # passed on to them (HEARD). `missed`: so many messages were dropped before this one.
    SUBSCRIBE: ("SUBSCRIBE", "topic", "how", "count", "id"),  # answered when it counts; id 0: not answered
    PUBLISH: ("PUBLISH", "id", "topic", "message", "how"),  # answered with the number of subscribers
    NEWS: ("NEWS", "topic", "how", "message", "missed"),
    HEARD: ("HEARD", "topic", "how", "weight"),
}


def encode(frames: list[Frame]) -> bytes:
    """`frames` as bytes. `ValueError` if one holds something that `marshal` does not carry."""
    return marshal.dumps(frames, VERSION)


def decode(data: bytes) -> list[Frame]:
    """The frames that `encode` was given."""
    return marshal.loads(data, allow_code=False)  # type: ignore[no-any-return]


def describe(frame: Frame) -> str:
    """`frame` for a reader: `REPLY(id=3, status=200, ...)`."""
    name, *fields = LAYOUT.get(frame[0], (f"?{frame[0]}",))
    values = [repr(value) if len(repr(value)) < 60 else repr(value)[:57] + "..." for value in frame[1:]]
    named = [f"{field}={value}" for field, value in zip(fields, values, strict=False)]
    return f"{name}({', '.join(named + values[len(fields) :])})"
