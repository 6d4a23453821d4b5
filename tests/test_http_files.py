"""Files over HTTP/1.1, `wsgi.file_wrapper` and `http.response.pathsend`, for every kind of worker: the front sends them
from descriptors that the workers gave it."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pydantic")
pytest.importorskip("httptools")

from conftest import DEADLINE, Fifo
from http_kit import Peer, Site, get, last, replies, request, script, serving

PROC = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="reads /proc")


@pytest.fixture(scope="module", params=["wsgi", "wsgi-threads", "asgi"])
def site(request: pytest.FixtureRequest, isolation: str) -> Iterator[Site]:
    interface, _, threads = request.param.partition("-")
    with serving(interface, isolation, "uvloop" if threads else "asyncio", threads=2 if threads else 1) as site:
        yield site


@pytest.fixture(scope="module")
def wsgi(isolation: str) -> Iterator[Site]:
    with serving("wsgi", isolation) as site:
        yield site


@pytest.fixture(scope="module")
def asgi(isolation: str) -> Iterator[Site]:
    with serving("asgi", isolation) as site:
        yield site


@pytest.fixture
def data() -> bytes:
    return os.urandom(1_000_003) * 6


@pytest.fixture
def file(tmp_path: Path, data: bytes) -> str:
    path = tmp_path / "file"
    path.write_bytes(data)
    return str(path)


def asking(site: Site, file: str) -> bytes:
    """A request for the file."""
    return get(f"/real-file?path={file}") if site.interface == "wsgi" else script(["start", 200], ["pathsend", file])


def begun(peer: Peer, request: bytes) -> None:
    """Ask for a file, and read a little of it."""
    peer.send(request)
    peer.until(b"\r\n\r\n")
    if not peer.data:
        peer.fill()


def small(site: Site) -> Peer:
    """A client that holds little, so that the server has much of the file still to send."""
    return site.peer(receive_buffer=4096)


def holders(file: str) -> list[str]:
    """Which descriptors of which processes are of the file."""
    found = []
    for process in filter(str.isdigit, os.listdir("/proc")):
        folder = f"/proc/{process}/fd"
        try:
            found += [f"{folder}/{fd}" for fd in os.listdir(folder) if os.path.realpath(f"{folder}/{fd}") == file]
        except OSError:
            continue  # it has ended, or is not ours
    return found


def let_go(file: str) -> bool:
    """Whether nobody has the file open, now or soon."""
    end = time.monotonic() + DEADLINE
    while holders(file):
        if time.monotonic() > end:
            return False
        os.sched_yield()
    return True


def test_byte_by_byte(site: Site, file: str, data: bytes) -> None:
    with site.peer() as fast, small(site) as slow:
        begun(slow, asking(site, file))
        for _ in range(3):
            reply = fast.ask(asking(site, file))
            assert (reply.status, reply.framing) == (200, "length")
            assert reply.body == data
            assert fast.ask(get("/hello")).body == b"Hello, World!"
        slow.send(last())
        body, _, rest = slow.rest().partition(b"HTTP/1.1 200")
        assert body == data
        assert rest.endswith(b"Hello, World!")
    found = replies(site.talk((asking(site, file) + get("/hello")) * 3 + last()))
    assert [len(reply.body) for reply in found] == [len(data), 13] * 3 + [13]


def test_a_worker_that_is_done_with_the_file(site: Site, file: str, data: bytes) -> None:
    """Its own close(), and the end of the file's name, are nothing to a response under way."""
    with small(site) as slow:
        slow.send(asking(site, file))
        head = slow.until(b"\r\n\r\n")
        assert b"content-length: %d\r\n" % len(data) in head
        assert site.ask(get("/hello")).status == 200  # behind it: the only worker has returned
        os.unlink(file)
        slow.send(last())
        body, _, rest = slow.rest().partition(b"HTTP/1.1 200")
        assert body == data
        assert rest.endswith(b"Hello, World!")


@PROC
def test_a_client_that_leaves(site: Site, file: str) -> None:
    """At once, before the head, or in the middle: no descriptor stays, here or in the worker."""
    with site.peer() as peer:
        assert len(peer.ask(asking(site, file)).body) == 6_000_018
    assert let_go(file)
    peers = [small(site) for _ in range(12)]
    for number, peer in enumerate(peers):
        if number % 3:
            begun(peer, asking(site, file))
        else:
            peer.send(asking(site, file))
    assert holders(file)
    for peer in peers:
        peer.socket.close()
    assert let_go(file), holders(file)
    assert site.ask(get("/hello")).status == 200


@PROC
@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_a_server_that_stops_in_the_middle(isolation: str, interface: str, file: str) -> None:
    with serving(interface, isolation) as site:
        peers = [small(site) for _ in range(3)]
        for peer in peers:
            begun(peer, asking(site, file))
        assert holders(file)
        site.call(site.server.stop(0.0))
    assert let_go(file), holders(file)
    for peer in peers:
        peer.socket.close()


@PROC
@pytest.mark.parametrize("isolation", ["process"])
def test_a_worker_that_dies_in_the_middle(isolation: str, file: str, data: bytes) -> None:
    """The front has the descriptor: it sends the file to its end, if the app has returned."""
    with serving("asgi", isolation) as site:
        with small(site) as slow:
            begun(slow, asking(site, file))
            assert site.ask(get("/hello")).status == 200
            assert site.ask(get("/os-exit")).status == 502
            slow.send(last())
            assert slow.rest().partition(b"HTTP/1.1 200")[0] == data
        assert let_go(file)


@PROC
def test_no_descriptors_left(site: Site, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The response breaks off, and nothing else does."""
    from subpool.http import sendfile

    class Full:
        """The module, without `dup`."""

        def __getattr__(self, name: str) -> Any:
            return getattr(os, name)

        def dup(self, fd: int) -> int:
            raise OSError(errno.EMFILE, "Too many open files")

    site.records.clear()
    monkeypatch.setattr(sendfile, "os", Full())
    found = replies(site.talk(asking(site, file) + last()))
    assert [reply.whole for reply in found] in ([], [False])
    monkeypatch.undo()
    assert site.logged("Too many open files")
    assert site.ask(get("/hello")).status == 200
    assert let_go(file)


def test_a_file_that_was_lost_on_its_way() -> None:
    from subpool.http.sendfile import FileSender

    with pytest.raises(OSError, match="lost on its way"):
        FileSender(None, None, (-1, 0, 10), lambda error: None)  # type: ignore[arg-type]


# Content-Length


@pytest.mark.parametrize("offset", [0, 10, 5_000_000])
@pytest.mark.parametrize("length", [0, 1, 8192, 8193, 20_000, 1_000_000])
def test_a_part_of_a_file(wsgi: Site, file: str, data: bytes, offset: int, length: int) -> None:
    """From its position on, as many bytes as Content-Length says."""
    target = f"/file-part?path={file}&offset={offset}&length={length}"
    with wsgi.peer() as peer:
        for _ in range(2):
            reply = peer.ask(get(target))
            assert (reply.status, reply.get("content-length")) == (200, str(length))
            assert reply.body == data[offset : offset + length]
        assert peer.ask(request("HEAD", target), "HEAD").get("content-length") == str(length)
        assert peer.ask(get("/hello")).body == b"Hello, World!"


@pytest.mark.parametrize("length", [0, 1, 8192, 8193, 19_999, 20_000])
def test_a_part_of_what_is_like_a_file(wsgi: Site, length: int, fifo: Callable[[str], Fifo]) -> None:
    report = fifo("report")
    with wsgi.peer() as peer:
        assert peer.ask(get(f"/file-like?size=20000&length={length}&report={report}")).body == b"f" * length
        assert report.wait_sync() == b"c"
        assert peer.ask(get("/hello")).body == b"Hello, World!"


def test_less_of_a_file_than_content_length(wsgi: Site, file: str, data: bytes, fifo: Callable[[str], Fifo]) -> None:
    """An error of the app: the client sees the truncation."""
    found = replies(wsgi.talk(get(f"/file-part?path={file}&length={len(data) + 1}") + last()))
    assert [reply.whole for reply in found] == [False]
    (reply,) = replies(wsgi.talk(get(f"/file-part?path={file}&offset=6000018&length=1") + last()))[:1]
    assert reply.status == 500 or not reply.whole
    report = fifo("report")
    found = replies(wsgi.talk(get(f"/file-like?size=20000&length=20001&report={report}") + last()))
    assert [reply.whole for reply in found] == [False]
    assert report.wait_sync() == b"c"


@pytest.mark.parametrize("length", [0, 1, 6_000_017, 6_000_019])
def test_pathsend_of_another_length(asgi: Site, file: str, length: int) -> None:
    """The file is the whole body: nothing of it goes out under a length that is not its own."""
    headers = [["Content-Length", str(length)]]
    with asgi.peer() as peer:
        assert peer.ask(script(["start", 200, headers], ["pathsend", file])).status == 500
        assert peer.ask(get("/hello")).body == b"Hello, World!"


def test_pathsend_of_files_without_a_size(asgi: Site, tmp_path: Path) -> None:
    """What the system gives no size is empty: its bytes would be taken for the next response."""
    (tmp_path / "empty").write_bytes(b"")
    paths = [str(tmp_path / "empty"), "/dev/zero", *(["/proc/version"] if os.path.exists("/proc/version") else [])]
    with asgi.peer() as peer:
        for path in paths:
            reply = peer.ask(script(["start", 200], ["pathsend", path]))
            assert (reply.status, reply.body) == (200, b"")
            assert peer.ask(get("/hello")).body == b"Hello, World!"
