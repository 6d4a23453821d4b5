"""Descriptors on a lane between processes: they stay with their frames, and none is left behind.

The lanes run over real sockets. A pipe tells whether a descriptor is open anywhere: when nobody can write to it,
its reading end is at its end. `Stingy` is a socket that takes and gives a few bytes at a time.
"""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from itertools import cycle
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subpool.channels import frames as f
from subpool.channels.lane import LaneClosed
from subpool.channels.socket_lane import SocketLane


class Stingy:
    """A socket whose calls do no more than `sizes` say, in turn; 0 is a call that would block."""

    def __init__(self, sock: socket.socket, sizes: list[int]) -> None:
        self.setblocking, self.fileno, self.close = sock.setblocking, sock.fileno, sock.close
        self._sock = sock
        self._sizes = cycle(sizes)

    def _size(self) -> int:
        size = next(self._sizes)
        if not size:
            raise BlockingIOError
        return size

    def sendmsg(self, buffers: list[Any], ancillary: Any = ()) -> int:
        return self._sock.sendmsg([b"".join(buffers)[: self._size()]], ancillary)

    def recv_into(self, buffer: memoryview) -> int:
        return self._sock.recv_into(buffer[: self._size()])

    def recvmsg_into(self, buffers: list[memoryview], room: int, flags: int) -> Any:
        return self._sock.recvmsg_into([buffers[0][: self._size()]], room, flags)


class Pipe:
    """The writing end goes over a lane; who has got it can be told by what it writes."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        os.set_blocking(self.reading, False)

    def open(self) -> bool:
        """Whether anybody can still write to it."""
        try:
            return os.read(self.reading, 1) != b""
        except BlockingIOError:
            return True

    def is_of(self, fd: int) -> bool:
        """Whether `fd` is its writing end."""
        os.write(fd, b"x")
        try:
            return os.read(self.reading, 1) == b"x"
        except BlockingIOError:
            return False

    def close(self) -> None:
        os.close(self.reading)


@pytest.fixture
def pipes() -> Iterator[list[Pipe]]:
    made = [Pipe() for _ in range(4)]
    yield made
    for pipe in made:
        assert not pipe.open()
        pipe.close()


def pair(**sizes: list[int]) -> tuple[SocketLane, SocketLane]:
    ours, theirs = (Stingy(sock, sizes[end]) if end in sizes else sock
                    for sock, end in zip(socket.socketpair(), ("sends", "takes"), strict=True))  # fmt: skip
    return SocketLane(ours, lambda: None), SocketLane(theirs)  # type: ignore[arg-type]


loans = st.lists(st.none() | st.binary(max_size=40), max_size=5)  # None: a descriptor
sizes = st.lists(st.integers(0, 60), min_size=1, max_size=5).filter(any)


@settings(deadline=None, max_examples=100)
@given(sent=st.lists(loans, max_size=4), sends=sizes, takes=sizes)
@pytest.mark.parametrize("bytewise", [False, True])
def test_in_any_pieces(bytewise: bool, sent: list[list[bytes | None]], sends: list[int], takes: list[int]) -> None:
    """Each descriptor comes in its item, at its place, whatever sending and receiving are cut into."""
    sender, receiver = pair(sends=[1, 0] if bytewise else sends, takes=[1] if bytewise else takes)
    pipes = [[Pipe() if loan is None else loan for loan in item] for item in sent]
    for number, item in enumerate(pipes):
        sender.send([(f.STARTED, number)], [loan.writing if isinstance(loan, Pipe) else loan for loan in item])
    got = []
    while len(got) < len(sent):
        sender.flush()
        if (arrived := receiver.receive()) is not None:
            got.append(arrived)
    for number, (item, (frames, arrived_loans)) in enumerate(zip(pipes, got, strict=True)):
        assert frames == [(f.STARTED, number)]
        assert len(arrived_loans) == len(item)
        for one, loan in zip(item, arrived_loans, strict=True):
            if isinstance(one, Pipe):
                assert isinstance(loan, int)
                assert one.is_of(loan)
                os.close(loan)
                assert not one.open()
                one.close()
            else:
                assert bytes(loan) == one
    receiver.close()
    sender.close()


def test_through_full_sockets() -> None:
    """Much more than a socket holds, bodies and descriptors in turn."""
    sender, receiver = pair()
    pipes = [Pipe() for _ in range(100)]
    for number, pipe in enumerate(pipes):
        sender.send([(f.STARTED, number)], [pipe.writing, bytes([number]) * 20_000, b"tail"])
    assert not sender.flush()
    for number, pipe in enumerate(pipes):
        while (item := receiver.receive()) is None:
            sender.flush()
        fd, body, tail = item[1]
        assert item[0] == [(f.STARTED, number)]
        assert bytes(body) == bytes([number]) * 20_000
        assert bytes(tail) == b"tail"
        assert isinstance(fd, int)
        assert pipe.is_of(fd)
        os.close(fd)
        assert not pipe.open()
        pipe.close()
    assert sender.flush()
    sender.close()
    receiver.close()


@pytest.mark.parametrize("taken", range(0, 90, 3))
def test_the_sender_dies_within_an_item(pipes: list[Pipe], taken: int) -> None:
    """What came of its descriptors is closed, in the kernel or here; so is what it had not sent."""
    ours, theirs = socket.socketpair()
    sender = SocketLane(Stingy(ours, [1] * taken + [0] * 1000), lambda: None)  # type: ignore[arg-type]
    receiver = SocketLane(theirs)
    sender.send([(f.STARTED, 1)], [pipe.writing for pipe in pipes])
    sender.flush()
    sender.close()
    with pytest.raises(LaneClosed):
        while (item := receiver.receive()) is not None:
            assert len(item[1]) == 4
            for loan in item[1]:
                assert isinstance(loan, int)
                os.close(loan)
    receiver.close()
    receiver.close()


def test_the_receiver_dies_before_it_takes_them(pipes: list[Pipe]) -> None:
    sender, receiver = pair()
    sender.send([(f.STARTED, 1)], [pipe.writing for pipe in pipes[:3]])
    receiver.close()
    with pytest.raises(LaneClosed):
        sender.send([(f.STARTED, 1)], [pipes[3].writing])
    sender.close()


def test_items_that_are_taken_back_close_theirs(pipes: list[Pipe]) -> None:
    sender, receiver = pair()
    sender.send([(f.STARTED, 1)], [pipe.writing for pipe in pipes])
    assert receiver.take_back() == [(f.STARTED, 1)]
    sender.close()
    receiver.close()


def test_no_descriptors_left_at_the_receiver(pipes: list[Pipe]) -> None:
    """The system drops what it cannot give (MSG_CTRUNC): those are lost, and no other takes their place."""
    sender, receiver = pair()
    sender.send([(f.STARTED, 1)], [pipe.writing for pipe in pipes[:2]])
    sender.send([(f.STARTED, 2)], [pipes[2].writing])
    sender.send([(f.STARTED, 3)], [pipes[3].writing])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    hogs = [os.dup(0)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hogs[0] + 1, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            while True:
                hogs.append(os.dup(0))
        assert receiver.receive() == ([(f.STARTED, 1)], [-1, -1])
        os.close(hogs.pop())
        item = receiver.receive()
        assert item is not None
        (fd,) = item[1]
        assert receiver.receive() == ([(f.STARTED, 3)], [-1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for hog in hogs:
            os.close(hog)
    assert isinstance(fd, int)
    assert pipes[2].is_of(fd)
    os.close(fd)
    sender.close()
    receiver.close()


def test_a_descriptor_that_cannot_be_sent(pipes: list[Pipe]) -> None:
    """The lane goes on, and those behind it are not taken for it."""
    sender, receiver = pair()
    closed = os.dup(0)
    os.close(closed)
    sender.send([(f.STARTED, 1)], [pipes[0].writing, closed, pipes[1].writing])
    sender.send([(f.STARTED, 2)], [pipe.writing for pipe in pipes[2:]])
    got = []
    for number in (1, 2):
        item = receiver.receive()
        assert item is not None
        assert item[0] == [(f.STARTED, number)]
        got += item[1]
    assert got.pop(1) == -1
    for pipe, fd in zip(pipes, got, strict=True):
        assert isinstance(fd, int)
        assert pipe.is_of(fd)
        os.close(fd)
    sender.close()
    receiver.close()
