"""HTTP/1.1 requests whose header lines came before: they are not parsed again, and nobody can tell."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("pydantic")
pytest.importorskip("httptools")

from http_kit import SITES, Peer, Reply, Site, chunked, get, request, seen, serving, site_name

REST = b"Host: example.test\r\nX-Same:  a b \r\nCOOKIE: one=1\r\ncookie: two=2\r\n\r\n"
_fresh = itertools.count(1000)


@pytest.fixture(scope="module", params=SITES, ids=site_name)
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    interface, isolation, loop = request.param
    with serving(interface, isolation, loop) as site:
        yield site


def heads(site: Site) -> dict[bytes, list[tuple[bytes, bytes]]]:
    assert site.server.front is not None
    return site.server.front.heads


def known(peer: Peer, rest: bytes = REST) -> Peer:
    """Have the server know these lines."""
    for _ in range(3):
        assert peer.ask(b"GET /hello HTTP/1.1\r\n" + rest).status == 200
    return peer


def gist(reply: Reply) -> tuple[object, ...]:
    """An answer without what differs between two connections."""
    return (*reply.gist()[:3], without(reply.body), *reply.gist()[4:])


def without(data: bytes) -> bytes:
    """The same of bytes."""
    data = re.sub(rb"(?i)'http_x_n': '\d+'|\(b'x-n', b'\d+'\)|'REMOTE_PORT': '\d+'|'127.0.0.1', \d+", b"", data)
    return re.sub(rb"(?m)^date: .*$|content-length: \d+|0x[0-9a-f]+", b"", data)


def test_the_app_sees_each_request_as_it_is(site: Site) -> None:
    with site.peer() as peer:
        first = seen(known(peer).ask(b"GET /scope HTTP/1.1\r\n" + REST))
        assert REST in heads(site)
        other = seen(peer.ask(b"DELETE /scope?a=%41 HTTP/1.1\r\n" + REST))
        if site.interface == "asgi":
            assert first["headers"] == other["headers"] == [
                (b"host", b"example.test"), (b"x-same", b"a b"), (b"cookie", b"one=1"), (b"cookie", b"two=2"),
            ]  # fmt: skip
            assert (other["method"], other["query_string"], first["query_string"]) == ("DELETE", b"a=%41", b"")
        else:
            assert first["HTTP_COOKIE"] == other["HTTP_COOKIE"] == "one=1; two=2"
            assert first["HTTP_X_SAME"] == "a b"
            assert (other["REQUEST_METHOD"], other["QUERY_STRING"], first["QUERY_STRING"]) == ("DELETE", "a=%41", "")


def test_what_an_app_changes_no_later_one_sees(site: Site) -> None:
    with site.peer() as peer:
        before = known(peer).ask(b"GET /scope HTTP/1.1\r\n" + REST)
        for _ in range(3):
            assert peer.ask(b"GET /mutate HTTP/1.1\r\n" + REST).status == 200
        assert gist(peer.ask(b"GET /scope HTTP/1.1\r\n" + REST)) == gist(before)


def test_all_connections_know_them(site: Site) -> None:
    with site.peer() as one:
        known(one)
    with site.peer() as two, site.peer() as three:
        assert two.ask(b"GET /hello HTTP/1.1\r\n" + REST).status == 200
        assert three.ask(b"HEAD /hello HTTP/1.1\r\n" + REST, "HEAD").body == b""


def test_once_is_not_remembered(site: Site) -> None:
    rest = b"Host: a\r\nX-Once: %d\r\n\r\n" % next(_fresh)
    assert site.ask(b"GET /hello HTTP/1.1\r\n" + rest).status == 200
    assert rest not in heads(site)


@pytest.mark.parametrize(
    "data",
    [
        request("POST", "/length", body=b"12345"),
        chunked("/length", b"123", b"45"),
        get("/hello", "Connection: close"),
        get("/hello", "Expect: 100-continue", body=b""),
        get("/hello", "X-Forwarded-For: 192.0.2.1"),
        get("/hello", version="1.0"),
    ],
    ids=["length", "chunked", "close", "expect", "forwarded", "1.0"],
)
def test_lines_that_say_more_are_not_remembered(site: Site, data: bytes) -> None:
    before = set(heads(site))
    for _ in range(3):
        with site.peer() as peer:
            for _ in range(2):
                peer.socket.sendall(data)
                if peer.reply().closes:
                    break
    assert set(heads(site)) == before


def test_they_are_bounded(site: Site) -> None:
    from subpool.http.front import HEADS

    with site.peer() as peer:
        for number in range(HEADS + 10):
            rest = b"Host: a\r\nX-Number: %d\r\n\r\n" % number
            for _ in range(2):
                assert peer.ask(b"GET /hello HTTP/1.1\r\n" + rest).status == 200
        assert rest in heads(site)
        assert len(heads(site)) <= HEADS


def test_pipelined_and_cut(site: Site) -> None:
    """Two at once are parsed; so is one that comes in pieces; so is what comes behind it."""
    one = b"GET /hello HTTP/1.1\r\n" + REST
    with site.peer() as peer:
        known(peer)
        peer.send(one + one)
        assert [peer.reply().status for _ in range(2)] == [200, 200]
        peer.send_pieces([one[:30], one[30:], one, one[:5], one[5:] + one])
        assert [peer.reply().status for _ in range(4)] == [200] * 4
        peer.send(b"\r\n" + one)
        assert peer.reply().status == 200


def test_a_second_server_ends_such_connections_too() -> None:
    with serving() as site, site.peer() as peer:
        known(peer)
        site.call(site.server.stop(5.0))
        assert peer.closed()


def test_mounts_and_limits() -> None:
    mounts = [{"prefix": "/one", "app": "http_app:app"}, {"prefix": "/two", "app": "http_app:other"}]
    with serving(mounts=mounts, max_request_line=200) as site, site.peer() as peer:
        rest = b"Host: a\r\n\r\n"
        for _ in range(3):
            assert peer.ask(b"GET /one/hello HTTP/1.1\r\n" + rest).status == 200
        assert rest in heads(site)
        assert b"other" in peer.ask(b"GET /two/x HTTP/1.1\r\n" + rest).body
        assert peer.ask(b"GET /three HTTP/1.1\r\n" + rest).status == 404
        assert peer.ask(b"GET /%6fne/hello HTTP/1.1\r\n" + rest).status == 200
        target = b"/one/hello?" + b"a" * (200 - len("GET /one/hello? HTTP/1.1"))
        assert peer.ask(b"GET %s HTTP/1.1\r\n" % target + rest).status == 200
        assert peer.ask(b"GET %sa HTTP/1.1\r\n" % target + rest).status == 414
        assert peer.closed()


@pytest.mark.parametrize("style", ["combined", "json"])
def test_the_access_log_shows_them(style: str, caplog: pytest.LogCaptureFixture) -> None:
    rest = b"Host: a\r\nUser-Agent: the same\r\n\r\n"
    with serving(access_log=style) as site, site.peer() as peer:
        known(peer, rest)
        with caplog.at_level("INFO", "subpool.access"):
            assert peer.ask(b"GET /hello?again HTTP/1.1\r\n" + rest).status == 200
            assert peer.ask(b"GET /hello HTTP/1.1\r\n" + rest).status == 200
    lines = [record.getMessage() for record in caplog.records if record.name == "subpool.access"]
    assert any("/hello?again" in line and "the same" in line for line in lines)


WORDS = st.sampled_from([
    b"GET", b"HEAD", b"POST", b"OPTIONS", b"CONNECT", b"BREW", b"PRI", b" ", b"  ", b"\t", b"/", b"/scope", b"*",
    b"?a=b", b"#f", b"%41", b"%2", b"\xff", b"\x7f", b"\0", b"\n", b"\r", b"\r\n", b"HTTP/1.1", b"HTTP/1.0",
    b"HTTP/2.0",
    b"http/1.1", b"http://b/scope", b"a:80", b"\"", b"<", b"{", b":",
])  # fmt: skip
LINES = st.one_of(
    st.lists(WORDS, max_size=7).map(b"".join),
    st.tuples(WORDS, st.sampled_from([b" ", b"  ", b"\t"]), WORDS, WORDS, st.just(b" "), WORDS).map(b"".join),
)


@settings(max_examples=150, deadline=None)
@given(line=LINES)
def test_any_request_line_means_the_same(site: Site, line: bytes) -> None:
    """The answer to lines that are known is that to the same lines on their first day."""
    rest = b"Host: example.test\r\nX-N: 1000\r\n\r\n"
    cold = rest.replace(b"1000", b"%d" % next(_fresh))
    answers = []
    for lines in (rest, cold):
        with site.peer() as peer:
            if lines is rest:
                known(peer, rest)
                assert rest in heads(site)
            else:
                known(peer, b"Host: warm\r\n\r\n")
            peer.send(line + b"\r\n" + lines + get("/hello", "Connection: close"))
            answers.append(without(peer.rest()))
    assert answers[0] == answers[1]
