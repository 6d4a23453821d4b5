"""The guard's parts, each by itself."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subpool.guard.boot import command
from subpool.guard.caught import name_of
from subpool.guard.diary import Diary
from subpool.guard.events import Events
from subpool.guard.handover import VARIABLE, Inherited, Socket, inherited, take
from subpool.guard.link import Link, Message
from subpool.guard.relay import SILENT, Relay
from subpool.guard.size import Size
from subpool.guard.ward import Ward

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture
def pair() -> Iterator[tuple[Link, Link]]:
    one, other = socket.socketpair()
    links = Link(one, blocking=False), Link(other, blocking=False)
    yield links
    for link in links:
        link.close()


@settings(deadline=None)
@given(st.lists(st.dictionaries(st.text(max_size=5), VALUES, max_size=3), max_size=5), st.integers(1, 7))
def test_what_is_said_is_heard_however_it_is_cut(messages: list[dict[str, object]], size: int) -> None:
    one, other = socket.socketpair()
    data = b"".join(json.dumps(message).encode() + b"\n" for message in messages)
    with one:
        link = Link(other, blocking=False)
        heard = []
        for at in range(0, len(data), size):
            one.sendall(data[at : at + size])
            heard += link.receive() or []
        assert heard == messages
        assert link.receive() == []
    assert link.receive() is None
    link.close()


def test_nobody_waits_for_one_who_does_not_listen(pair: tuple[Link, Link]) -> None:
    mine, other = pair
    assert mine.send({"do": "status", "id": 1})
    assert other.receive() == [{"do": "status", "id": 1}]
    while mine.send({"text": "x" * 65536}):
        pass
    heard = [message for _ in range(500) for message in other.receive() or ()]
    assert not mine.send({"do": "status", "id": 2}), "it had half a line before"
    assert all(message == {"text": "x" * 65536} for message in heard)
    assert other.receive() == []


def test_lines_look_as_those_of_logging(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Diary("info", None).info("listening")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO subpool: listening\n", capsys.readouterr().err)
    quiet = Diary("error", str(tmp_path / "log"))
    quiet.warning("not this")
    quiet.error("this")
    assert (tmp_path / "log").read_text().endswith(" ERROR subpool: this\n")
    Diary("debug", str(tmp_path)).error("there is nowhere to write it")
    assert capsys.readouterr().err == ""


def test_names_of_signals() -> None:
    assert name_of(signal.SIGSEGV) == "SIGSEGV"
    assert name_of(250) == "signal 250"


def test_what_a_guard_inherits_is_told_once() -> None:
    one, other = socket.socketpair()
    with one, other:
        os.set_inheritable(other.fileno(), True)
        environ = {VARIABLE: json.dumps([one.fileno(), [["127.0.0.1:0", other.fileno(), 0, False, ""]], [[1], [2]]])}
        assert inherited(environ) == Inherited(
            one.fileno(), [Socket("127.0.0.1:0", other.fileno(), 0, True)], [[1], [2]]
        )
        assert environ == {}
        assert not os.get_inheritable(other.fileno())
    assert inherited({}) is None


@pytest.mark.parametrize(
    "text", ["", "x", "[]", "[1]", "{}", "[0, 0, 0]", '[99999, [["a", 99998, 0, 0, ""]], []]', '["a", [], []]']
)
def test_a_variable_that_no_guard_set(text: str) -> None:
    with pytest.raises(OSError, match=VARIABLE):
        inherited({VARIABLE: text})


def test_what_is_handed_over(tmp_path: Path) -> None:
    sockets = [["unix:x", os.open(tmp_path, os.O_RDONLY), 7, False]]
    (tmp_path / "given").write_text(json.dumps([{"workers": 2}, sockets, ["python", "-m", "subpool"], [], []]))
    os.set_inheritable(sockets[0][1], True)
    given = take(os.open(tmp_path / "given", os.O_RDONLY))
    assert (given.config, given.sockets, given.before) == ({"workers": 2}, [Socket(*sockets[0])], None)
    assert not os.get_inheritable(sockets[0][1])
    os.close(sockets[0][1])


def test_a_guard_loads_little() -> None:
    """Neither what reads a configuration, nor what serves: it is there all the time, beside the server."""
    code = "import subpool.guard.guard, sys; print('\\n'.join(sys.modules))"
    bare = "import sys; print('\\n'.join(sys.modules))"
    loaded, before = (
        set(subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=25,
                           check=True).stdout.split())
        for text in (code, bare)
    )  # fmt: skip
    new = {name for name in loaded - before if not name.startswith("encodings")}
    assert not new & {"logging", "asyncio", "pydantic", "click", "yaml", "uvloop", "anyio", "ssl", "ctypes", "tempfile"}
    ours = {name for name in new if name.startswith("subpool")}
    parts = {f"subpool.guard.{name}" for name in ("boot", "caught", "diary", "events", "guard", "handover", "link",
                                                  "relay", "size", "upgrade", "ward")}  # fmt: skip
    assert ours == {"subpool", "subpool.guard", "subpool.restarts", *parts}


def test_a_program_of_the_guards_has_this_ones_path() -> None:
    line = command("guard", "subpool-guard", 5)
    assert line[0] == sys.executable
    assert line[-3:] == ["subpool-guard", repr(sys.path), "5"]


# how many workers


def test_a_size_is_what_an_operator_said_last() -> None:
    size = Size()
    assert not size.told([2, None, 4])
    size.step(-3)
    assert size.counts == [1, None, 1]
    size.step(1)
    assert size.counts == [2, None, 2]
    size.set(5)
    assert size.counts == [5, None, 5]
    assert size.told([2, None, 4])
    assert not size.told([5, None, 5])
    assert size.passed_on() == [[2, None, 4], [5, None, 5]]


def test_a_size_asked_for_too_early() -> None:
    size = Size()
    size.step(2)
    assert size.told([1])
    assert size.counts == [3]


@pytest.mark.parametrize(("configured", "counts"), [([2], [7]), ([3], [3]), ([2, 2], [2, 2])])
def test_a_size_is_passed_on_where_the_configuration_stays(configured: list[int], counts: list[int]) -> None:
    size = Size([[2], [7]])
    assert size.told(configured) is (counts != configured)
    assert size.counts == counts


# one question to all


class Asked:
    """What a relay needs of a ward."""

    def __init__(self, place: int, state: str = "ready", silent: bool = False) -> None:
        self.pid, self.place, self.state, self.silent, self.heard = place + 100, place, state, silent, 0
        self.answer: Callable[[Message], None] | None = None

    def ask(self, do: str, answer: Callable[[Message], None], **more: object) -> int:
        self.answer = answer
        return 1


def test_a_relay_waits_for_those_who_have_heard() -> None:
    wards = [Asked(1), Asked(2), Asked(3), Asked(4, "starting"), Asked(5, silent=True)]
    told: list[list[Message]] = []
    relay = Relay("status", {}, cast("list[Ward]", wards), told.append)
    assert [ward.answer is not None for ward in wards] == [True, True, True, False, False]
    assert wards[0].answer is not None
    wards[0].answer({"value": 7, "id": 1, "event": "answer"})
    wards[1].heard = 1
    relay.look()
    assert told == []
    assert (wards[1].silent, wards[2].silent) == (False, True)
    relay.end()
    (answers,) = told
    found = {answer["place"]: answer.get("value", answer.get("error")) for answer in answers}
    assert found == {1: 7, 2: "it has not ended this in time", 3: SILENT, 4: None, 5: SILENT}
    assert wards[1].answer is not None
    wards[1].answer({"value": 8})
    assert len(told) == 1, "too late"


def test_a_relay_to_nobody_has_ended() -> None:
    told: list[list[Message]] = []
    Relay("scale", {"count": 2}, [], told.append)
    assert told == [[]]


# what is not taken at once


def test_much_is_sent_as_there_is_room(pair: tuple[Link, Link]) -> None:
    mine, other = pair
    events = Events()
    heard: list[Message] = []
    events.watch(mine, mine.flush)
    events.watch(other, lambda: heard.extend(other.receive() or ()))
    for end in pair:
        end._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    text = "x" * 900_000
    assert mine.send({"text": text})
    assert mine.unsent
    begun: list[int] = []
    events.later(0.0, lambda: begun.append(1))
    while not heard:
        events.turn()
    assert (heard, mine.unsent, begun) == ([{"text": text}], b"", [1])
    for link in pair:
        events.end(link)
        events.end(link)
    events.close()
