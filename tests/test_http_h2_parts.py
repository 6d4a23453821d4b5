"""The parts of HTTP/2 that need no connection: the guard against floods, header lists, their compression."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

pytest.importorskip("h2")
pytest.importorskip("pydantic")

import hpack
from h2_kit import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
)

from subpool.channels.exchange import AppProtocolError
from subpool.http.config import ServerConfig
from subpool.http.h2_guard import BUDGET, REFILL, RESET, Flood, Guard
from subpool.http.h2_headers import Familiar, Malformed, Refused, Request, parse
from subpool.http.h2_library import Decoder, Encoder
from subpool.wire2 import UNKNOWN, fields
from subpool.worker.http import split

ACK = 1
TALK = [
    frame(SETTINGS),
    frame(SETTINGS, ACK),
    frame(HEADERS, END_HEADERS | END_STREAM, 1, b"h" * 30),
    frame(DATA, 0, 1, b"d" * 700),
    frame(HEADERS, 0, 3, b"h" * 20),
    frame(CONTINUATION, 0, 3, b"c" * 20),
    frame(CONTINUATION, END_HEADERS, 3, b"c" * 20),
    frame(PING, ACK, 0, b"12345678"),
    frame(DATA, END_STREAM, 1),
    frame(GOAWAY, 0, 0, b"g" * 8),
    frame(WINDOW_UPDATE, 0, 0, b"1234"),
    frame(HEADERS, END_HEADERS, 5),
]


def guard(**options: Any) -> Guard:
    return Guard(options.get("block", 1000), 0.0)


def ends(frames: list[bytes]) -> list[int]:
    """Where header blocks and GOAWAY end, counted from the first byte of the connection."""
    found, at = [], len(PREFACE)
    for one in frames:
        at += len(one)
        if one[3] == GOAWAY or (one[3] in (HEADERS, CONTINUATION) and one[4] & END_HEADERS):
            found.append(at)
    return found


@given(st.lists(st.sampled_from(TALK), max_size=30), st.data())
def test_the_guard_cuts_at_the_same_places_however_bytes_come(frames: list[bytes], data: st.DataObject) -> None:
    stream = PREFACE + b"".join(frames)
    if data.draw(st.booleans()):
        places = list(range(len(stream)))
    else:
        places = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=40)))
    looking, found, at = guard(), set(), 0
    for place in [*places, len(stream)]:
        found |= {at + cut for cut in looking.look(stream[at:place], 0.0)}
        at = place
    more = found - set(ends(frames))
    assert found >= set(ends(frames))
    assert len(more) <= sum(one[3] == GOAWAY for one in frames)  # before it is cut too, where it came whole


def test_the_budget_is_refilled_by_time() -> None:
    looking = guard()
    looking.look(PREFACE, 0.0)
    reset = frame(RST_STREAM, 0, 1, b"\0\0\0\x08")
    looking.look(reset * (BUDGET // RESET), 0.0)
    with pytest.raises(Flood):
        looking.look(reset, 0.0)
    looking = guard()
    looking.look(PREFACE + reset * (BUDGET // RESET), 0.0)
    looking.look(reset * (REFILL // RESET), 1.0)
    looking.look(reset * (BUDGET // RESET), 1000.0)
    with pytest.raises(Flood):
        looking.look(reset, 1000.0)


def test_the_budget_is_refilled_by_use() -> None:
    looking = guard()
    looking.look(PREFACE, 0.0)
    for _ in range(BUDGET):
        looking.look(frame(RST_STREAM, 0, 1, b"\0\0\0\x08"), 0.0)
        looking.earn(RESET)
    looking.spend(BUDGET + 1)
    with pytest.raises(Flood):
        looking.look(frame(PING, 0, 0, b"12345678"), 0.0)


def test_data_and_acknowledgements_are_free() -> None:
    looking = guard()
    looking.look(PREFACE, 0.0)
    for piece in (frame(DATA, 0, 1, b"x"), frame(PING, ACK, 0, b"12345678"), frame(SETTINGS, ACK)):
        looking.look(piece * 3 * BUDGET, 0.0)


@pytest.mark.parametrize("pieces", [1, 30])
def test_a_header_block_has_a_limit(pieces: int) -> None:
    looking = guard(block=3000)
    looking.look(PREFACE + frame(HEADERS, 0, 1, b"x" * 1000), 0.0)
    with pytest.raises(Flood):
        looking.look(frame(CONTINUATION, 0, 1, b"x" * (2001 // pieces + 1)) * pieces, 0.0)


def test_a_frame_has_a_limit() -> None:
    with pytest.raises(Flood) as caught:
        guard().look(PREFACE + frame(DATA, 0, 1, b"x" * 16385)[:9], 0.0)
    assert caught.value.code == 6


# header lists


CONFIG = ServerConfig(app="m:a")
GOOD = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a.test"), (b":path", b"/x?y")]


def parsed(*pairs: tuple[bytes, bytes]) -> Request:
    request = Request()
    parse(pairs, request, CONFIG)
    return request


def test_what_a_request_says() -> None:
    more = [(b"cookie", b"a"), (b"expect", b"100-Continue"), (b"cookie", b"b"), (b"content-length", b"7")]
    request = parsed(*GOOD, *more)
    assert (request.method, request.target, request.length, request.expect) == ("GET", b"/x?y", 7, True)
    assert (request.protocol, request.forwarded) == (None, False)
    assert request.headers == [
        (b"host", b"a.test"), (b"expect", b"100-Continue"), (b"content-length", b"7"), (b"cookie", b"a; b"),
    ]  # fmt: skip
    assert parsed(*GOOD, (b"forwarded", b"for=192.0.2.1")).forwarded
    connect = [(b":method", b"CONNECT"), (b":protocol", b"websocket"), *GOOD[1:]]
    assert parsed(*connect).protocol == b"websocket"


@given(st.lists(st.tuples(st.binary(max_size=12), st.binary(max_size=12)), max_size=6))
def test_anything_is_a_request_or_refused(pairs: list[tuple[bytes, bytes]]) -> None:
    pairs = [pair for pair in pairs if pair[0] != b"content-length"]  # the library has checked it
    try:
        request = parsed(*GOOD, *pairs)
    except (Malformed, Refused):
        return
    for name, value in request.headers:
        assert name == name.lower()
        assert name.strip()
        assert not set(b"\0\r\n") & set(name + value)


@given(st.binary(max_size=20))
def test_any_path_is_a_path_or_refused(path: bytes) -> None:
    try:
        request = parsed(*GOOD[:3], (b":path", path))
    except (Malformed, Refused):
        return
    assert request.target.startswith(b"/")
    assert not set(b" \0\r\n\t#") & set(request.target)


PAIR = st.sampled_from(
    [*GOOD, (b":path", b"/z"), (b":path", b"no"), (b":path", b"/" + b"p" * 9000), (b"x-one", b"1"), (b"x-one", b"a b"),
     (b"cookie", b"c"), (b"expect", b"100-continue"), (b"forwarded", b"for=192.0.2.1"), (b"X", b"bad")]
)  # fmt: skip


def outcome(request: Request) -> dict[str, Any]:
    return {name: getattr(request, name) for name in Request.__slots__ if name not in ("block", "room")}


@given(st.lists(st.lists(PAIR, max_size=7), max_size=8))
def test_what_is_familiar_is_what_it_would_be_anyway(many: list[list[tuple[bytes, bytes]]]) -> None:
    known = Familiar()
    for more in many:
        pairs = more if more[:1] == GOOD[:1] else [*GOOD, *more]
        for _ in range(2):
            found = known.find(pairs)
            try:
                request = parsed(*pairs)
            except (Malformed, Refused):
                assert found is None
                continue
            if found is None:
                known.learn(pairs, request)
            else:
                assert outcome(found) == outcome(request)
                assert found.block is not None
                assert split(found.block) == request.headers


def test_a_target_that_does_not_fit_is_not_familiar() -> None:
    known = Familiar()
    known.learn(GOOD, parsed(*GOOD))
    assert known.find(GOOD)
    for path in (b"/" + b"x" * 8190, b"/a b", b"", b"*"):
        assert known.find([*GOOD[:3], (b":path", path)]) is None


# compression


HEADER = st.tuples(st.sampled_from([b"a", b"b", b":status", b"x" * 40]), st.sampled_from([b"", b"1", b"y" * 300]))
LISTS = st.lists(st.one_of(st.lists(HEADER, max_size=4), st.integers(0, 400)), max_size=30)


@example([0, [], 33, 33, [(b"a", b"")]])
@given(LISTS)
def test_what_is_encoded_once_is_understood_again(steps: list[Any]) -> None:
    """Header lists, and sizes of the table."""
    ours, theirs = Encoder(), hpack.Decoder()
    for step in steps:
        if isinstance(step, int):
            ours.header_table_size = step
        else:
            for _ in range(3):
                assert list(theirs.decode(ours.encode(step), raw=True)) == step


@given(LISTS, st.data())
def test_what_was_decoded_once_is_decoded_alike(steps: list[Any], data: st.DataObject) -> None:
    theirs, ours = hpack.Encoder(), Decoder(65536)
    for step in steps:
        if isinstance(step, int):
            theirs.header_table_size = step
            continue
        for _ in range(3):
            never = data.draw(st.booleans())
            block = theirs.encode([(name, value, never) for name, value in step])
            assert list(ours.decode(block, raw=True)) == step


def test_what_a_response_says() -> None:
    found = fields([(b"X-One", b" 1 "), (b"Connection", b"close"), (b"set-cookie", b"a")])
    ours = [(b"x-one", b"1"), (b"set-cookie", b"a")]
    assert found.head(200, UNKNOWN, False, b"us") == [(b":status", b"200"), *ours, (b"server", b"us")]
    assert found.head(404, 5, False, b"") == [(b":status", b"404"), *ours, (b"content-length", b"5")]
    assert dict(fields([]).head(200, UNKNOWN, True, b"")).keys() == {b":status", b"date"}
    mine = [(b"date", b"mine"), (b"server", b"mine"), (b"content-length", b"7")]
    assert fields(mine).head(200, 7, True, b"us") == [(b":status", b"200"), *mine]


def test_responses_of_one_kind_do_not_share() -> None:
    headers = [(b"x", b"y")]
    first = fields(headers).head(200, 5, False, b"")
    assert fields(headers).head(200, 6, False, b"") != first
    assert fields(headers).pairs == headers


@pytest.mark.parametrize("name", [b"a b", b":status", b"a:b", b"\xc3\xa9"])
def test_names_that_no_response_may_have(name: bytes) -> None:
    with pytest.raises(AppProtocolError, match="no name"):
        fields([(name, b"x")])
