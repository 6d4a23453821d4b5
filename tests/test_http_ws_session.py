"""WebSocket without sockets: frames and messages, compression, and one session between stand-ins for both its sides."""

from __future__ import annotations

import itertools
import struct
import zlib
from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ws_client import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, deflated, frame

pytest.importorskip("wsproto")
pytest.importorskip("pydantic")

OFFER = "permessage-deflate"


def messages(limit: int = 1 << 20, offer: str | None = None) -> Any:
    from subpool.http.ws_deflate import negotiate
    from subpool.http.ws_messages import Messages

    if offer is None:
        return Messages(limit)
    agreed = negotiate([offer], limit)
    assert agreed is not None
    return Messages(limit, agreed[0])


def unframed(data: bytes) -> list[tuple[int, bytes]]:
    """The frames of a server: first byte and payload."""
    found = []
    while data:
        size, at = data[1], 2
        if size == 126:
            size, at = struct.unpack_from("!H", data, 2)[0], 4
        elif size == 127:
            size, at = struct.unpack_from("!Q", data, 2)[0], 10
        found.append((data[0], data[at : at + size]))
        data = data[at + size :]
    return found


# compression


@pytest.mark.parametrize(
    ("offers", "answer"),
    [
        ([OFFER], f"{OFFER}; server_max_window_bits=12"),
        (["x-other; a=1", f"{OFFER}; client_max_window_bits"], f"{OFFER}; server_max_window_bits=12"),
        ([f"{OFFER}; client_max_window_bits=8"], f"{OFFER}; server_max_window_bits=12"),
        ([f'{OFFER}; server_max_window_bits="10"'], f"{OFFER}; server_max_window_bits=10"),
        ([f"{OFFER};server_max_window_bits=15"], f"{OFFER}; server_max_window_bits=12"),
        ([f"{OFFER}; server_max_window_bits=8"], None),
        ([f"{OFFER}; server_max_window_bits=8", OFFER], f"{OFFER}; server_max_window_bits=12"),
        ([f"{OFFER}; server_max_window_bits"], None),
        ([f"{OFFER}; server_max_window_bits=16"], None),
        ([f"{OFFER}; server_max_window_bits=010"], None),
        ([f"{OFFER}; client_max_window_bits=many"], None),
        ([f"{OFFER}; client_no_context_takeover=1"], None),
        ([f"{OFFER}; unknown"], None),
        ([f"{OFFER}; client_no_context_takeover; client_no_context_takeover"], None),
        ([f"{OFFER}; client_no_context_takeover; server_no_context_takeover"],
         f"{OFFER}; server_max_window_bits=12; server_no_context_takeover; client_no_context_takeover"),
        ([], None),
        (["", ";", "="], None),
    ],
)  # fmt: skip
def test_what_is_agreed_on(offers: list[str], answer: str | None) -> None:
    from subpool.http.ws_deflate import negotiate

    agreed = negotiate(offers, 1000)
    assert (agreed[1] if agreed is not None else None) == answer


CONTENT = st.one_of(st.text(max_size=60), st.binary(max_size=60)).map(lambda content: content * 3)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(CONTENT, st.booleans(), st.lists(st.integers(0, 40), max_size=3)), max_size=8),
    st.sampled_from([None, OFFER, f"{OFFER}; client_no_context_takeover; server_no_context_takeover"]),
    st.integers(1, 500),
)
def test_any_messages_in_any_frames(contents: list[Any], offer: str | None, piece: int) -> None:
    """Each compressed or not, cut somewhere, with a ping between its frames; and bytes that come in any pieces."""
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    data, expected = b"", []
    for content, compressed, cuts in contents:
        opcode, payload = (TEXT, content.encode()) if isinstance(content, str) else (BINARY, content)
        expected.append((content, len(payload)))
        rsv = 0
        if compressed and offer is not None:
            payload, rsv = (deflater.compress(payload) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4], 4
            if "client_no_context_takeover" in offer:
                deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
        bounds = [*sorted({min(cut, len(payload)) for cut in cuts} | {0}), len(payload)]
        for number, (start, end) in enumerate(itertools.pairwise(bounds), 2):
            data += frame(opcode, payload[start:end], fin=number == len(bounds), rsv=rsv) + frame(PING, b"?")
            opcode, rsv = CONTINUATION, 0
    here = messages(offer=offer)
    found = []
    for start in range(0, len(data), piece):
        here.feed(data[start : start + piece])
        found += [(content, size) for kind, content, size in here if kind not in ("ping", "piece")]
    assert found == expected
    inflater = zlib.decompressobj(-12)
    for content, _ in expected:
        ((first, payload),) = unframed(here.text(content) if isinstance(content, str) else here.binary(content))
        assert first & 15 == (TEXT if isinstance(content, str) else BINARY)
        assert (first & 0x40 != 0) is (offer is not None and len(content) > 0)
        if first & 0x40:
            payload = inflater.decompress(payload + b"\0\0\xff\xff")
            if offer is not None and "server_no_context_takeover" in offer:
                inflater = zlib.decompressobj(-12)
        assert payload == (content.encode() if isinstance(content, str) else content)


def test_inflating_stops_at_the_limit() -> None:
    from subpool.http.ws_deflate import negotiate

    agreed = negotiate([OFFER], 1000)
    assert agreed is not None
    inflate = agreed[0]._inflate
    here = messages(1000, OFFER)
    here.feed(frame(BINARY, deflated(b"\0" * 1000), rsv=4) + frame(BINARY, deflated(b"\0" * 10_000_000), rsv=4))
    assert [(kind, size) for kind, _, size in here] == [("binary", 1000), ("failed", 1009)]
    assert list(here) == []
    agreed[0]._inflater = zlib.decompressobj(-15)
    assert inflate(deflated(b"\0" * 10_000_000)) == 1009
    assert agreed[0]._size == 1001


def test_a_message_may_end_with_a_final_block() -> None:
    """RFC 7692, section 7.2.3.4; and nothing may be behind it."""
    final = zlib.compressobj(9, zlib.DEFLATED, -15)
    payload = final.compress(b"hello") + final.flush()
    here = messages(offer=OFFER)
    here.feed(frame(TEXT, payload + b"\0", rsv=4) + frame(TEXT, deflated(b"again"), rsv=4))
    assert [content for _, content, _ in here] == ["hello", "again"]
    here = messages(offer=OFFER)
    here.feed(frame(TEXT, payload + b"more", rsv=4))
    assert [(kind, size) for kind, _, size in here] == [("failed", 1007)]


def test_empty_fragments_cost_nothing() -> None:
    here = messages()
    here.feed(frame(TEXT, b"a", fin=False))
    assert len(list(here)) == 1
    for _ in range(1000):
        here.feed(frame(CONTINUATION, b"", fin=False))
        assert [kind for kind, _, _ in here] == ["piece"]
    assert here._parts.getvalue() == "a"
    here.feed(frame(CONTINUATION, b"b"))
    assert list(here) == [("text", "ab", 2)]


def test_frames_are_taken_in_as_far_as_one_iterates() -> None:
    here = messages()
    here.feed(b"".join(frame(TEXT, b"%d" % number) for number in range(5)) + frame(CLOSE, b"\x0f\xa1bye"))
    for number in range(3):
        assert next(iter(here)) == ("text", str(number), 1)
    assert here.open
    assert [content for _, content, _ in here] == ["3", "4", "bye"]
    assert not here.open
    assert unframed(here.close(4001, "bye")) == [(0x80 | CLOSE, b"\x0f\xa1bye")]
    assert here.close(4001, "bye") == b""
    here.feed(frame(TEXT, b"behind the end"))
    assert list(here) == []


# one session


class Carrier:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.deadline = float("inf")
        self.log: list[Any] = []
        self.waiting = 0

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *args: self.log.append((name, *args))

    def unsent(self) -> int:
        return self.waiting

    def taken(self) -> list[Any]:
        log, self.log = self.log, []
        return log


class Worker:
    """Stands in for the engine, the worker and its link."""

    def __init__(self) -> None:
        self.closing = False
        self.refusal: Exception | None = None
        self.begin = True
        self.options = SimpleNamespace(app="app")
        self.link = self
        self.events: list[Any] = []
        self.flows: list[Any] = []
        self.speaking: list[Any] = []
        self.recalled: list[Any] = []
        self.clock = SimpleNamespace(begin=lambda call: None)
        self.returned = 0

    def submit(self, call: Any) -> None:
        if self.refusal is not None:
            raise self.refusal
        if self.begin:
            self.started(call)

    def started(self, call: Any) -> None:
        from subpool.hostcall import STARTED

        call.state, call.member = STARTED, self

    def send_event(self, call: Any, message: Any, data: Any) -> None:
        self.events.append(("receive" if message is None else message["type"].removeprefix("websocket."), data))

    def recall(self, call: Any) -> bool:
        from subpool.hostcall import DONE, PENDING

        if call.state == PENDING:
            self.recalled.append(call)
            call.state = DONE
        return bool(call.state == DONE)

    def flow(self, frame: Any) -> None:
        self.flows.append(frame)

    def give_back(self, loan: memoryview) -> None:
        loan.release()
        self.returned += 1

    def taken(self) -> list[Any]:
        events, self.events = self.events, []
        return events


class Stage:
    """A session, and both its sides."""

    def __init__(self, *, begin: bool = True, refusal: Exception | None = None, **options: Any) -> None:
        from subpool.http.config import ServerConfig
        from subpool.http.front import Mount
        from subpool.http.ws_session import Session

        self.soon: list[Any] = []
        self.front: Any = SimpleNamespace(
            now=100.0, draining=False, requests=0, config=ServerConfig(app="app:app", **options),
            loop=SimpleNamespace(call_soon=self.soon.append),
        )  # fmt: skip
        self.worker: Any = Worker()
        self.worker.begin, self.worker.refusal = begin, refusal
        self.carrier: Any = Carrier()
        scope = {"type": "websocket", "path": "/", "raw_path": b"/", "subprotocols": ["a"]}
        mount = Mount("", self.worker, None, 30.0, None)
        self.session = Session(self.front, mount, self.carrier, 7, scope, [OFFER])
        self.session.begin()

    def send(self, kind: str, data: Any = None, **fields: Any) -> None:
        """The app sends, nothing else with it."""
        self.session.message(None if kind == "send" else {"type": f"websocket.{kind}", **fields}, data)
        self.spoken()

    def spoken(self) -> None:
        """All that came together was passed on."""
        speaking, self.worker.speaking = self.worker.speaking, []
        for call in speaking:
            call.flush()

    def turns(self) -> int:
        """Let the loop turn until nothing is left to do; how often that was."""
        count = 0
        while self.soon:
            soon, self.soon[:] = list(self.soon), []
            for callback in soon:
                callback()
            count += 1
        return count

    def accept(self) -> None:
        self.send("accept", subprotocol=None, headers=[])
        assert self.carrier.taken() == [("accept", [])]


def test_a_pool_that_refuses() -> None:
    from subpool import PoolClosed, PoolOverloaded

    stage = Stage(refusal=PoolOverloaded("full"), begin=False)
    assert stage.carrier.taken() == [
        ("refuse", 503, "too many WebSockets, or requests that wait", [(b"retry-after", b"1")])
    ]
    stage = Stage(refusal=PoolClosed("closed"), begin=False)
    assert stage.carrier.taken() == [("refuse", 503, "not available", [])]


def test_an_app_that_has_not_begun_is_not_run() -> None:
    stage = Stage(begin=False)
    stage.session.left()
    assert stage.worker.recalled == [stage.session]
    assert stage.worker.taken() == []


def test_an_app_that_may_have_begun_is_told() -> None:
    """And again if it was given to another worker meanwhile; nothing of it reaches the client."""
    from subpool.channels.frames import GONE
    from subpool.hostcall import SENT

    stage = Stage(begin=False)
    stage.worker.started(stage.session)
    stage.session.state = SENT
    stage.session.left()
    told = [("disconnect", None)]
    assert (stage.worker.taken(), stage.worker.flows, stage.worker.recalled) == (told, [(GONE, 7)], [])
    stage.session.taken(0)
    assert stage.worker.taken() == []
    stage.session.member = other = Worker()  # type: ignore[assignment]
    other.events = stage.worker.events
    stage.send("accept", subprotocol=None, headers=[])
    assert (stage.worker.taken(), other.flows) == (told, [(GONE, 7)])
    assert stage.carrier.taken() == []


def test_loans_are_given_back_at_once() -> None:
    stage = Stage()
    stage.accept()
    stage.send("send", memoryview(b"x" * 20_000))
    assert stage.worker.returned == 1
    assert stage.carrier.taken() == [("write", b"\x82\x7e" + struct.pack("!H", 20_000) + b"x" * 20_000)]
    stage.session.left()
    stage.send("send", memoryview(b"too late"))
    assert stage.worker.returned == 2
    assert stage.carrier.taken() == []


def test_the_app_hears_what_was_sent_when_there_is_room() -> None:
    from subpool.channels.exchange import WEIGHT
    from subpool.channels.frames import ACK

    stage = Stage()
    stage.accept()
    stage.send("send", b"x" * 60_000)
    assert stage.worker.flows == []  # not for every small message
    stage.send("send", "\u2603" * 10_000)
    assert stage.worker.flows == [(ACK, 7, 70_000 + 2 * WEIGHT)]
    stage.session.full()
    stage.send("send", b"x" * 100_000)
    stage.send("send", "abc")
    assert len(stage.worker.flows) == 1
    stage.session.room()
    assert stage.worker.flows[1:] == [(ACK, 7, 100_003 + 2 * WEIGHT)]


@pytest.mark.parametrize("flood", [frame(PING), frame(CONTINUATION, fin=False)])
def test_a_flood_of_frames_is_looked_at_a_part_at_a_time(flood: bytes) -> None:
    stage = Stage()
    stage.accept()
    stage.session.receive(frame(TEXT, b"a", fin=False) + flood * 600 + frame(CONTINUATION, b"b"))
    assert stage.worker.taken() == []
    assert stage.turns() == 2
    assert stage.carrier.log.count(("write", bytes([0x80 | PONG, 0]))) == (600 if flood == frame(PING) else 0)
    assert stage.carrier.taken()[-1] == ("read_on", True)
    assert stage.worker.taken() == [("receive", "ab")]


def test_only_the_last_ping_waits_for_room() -> None:
    stage = Stage()
    stage.accept()
    stage.session.full()
    for number in range(3):
        stage.session.receive(frame(PING, b"%d" % number))
    assert stage.carrier.taken() == []
    stage.session.room()
    assert stage.carrier.taken() == [("write", bytes([0x80 | PONG, 1]) + b"2")]


def test_a_slow_client_has_time_as_long_as_it_reads() -> None:
    stage = Stage(write_timeout=30.0)
    stage.accept()
    stage.carrier.waiting = 1000
    stage.session.full()
    assert stage.carrier.deadline == 130.0
    stage.front.now, stage.carrier.waiting = 131.0, 900
    stage.session.expired()
    assert stage.carrier.deadline == 161.0
    stage.session.receive(frame(TEXT, b"alive"))
    assert stage.carrier.deadline == 161.0
    stage.front.now = 162.0
    stage.session.expired()
    assert stage.carrier.taken() == [("abort",)]


def test_a_client_that_is_held_back_is_pinged_but_not_given_up() -> None:
    stage = Stage(websocket_idle_timeout=10.0)
    stage.accept()
    stage.session.receive(frame(BINARY, b"x" * 70_000) * 2 + frame(PONG))
    assert stage.carrier.taken() == [("read_on", False)]
    for now in (111.0, 122.0, 133.0):
        stage.front.now = now
        stage.session.expired()
        assert stage.carrier.taken() == [("write", bytes([0x80 | PING, 0]))]
    stage.session.taken(1)
    assert stage.turns() == 1
    assert stage.carrier.taken() == [("read_on", True)]
    assert stage.carrier.deadline == 143.0
    stage.front.now = 144.0
    stage.session.expired()  # it has time to answer from now on
    assert stage.carrier.taken() == [("write", bytes([0x80 | PING, 0]))]
    stage.front.now = 155.0
    stage.session.expired()
    assert [entry[0] for entry in stage.carrier.taken()] == ["write", "close"]
    assert stage.worker.taken()[-1] == ("disconnect", None)


def test_what_waits_is_dropped_when_the_app_closes() -> None:
    """And the client's answer behind it is found."""
    stage = Stage()
    stage.accept()
    stage.session.receive(frame(BINARY, b"x" * 70_000) * 2 + frame(CLOSE, b"\x0f\xa1"))
    stage.send("close", code=4001, reason="")
    assert stage.turns() == 1
    assert stage.carrier.taken() == [
        ("read_on", False), ("write", bytes([0x80 | CLOSE, 2]) + b"\x0f\xa1"), ("write", b""), ("read_on", True),
        ("close", True),
    ]  # fmt: skip
    assert stage.worker.taken() == [("receive", b"x" * 70_000), ("disconnect", None)]


def test_messages_go_ahead_of_the_app_as_far_as_it_keeps_up() -> None:
    from subpool.http.ws_mailbox import AHEAD, HELD

    stage = Stage()
    stage.accept()
    size = AHEAD // 4 - 64
    stage.session.receive(frame(BINARY, b"x" * size) * 5)
    assert len(stage.worker.taken()) == 4
    stage.session.receive(frame(TEXT, b"small"))
    assert stage.worker.taken() == []  # in order, though there would be room for it
    stage.session.taken(1)
    assert stage.worker.taken() == [("receive", b"x" * size)]
    stage.session.taken(2)
    assert stage.worker.taken() == [("receive", "small")]
    assert stage.carrier.taken() == []
    stage.session.receive(frame(BINARY, b"x" * HELD) * 2)
    assert (len(stage.worker.taken()), stage.carrier.taken()) == (1, [("read_on", False)])
    stage.session.taken(4)
    stage.turns()
    assert (len(stage.worker.taken()), stage.carrier.taken()) == (1, [("read_on", True)])


@settings(deadline=None)
@given(st.lists(st.one_of(
    st.tuples(st.sampled_from(["a", "\u00e9", "\u2603", "\U0001f600", b"x"]), st.integers(0, 40_000)),
    st.tuples(st.sampled_from(["", "\U0001f600", b""]), st.integers(1, 2)),
), max_size=60))  # fmt: skip
def test_the_host_never_waits_for_a_word_that_the_worker_does_not_owe(pieces: list[Any]) -> None:
    """A mailbox and a port, whatever is sent: all of it is received, and little of it was ahead at any time."""
    from subpool.channels.frames import TAKEN
    from subpool.http.ws_mailbox import AHEAD, Mailbox
    from subpool.worker.streams import Inbox
    from subpool.worker.websocket import WebSocketPort

    inbox, posted = Inbox(deque()), []
    engine: Any = SimpleNamespace(send_event=lambda call, message, data: inbox.put(data))
    mailbox = Mailbox(engine, None)  # type: ignore[arg-type]
    worker: Any = SimpleNamespace(calls=SimpleNamespace(inbox=lambda call: inbox), post=posted.append)
    port = WebSocketPort(worker, 7, AHEAD)
    sent = [content * times for content, times in pieces]
    largest = 0
    for content in sent:
        size = len(content.encode() if isinstance(content, str) else content)
        largest = max(largest, size)
        mailbox.put(content, size)
    received: list[Any] = []
    while inbox.events:
        assert mailbox._ahead < AHEAD + largest + 64
        with pytest.raises(StopIteration) as stop:
            port.receive().send(None)
        received.append(stop.value.value.get("text", stop.value.value.get("bytes")))
        if posted:
            ((op, call, count),) = posted
            posted.clear()
            assert (op, call) == (TAKEN, 7)
            mailbox.taken(count)
    assert received == sent


def test_what_a_worker_says_at_once_is_written_at_once() -> None:
    stage = Stage()
    stage.accept()
    for data in ("one", b"two"):
        stage.session.message(None, data)
    assert stage.carrier.taken() == []
    stage.spoken()
    assert stage.carrier.taken() == [("write", b"\x81\x03one\x82\x03two")]
    stage.session.message(None, "three")
    stage.session.receive(frame(PING))
    stage.session.message(None, "four")
    stage.session.message({"type": "websocket.close", "code": 1000, "reason": ""}, None)
    stage.spoken()
    data = b"".join(data for _, data in stage.carrier.taken())
    assert [payload for _, payload in unframed(data)] == [b"three", b"", b"four", b"\x03\xe8"]


def test_compression_is_agreed_on_when_it_is_wanted() -> None:
    stage = Stage(websocket_compress=True)
    stage.send("accept", subprotocol="a", headers=[(b"x-mine", b"1")])
    (entry,) = stage.carrier.taken()
    assert [name for name, _ in entry[1]] == [b"sec-websocket-protocol", b"sec-websocket-extensions", b"x-mine"]


def test_what_goes_wrong_in_one_session_stays_there(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage()
    stage.send("accept")  # without its fields: never from a worker
    assert stage.carrier.taken() == [("abort",)]
    assert "could not be served" in caplog.text
    stage = Stage()
    stage.accept()
    stage.carrier.write = None
    stage.send("send", "x")
    assert stage.carrier.taken() == [("abort",)]


def test_all_that_came_is_counted_when_the_client_has_gone() -> None:
    stage = Stage()
    stage.accept()
    stage.session.receive(frame(BINARY, b"x" * 60_000) * 3 + frame(CLOSE))
    kinds = ["receive", "receive", "receive", "disconnect"]
    assert [kind for kind, _ in stage.worker.taken()] == kinds
    for _ in range(3):
        stage.session.taken(1)


def test_a_carrier_that_is_gone_is_not_touched() -> None:
    stage = Stage()
    stage.accept()
    stage.session.receive(frame(PING) * 600)
    stage.carrier.taken()
    stage.session.left()
    stage.turns()
    assert stage.carrier.taken() == []


@pytest.mark.parametrize(("ends", "code"), [(False, 1011), (True, 1012)])
def test_a_worker_that_ends(ends: bool, code: int) -> None:
    from subpool import WorkerLost

    stage = Stage()
    stage.accept()
    stage.front.draining = ends
    stage.session.fail(WorkerLost("killed"))
    assert stage.carrier.taken() == [("write", bytes([0x80 | CLOSE, 2]) + struct.pack("!H", code))]
    assert stage.carrier.deadline == 105.0
    stage.session.expired()
    assert stage.carrier.taken() == [("abort",)]
