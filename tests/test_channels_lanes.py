"""One conformance suite for every kind of lane, then what is particular to each."""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from subpool.channels import frames as f
from subpool.channels.lane import LaneClosed
from subpool.channels.queue_lane import QueueLane
from subpool.channels.socket_lane import SocketLane
from subpool.channels.thread_lane import ThreadLane
from subpool.channels.wakeup import Wakeup

Pair = tuple[Any, Any]

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
frame = st.tuples(st.integers(1, 40), st.integers(0, 2**40), plain)
items = st.lists(
    st.tuples(st.lists(frame, min_size=1, max_size=4), st.lists(st.binary(max_size=300), max_size=3)),
    max_size=6,
)


def queue_pair() -> Pair:
    lane = QueueLane()
    return lane, QueueLane(lane.address())


def thread_pair() -> Pair:
    lane = ThreadLane()
    return lane, lane


def socket_pair() -> Pair:
    ours, theirs = socket.socketpair()
    return SocketLane(ours), SocketLane(theirs)


@pytest.fixture(params=[queue_pair, thread_pair, socket_pair], ids=["queue", "thread", "socket"])
def lanes(request: pytest.FixtureRequest) -> Iterator[Pair]:
    sender, receiver = request.param()
    yield sender, receiver
    receiver.close()
    sender.close()


def readable(lane: Any, seconds: float = 0) -> bool:
    return bool(select.select([lane.fileno()], [], [], seconds)[0])


def test_an_empty_lane_is_silent(lanes: Pair) -> None:
    _, receiver = lanes
    assert not readable(receiver)
    assert receiver.receive() is None


def test_items_arrive_whole_and_in_order(lanes: Pair) -> None:
    sender, receiver = lanes
    sender.send([(f.STARTED, 1), (f.STARTED, 2)])
    sender.send_all([[(f.HALT,)], [(f.REPLY, 3, 200, [(b"a", b"b")], b"body")]])
    assert readable(receiver, 5)
    receiver.clear()
    assert receiver.receive() == ([(f.STARTED, 1), (f.STARTED, 2)], [])
    assert receiver.receive() == ([(f.HALT,)], [])
    assert receiver.receive() == ([(f.REPLY, 3, 200, [(b"a", b"b")], b"body")], [])
    assert receiver.receive() is None
    assert not readable(receiver)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sent=items)
def test_round_trips(lanes: Pair, sent: list[tuple[list[f.Frame], list[bytes]]]) -> None:
    sender, receiver = lanes
    for frames, loans in sent:
        sender.send(frames, loans)
    receiver.clear()
    for frames, loans in sent:
        got = receiver.receive()
        assert got is not None
        assert got[0] == frames
        assert [bytes(loan) for loan in got[1]] == loans
    receiver.clear()
    assert receiver.receive() is None


def test_a_large_loan_from_another_thread(lanes: Pair) -> None:
    sender, receiver = lanes
    body = os.urandom(1 << 20) * 8
    if isinstance(sender, SocketLane):
        thread = threading.Thread(target=sender.send, args=([(f.REPLY, 1, 200, [], f.LOAN)], [body]))
        thread.start()
    else:
        sender.send([(f.REPLY, 1, 200, [], f.LOAN)], [body])
    item = None
    while item is None:
        assert readable(receiver, 5)
        receiver.clear()
        item = receiver.receive()
    (loan,) = item[1]
    assert bytes(loan) == body
    loan.release()
    if isinstance(sender, SocketLane):
        thread.join()


def test_what_is_taken_back_does_not_arrive(lanes: Pair) -> None:
    sender, receiver = lanes
    sender.send_all([[(f.STARTED, n)] for n in range(5)])
    receiver.clear()
    assert receiver.receive() == ([(f.STARTED, 0)], [])
    end = receiver if isinstance(sender, SocketLane) else sender  # a socket gives back at its reading end
    assert end.take_back() == [(f.STARTED, n) for n in range(1, 5)]
    assert receiver.receive() is None
    sender.send([(f.STARTED, 9)])
    receiver.clear()
    assert receiver.receive() == ([(f.STARTED, 9)], [])
    assert receiver.receive() is None


def test_what_cannot_cross_is_refused_at_the_sender(lanes: Pair) -> None:
    sender, receiver = lanes
    with pytest.raises(ValueError, match="unmarshallable"):
        sender.send([(f.REPLY, object())])
    assert receiver.receive() is None


def test_nothing_is_shared(lanes: Pair) -> None:
    sender, receiver = lanes
    value = {"list": [1]}
    sender.send([(f.EVENT, 1, value, None)])
    value["list"].append(2)
    receiver.clear()
    item = receiver.receive()
    assert item is not None
    assert item[0][0][2] == {"list": [1]}


def test_descriptors_come_with_their_frames(lanes: Pair) -> None:
    """Among loans of bytes, in order; they are the receiver's, and nothing is left with the sender or the lane."""
    sender, receiver = lanes
    pipes = [os.pipe() for _ in range(6)]
    ins = [writing for _, writing in pipes]
    sender.send([(f.STARTED, 1)])
    sender.send([(f.WIRE, 1), (f.REPLY, 2, 200, [], f.LOAN), (f.WIRE, 3)], [ins[0], b"body" * 5000, ins[1]])
    sender.send([(f.WIRE, n) for n in range(4)], ins[2:])
    sender.send([(f.HALT,)])
    receiver.clear()
    assert receiver.receive() == ([(f.STARTED, 1)], [])
    got: list[int] = []
    for expected in ([ins[0], b"body" * 5000, ins[1]], ins[2:]):
        item = receiver.receive()
        assert item is not None
        assert [type(loan) is int for loan in item[1]] == [type(loan) is int for loan in expected]
        for loan in item[1]:
            if type(loan) is int:
                got.append(loan)
            else:
                assert bytes(loan) == b"body" * 5000
                loan.release()
    assert receiver.receive() == ([(f.HALT,)], [])
    for number, ((reading, _), writing) in enumerate(zip(pipes, got, strict=True)):
        assert not os.get_inheritable(writing)
        os.write(writing, b"%d" % number)
        os.close(writing)
        assert os.read(reading, 10) == b"%d" % number
        assert os.read(reading, 10) == b""  # nobody else has it
        os.close(reading)


@pytest.mark.parametrize("make", [queue_pair, thread_pair, socket_pair], ids=["queue", "thread", "socket"])
def test_a_descriptor_for_nobody_is_closed(make: Callable[[], Pair]) -> None:
    sender, receiver = make()
    reading, writing = os.pipe()
    if isinstance(sender, QueueLane):
        sender, receiver = receiver, sender  # whose end is made first owns the queue
    receiver.close()
    with pytest.raises(LaneClosed):
        sender.send([(f.WIRE, 1)], [writing])
    assert os.read(reading, 1) == b""
    os.close(reading)
    sender.close()


def test_a_closed_queue_lane_says_so() -> None:
    sender, receiver = queue_pair()
    sender.send([(f.HALT,)])
    receiver.clear()
    sender.close()
    sender.close()
    with pytest.raises(LaneClosed):
        receiver.send([(f.HALT,)])
    with pytest.raises(LaneClosed):
        receiver.receive()


def test_the_end_of_a_socket_lane_comes_after_its_last_item() -> None:
    sender, receiver = socket_pair()
    sender.send([(f.BYE, [])])
    sender.close()
    assert receiver.receive() == ([(f.BYE, [])], [])
    with pytest.raises(LaneClosed):
        receiver.receive()
    with pytest.raises(LaneClosed):
        receiver.send([(f.HALT,)])
    receiver.close()


@settings(deadline=None, max_examples=40)
@given(sent=items, cut=st.integers(1, 50))
def test_a_socket_lane_takes_bytes_in_any_pieces(sent: list[tuple[list[f.Frame], list[bytes]]], cut: int) -> None:
    ours, theirs = socket.socketpair()
    tap, out = socket.socketpair()
    sender, receiver = SocketLane(ours), SocketLane(out)
    for frames, loans in sent:
        sender.send(frames, loans)
    sender.close()
    data = b""
    while piece := theirs.recv(65536):
        data += piece
    got = []
    for at in range(0, len(data), cut):
        tap.sendall(data[at : at + cut])
        while (item := receiver.receive()) is not None:
            got.append((item[0], [bytes(loan) for loan in item[1]]))
    assert got == sent
    for sock in (theirs, tap):
        sock.close()
    receiver.close()


def test_a_full_socket_asks_for_room_and_loses_nothing() -> None:
    ours, theirs = socket.socketpair()
    asked: list[int] = []
    sender, receiver = SocketLane(ours, lambda: asked.append(1)), SocketLane(theirs)
    body = bytes(4 << 20)
    sender.send([(f.REPLY, 1, 200, [], f.LOAN)], [body])
    assert asked
    item = None
    while item is None:
        sender.flush()
        item = receiver.receive()
    assert bytes(item[1][0]) == body
    assert sender.flush()
    sender.close()
    receiver.close()


def test_loans_and_frames_of_two_threads_do_not_mix() -> None:
    """The steward sends on the same lane as the main thread."""
    sender, receiver = queue_pair()

    def steward() -> None:
        for n in range(500):
            sender.send([(f.INTERRUPTED, n, True)])

    thread = threading.Thread(target=steward)
    thread.start()
    for _ in range(200):
        sender.send([(f.REPLY, 1, 200, [], f.LOAN)], [b"x" * 20000])
    thread.join()
    seen = {f.INTERRUPTED: 0, f.REPLY: 0}
    receiver.clear()
    while (item := receiver.receive()) is not None:
        (only,) = item[0]
        seen[only[0]] += 1
        assert len(item[1]) == (only[0] == f.REPLY)
        for loan in item[1]:
            assert len(loan) == 20000
            loan.release()
    assert seen == {f.INTERRUPTED: 500, f.REPLY: 200}
    sender.close()


@pytest.fixture
def wakeup() -> Iterator[Callable[[], Wakeup]]:
    made: list[Wakeup] = []

    def make() -> Wakeup:
        made.append(Wakeup())
        return made[-1]

    yield make
    for one in made:
        one.close()
        one.close()


def test_a_wakeup_counts(wakeup: Callable[[], Wakeup]) -> None:
    wake = wakeup()
    assert wake.take() == 0
    wake.wake()
    Wakeup(*wake.fds()).wake(3)
    assert select.select([wake], [], [], 0)[0]
    assert wake.take() == 4
    assert not select.select([wake], [], [], 0)[0]


def test_frames_print_their_fields() -> None:
    assert f.describe((f.REPLY, 7, 200, [], b"x")) == "REPLY(id=7, status=200, headers=[], body=b'x')"
    assert "99" in f.describe((99, 1))


def test_code_does_not_cross() -> None:
    import marshal

    with pytest.raises(ValueError, match="code"):
        f.decode(marshal.dumps([(1, (lambda: 0).__code__)]))
