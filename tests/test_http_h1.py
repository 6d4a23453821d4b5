"""HTTP/1.1 requests and responses: what an app sees of a request, and what a client gets of what the app says."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import threading
from ast import literal_eval
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("pydantic")
pytest.importorskip("httptools")

from conftest import Fifo
from http_kit import (
    SITES,
    Peer,
    Reply,
    Site,
    by_byte,
    chunked,
    cut,
    get,
    last,
    replies,
    request,
    script,
    seen,
    serving,
    site_name,
)


@pytest.fixture(scope="module", params=SITES, ids=site_name)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One server for each interface on two kinds of worker."""
    interface, isolation, loop = request.param
    with serving(interface, isolation, loop, unix=str(tmp_path_factory.mktemp("h1") / "s")) as site:
        yield site


@pytest.fixture(scope="module")
def asgi(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with serving("asgi", loop="uvloop", unix=str(tmp_path_factory.mktemp("h1") / "s")) as site:
        yield site


@pytest.fixture(scope="module")
def wsgi(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with serving("wsgi", unix=str(tmp_path_factory.mktemp("h1") / "s")) as site:
        yield site


# what an app sees


HEAD = (
    b"POST /caf%C3%A9/%2F?a=%20b&a=+%FF HTTP/1.1\r\n"
    b"Host: example.test:8000\r\n"
    b"X-Many: 1\r\nCOOKIE: a=1\r\nX-Many:\t2 \t\r\nx_many: 3\r\nCookie: b=2\r\nX-Empty:\r\nX-Latin: caf\xe9 : x\r\n"
    b"Content-Type: text/plain\r\nContent-Length: 5\r\nContent_Length: 77\r\n\r\nhello"
)


def test_the_scope_is_exact(asgi: Site) -> None:
    for unix in (False, True):
        with asgi.peer(unix) as peer:
            if unix:
                peer.send_pieces(by_byte(HEAD))
                scope = seen(peer.reply())
            else:
                scope = seen(peer.ask(HEAD))
            extensions = scope.pop("extensions")
            assert {name: extensions[name] for name in extensions if name != "subpool"} == {
                "http.response.early_hint": {}, "http.response.trailers": {}, "http.response.pathsend": {},
            }  # fmt: skip
            assert scope == {
                "type": "http",
                "asgi": {"version": "3.0", "spec_version": "2.5"},
                "http_version": "1.1",
                "method": "POST",
                "scheme": "http",
                "path": "/caf\xe9//",
                "raw_path": b"/caf%C3%A9/%2F",
                "query_string": b"a=%20b&a=+%FF",
                "root_path": "",
                "headers": [
                    (b"host", b"example.test:8000"), (b"x-many", b"1"), (b"cookie", b"a=1"), (b"x-many", b"2"),
                    (b"x_many", b"3"), (b"cookie", b"b=2"), (b"x-empty", b""), (b"x-latin", b"caf\xe9 : x"),
                    (b"content-type", b"text/plain"), (b"content-length", b"5"), (b"content_length", b"77"),
                ],
                "server": (asgi.unix, None) if unix else ("127.0.0.1", asgi.port()),
                "client": None if unix else ("127.0.0.1", peer.port),
                "state": {},
            }  # fmt: skip
            assert unix or type(scope["server"][1]) is type(scope["client"][1]) is int


@pytest.mark.parametrize("unix", [False, True])
def test_the_environ_is_exact(wsgi: Site, unix: bool) -> None:
    with wsgi.peer(unix) as peer:
        peer.send_pieces(by_byte(HEAD) if unix else [HEAD])
        environ = seen(peer.reply())
        where = ("localhost", "80", "") if unix else ("127.0.0.1", str(wsgi.port()), "127.0.0.1")
        port = environ.pop("REMOTE_PORT", None)
        assert port == (None if unix else str(peer.port))
    assert environ.pop("subpool.worker") == 1
    assert environ == {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/caf\xc3\xa9//",
        "QUERY_STRING": "a=%20b&a=+%FF",
        "SERVER_NAME": where[0],
        "SERVER_PORT": where[1],
        "REMOTE_ADDR": where[2],
        "SERVER_PROTOCOL": "HTTP/1.1",
        "CONTENT_TYPE": "text/plain",
        "CONTENT_LENGTH": "5",
        "HTTP_HOST": "example.test:8000",
        "HTTP_X_MANY": "1,2",
        "HTTP_COOKIE": "a=1; b=2",
        "HTTP_X_EMPTY": "",
        "HTTP_X_LATIN": "caf\xe9 : x",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.multithread": False,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
    }


def test_what_kind_of_wsgi_server() -> None:
    for isolation, threads, wanted in (("thread", 1, (True, False)), ("process", 1, (False, True)),
                                       ("subinterpreter", 2, (True, True))):  # fmt: skip
        with serving("wsgi", isolation, threads=threads) as site:
            environ = seen(site.ask(get("/scope")))
            assert (environ["wsgi.multithread"], environ["wsgi.multiprocess"]) == wanted
            kinds = json.loads(site.ask(get("/kinds")).body)
            assert {kinds[key] for key in ("wsgi.url_scheme", "SERVER_PORT", "REMOTE_ADDR")} == {"str"}
            assert {"wsgi.file_wrapper", "wsgi.early_hints", "wsgi.errors", "wsgi.input"} <= set(kinds)


TARGETS = [
    ("/", "/", b"/", b""),
    ("/a?", "/a", b"/a", b""),
    ("/a??b=?c", "/a", b"/a", b"?b=?c"),
    ("/a%20b", "/a b", b"/a%20b", b""),
    ("/%E2%98%83/%e2%98%83", "/\u2603/\u2603", b"/%E2%98%83/%e2%98%83", b""),
    ("/a%2Fb%2f", "/a/b/", b"/a%2Fb%2f", b""),
    ("/a%3Fb?c", "/a?b", b"/a%3Fb", b"c"),
    ("/%25%32%35", "/%25", b"/%25%32%35", b""),
    ("/a+b", "/a+b", b"/a+b", b""),
    ("//host//x", "//host//x", b"//host//x", b""),
    ("/../a/./b", "/../a/./b", b"/../a/./b", b""),
    ("/a;b=c:d@e", "/a;b=c:d@e", b"/a;b=c:d@e", b""),
    ("/x?a=%zz&%", "/x", b"/x", b"a=%zz&%"),
    ("/x?\"<>'`{|}\\^[]", "/x", b"/x", b"\"<>'`{|}\\^[]"),
    ("http://other.test:81/p%20q?r", "/p q", b"/p%20q", b"r"),
    ("http://other.test", "/", b"/", b""),
    ("http://other.test?q", "/", b"/", b"q"),
    ("HTTP://other.test/x", "/x", b"/x", b""),
    ("https://other.test/x", "/x", b"/x", b""),
]


@pytest.mark.parametrize(("target", "path", "raw_path", "query"), TARGETS, ids=[case[0] for case in TARGETS])
def test_targets(site: Site, target: str, path: str, raw_path: bytes, query: bytes) -> None:
    for data in (last(target), by_byte(last(target))):
        shown = seen(replies(site.talk(data))[0])
        if site.interface == "asgi":
            assert (shown["path"], shown["raw_path"], shown["query_string"]) == (path, raw_path, query)
            assert shown["root_path"] == ""
        else:
            assert shown["PATH_INFO"].encode("latin-1").decode() == path
            assert shown["QUERY_STRING"].encode("latin-1") == query
            assert shown["SCRIPT_NAME"] == ""


def test_a_target_with_bad_escapes_or_bad_utf8_is_harmless(site: Site) -> None:
    """Told as it was sent, or refused."""
    for target in (b"/%", b"/%zz", b"/%C3", b"/%FF%FE/x", b"/caf\xc3\xa9", b"/\xff", b"/%ED%A0%80"):
        for pieces in (last(target), by_byte(last(target))):
            (reply,) = replies(site.talk(pieces))
            if reply.status == 400:
                continue
            shown = seen(reply)
            if site.interface == "asgi":
                assert shown["raw_path"] == target
            else:
                raw = shown["PATH_INFO"].encode("latin-1")
                assert raw in (target, b"/\xc3", b"/\xff\xfe/x", b"/\xed\xa0\x80")


def test_the_target_of_options(site: Site) -> None:
    (reply,) = replies(site.talk(request("OPTIONS", "*", "Connection: close")))
    shown = seen(reply)
    assert shown.get("path", shown.get("PATH_INFO")) in ("*", "", "/")


METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "REPORT", "QUERY", "PURGE"]


def test_methods(site: Site) -> None:
    site.journal()
    known = []
    for method in METHODS:
        (reply,) = replies(site.talk(last("/x", method=method)), method)
        if method in METHODS[:7]:
            assert reply.status == 200
        if reply.status == 200:
            known.append(f"{method} /x")
        else:
            assert reply.status in (400, 405, 501)
    assert site.journal() == known
    for method in ("get", "Get", "FOO", "GETX", "M-SEARCHX"):
        (reply,) = replies(site.talk(last("/x", method=method)))
        told = site.journal()
        assert (reply.status, told) == (200, [f"{method} /x"]) or (reply.status in (400, 501) and told == [])


def test_the_absolute_forms_host_counts(site: Site) -> None:
    """RFC 9112, 3.2.2: the target's authority replaces what Host says; an app never sees two different ones."""
    shown = seen(site.ask(get("http://other.test:81/scope")))
    if site.interface == "asgi":
        assert [value for name, value in shown["headers"] if name == b"host"] == [b"other.test:81"]
    else:
        assert shown["HTTP_HOST"] == "other.test:81"


def test_nothing_leaks_into_the_next_request(site: Site) -> None:
    """Same connection, requests that differ in everything: each is seen as it is."""
    asgi = site.interface == "asgi"
    rounds = [
        request("POST", "/scope?q=1", "X-A: 1", "Cookie: a", "X-Forwarded-For: 192.0.2.1", "X-Forwarded-Proto: https",
                "X-Forwarded-Host: f.test", "Content-Type: a/b", body=b"x"),
        get("/scope"),
        b"PUT /%61 HTTP/1.1\r\nHost: other.test\r\nX-B: 2\r\n\r\n",
        get("/scope", "Content-Length: 0", "Expect: 100-continue"),
        chunked("/scope", b"body"),
        get("/mutate"),
        b"DELETE /scope?z HTTP/1.1\r\nhost: example.test\r\n\r\n",
        get("/scope"),
    ]  # fmt: skip
    alone = []
    for data in rounds:
        with site.peer() as peer:
            peer.send(data)
            reply = peer.reply()
            while reply.status < 200:
                reply = peer.reply()
            alone.append((reply.body, str(peer.port).encode()))
    with site.peer() as peer:
        for data, (wanted, port) in [*zip(rounds, alone, strict=True), *zip(rounds, alone, strict=True)]:
            peer.send(data)
            reply = peer.reply()
            while reply.status < 200:
                reply = peer.reply()
            one, two = (text.replace(number, b"0") for text, number in
                        ((reply.body, str(peer.port).encode()), (wanted, port)))  # fmt: skip
            if one != two:
                assert literal_eval(one.decode()) == literal_eval(two.decode())
    with site.peer(source="127.0.0.9") as other:
        shown = seen(other.ask(get("/scope")))
        assert (shown["client"][0] if asgi else shown["REMOTE_ADDR"]) == "127.0.0.9"
    assert "leak" not in site.ask(get("/scope")).body.decode().lower()


def test_http10(site: Site) -> None:
    shown = seen(site.ask(b"GET /scope HTTP/1.0\r\n\r\n"))
    if site.interface == "asgi":
        assert shown["http_version"] == "1.0"
        assert not {"http.response.early_hint", "http.response.trailers"} & set(shown["extensions"])
        assert shown["headers"] == []
    else:
        assert shown["SERVER_PROTOCOL"] == "HTTP/1.0"
        assert "HTTP_HOST" not in shown


def test_ipv6_addresses(tmp_path: Path) -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("there is no IPv6 here")
    with serving(bind=["[::1]:0", "127.0.0.1:0"]) as site, Peer(("::1", site.port())) as peer:
        scope = seen(peer.ask(get("/scope")))
        assert scope["server"] == ("::1", site.port())
        assert (len(scope["client"]), scope["client"][0]) == (2, "::1")


# bodies


def test_bodies_in(site: Site) -> None:
    body = bytes(range(256)) * 2
    for data in (
        last("/echo", method="POST", body=body),
        last("/echo", method="GET", body=body),
        chunked("/echo", body, headers=["Connection: close"]),
        chunked("/echo", *by_byte(body[:300]), body[300:], headers=["Connection: close"]),
        chunked("/echo", body, end=b"0;x=y\r\nX-Trailer: z\r\n\r\n", headers=["Connection: close"]),
    ):
        for pieces in (data, by_byte(data)):
            (reply,) = replies(site.talk(pieces))
            assert (reply.status, reply.body) == (200, body)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.binary(min_size=1, max_size=40), max_size=6), st.lists(st.integers(0, 600), max_size=10), st.booleans()
)
def test_bodies_in_any_pieces(site: Site, parts: list[bytes], places: list[int], length: bool) -> None:
    first = request("POST", "/echo", body=b"".join(parts)) if length else chunked("/echo", *parts)
    found = replies(site.talk(cut(first + last(), places)))
    assert [one.body for one in found] == [b"".join(parts), b"Hello, World!"]


def test_trailers_of_a_request_are_no_headers(site: Site) -> None:
    data = chunked("/scope", b"x", end=b"0\r\nX-Evil: 1\r\nHost: evil\r\n\r\n") + last("/scope")
    found = replies(site.talk(data))
    assert [one.status for one in found] == [200, 200]
    assert b"evil" not in found[0].body.lower()
    assert b"evil" not in found[1].body.lower()


def test_large_bodies_both_ways(site: Site) -> None:
    body = os.urandom(1 << 20) * 3
    for data in (request("POST", "/echo", body=body), chunked("/echo", *[body[at : at + 70000] for at in
                                                                        range(0, len(body), 70000)])):  # fmt: skip
        with site.peer() as peer:
            sender = threading.Thread(target=peer.send, args=(data,))
            sender.start()
            reply = peer.reply()
            sender.join()
            assert reply.body == body
            assert peer.ask(get("/hello")).status == 200


# responses


def test_a_whole_response(site: Site) -> None:
    with site.peer() as peer:
        for _ in range(3):
            reply = peer.ask(get("/hello"))
            assert (reply.status, reply.reason, reply.body, reply.framing) == (200, "OK", b"Hello, World!", "length")
            assert reply.get("content-length") == "13"
            assert reply.get("content-type") == "text/plain"
            assert not reply.closes
            assert re.fullmatch(r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT", reply.get("date") or "")


def test_a_streamed_response_is_chunked(site: Site) -> None:
    data = script(["start", 200], ["body", "one", True], ["body", "", True], ["body", "two", True], ["body"])
    with site.peer() as peer:
        for _ in range(2):
            reply = peer.ask(data)
            assert (reply.framing, reply.body, reply.whole) == ("chunked", b"onetwo", True)
            assert b"" not in reply.chunks


def test_a_streamed_response_to_http10_ends_with_the_connection(site: Site) -> None:
    data = script(["start", 200], ["body", "one", True], ["body", "two"], version="1.0")
    (reply,) = replies(site.talk(data))
    assert (reply.framing, reply.body) == ("close", b"onetwo")
    data = script(["start", 200], ["body", "one", True], ["body", "two"], version="1.0",
                  headers=["Connection: keep-alive"])  # fmt: skip
    (reply,) = replies(site.talk(data))
    assert (reply.framing, reply.body) == ("close", b"onetwo")


def test_a_streamed_response_with_a_length_is_not_chunked(site: Site) -> None:
    data = script(["start", 200, [["Content-Length", "6"]]], ["body", "one", True], ["body", "two", True], ["body"])
    with site.peer() as peer:
        for _ in range(2):
            reply = peer.ask(data)
            assert (reply.framing, reply.body, reply.get("content-length")) == ("length", b"onetwo", "6")


@pytest.mark.parametrize("coding", ["chunked", "Chunked"])
def test_an_apps_own_transfer_encoding(site: Site, coding: str) -> None:
    """The server frames; what the app claims neither doubles nor contradicts it."""
    for steps in ([["body", "x"]], [["body", "x", True], ["body", "y"]]):
        data = script(["start", 200, [["Transfer-Encoding", coding]]], *steps, headers=["Connection: close"])
        (reply,) = replies(site.talk(data))
        assert reply.status == 500 or (reply.whole and reply.body == "".join(step[1] for step in steps).encode())


def test_head(site: Site) -> None:
    """The headers of GET, no body, and the connection goes on."""
    for target in ("/hello", script(["start", 200, [["Content-Length", "6"]]], ["body", "onetwo"])):
        data = get(target) if isinstance(target, str) else target
        with site.peer() as peer:
            of_get = peer.ask(data)
            of_head = peer.ask(data.replace(b"GET", b"HEAD", 1), "HEAD")
            assert of_head.body == b""
            own = isinstance(target, bytes)  # a length that only the body tells may be left out (RFC 9110, 9.3.2)
            left = [[pair for pair in one.headers if pair[0] != "date" and (own or pair[0] != "content-length")]
                    for one in (of_get, of_head)]  # fmt: skip
            assert left[0] == left[1]
            assert of_head.get("content-length") in ((None, "13") if not own else ("6",))
            assert peer.ask(get("/hello")).body == b"Hello, World!"
    for steps in ([["body", "x" * 100, True]], [["body", "x", True]] * 3, []):
        data = script(["start", 200], *steps, ["body"], method="HEAD") + last()
        found = replies(site.talk(data), "HEAD")
        assert [one.status for one in found] == [200, 200]
        assert found[1].body == b"Hello, World!"


@pytest.mark.parametrize("status", [204, 304])
def test_responses_without_a_body(site: Site, status: int) -> None:
    for steps in ([["body"]], [["body", "ignored"]], [["body", "ig", True], ["body", "nored"]]):
        found = replies(site.talk(script(["start", status, [["ETag", '"x"']]], *steps) + last()))
        assert [one.status for one in found] == [status, 200], found
        assert found[0].get("etag") == '"x"'
        assert found[1].body == b"Hello, World!"


def test_headers_as_the_app_gives_them(site: Site) -> None:
    """In order, duplicates kept, values byte for byte."""
    given_headers = [["Set-Cookie", "a=1"], ["X-Latin", "caf\xe9"], ["set-cookie", "b=2"], ["X-Empty", ""],
                     ["Set-Cookie", "a=1"], ["X-Long", "y" * 20000]]  # fmt: skip
    for end in ([["body", "x"]], [["body", "x", True], ["body", "y"]]):
        reply = site.ask(script(["start", 200, given_headers[:5]], *end))
        assert reply.all("set-cookie") == ["a=1", "b=2", "a=1"]
        names = [name for name, _ in reply.headers if name in ("set-cookie", "x-latin", "x-empty")]
        assert names == ["set-cookie", "x-latin", "set-cookie", "x-empty", "set-cookie"]
        assert (reply.get("x-latin"), reply.get("x-empty")) == ("caf\xe9", "")
    assert site.ask(get("/cookies")).all("set-cookie")[:2] == ["a=1", "b=2"]


def test_status_lines(site: Site) -> None:
    assert site.ask(get("/nothing")).status == 200
    for status, reason in (
        (201, "Created"),
        (404, "Not Found"),
        (418, None),
        (500, "Internal Server Error"),
        (503, None),
    ):
        reply = site.ask(script(["start", status], ["body", "x"]))
        assert reply.status == status
        assert reason is None or reply.reason == reason
    if site.interface == "wsgi":
        assert site.ask(get("/cookies")).reason == "Fine"
        assert site.ask(script(["start", "299 Odd (but) \xe9"], ["body", "x"])).reason == "Odd (but) \xe9"
    else:
        assert site.ask(script(["start", 299], ["body", "x"])).status == 299
        assert site.ask(script(["start", 599], ["body", "x"])).status == 599
    for status in (600, 999, 99, 0):
        assert site.ask(script(["start", status], ["body", "x"])).status == 500


BAD_STARTS = {
    "cr-lf": [200, [["X", "a\r\nSet-Cookie: b"]]],
    "lf": [200, [["X", "a\nSet-Cookie: b"]]],
    "cr": [200, [["X", "a\rSet-Cookie: b"]]],
    "nul": [200, [["X", "a\0b"]]],
    "ends-with-lf": [200, [["X", "a\n"]]],
    "name-lf": [200, [["X\nY", "a"]]],
    "name-cr": [200, [["X\r", "a"]]],
    "name-nul": [200, [["X\0", "a"]]],
    "name-colon": [200, [["X: Y", "a"]]],
    "name-space": [200, [["X Y", "a"]]],
    "name-empty": [200, [["", "a"]]],
    "two-lengths": [200, [["Content-Length", "1"], ["content-length", "1"]]],
    "two-lengths-differ": [200, [["Content-Length", "1"], ["content-length", "2"]]],
    "length-word": [200, [["Content-Length", "one"]]],
    "length-minus": [200, [["Content-Length", "-1"]]],
    "length-plus": [200, [["Content-Length", "+1"]]],
    "length-list": [200, [["Content-Length", "1, 1"]]],
    "length-empty": [200, [["Content-Length", ""]]],
}


@pytest.mark.parametrize("name", BAD_STARTS)
@pytest.mark.parametrize("rest", [[["body", "x"]], [["body", "x", True], ["body"]]], ids=["whole", "streamed"])
def test_bad_heads_are_refused(site: Site, fifo: Callable[[str], Fifo], name: str, rest: list[Any]) -> None:
    """An error in the app; to the client 500, and nothing of what was in the header."""
    report = fifo("report")
    with site.peer() as peer:
        reply = peer.ask(script(["start", *BAD_STARTS[name]], *rest, report=report))
        assert reply.status == 500
        assert reply.all("set-cookie") == []
        assert reply.all("x") == []
        if site.interface == "asgi":
            assert report.wait_sync().startswith(b"start ")
        if not reply.closes:
            assert peer.ask(get("/hello")).body == b"Hello, World!"


@pytest.mark.parametrize("status", [0, 99, 100, 101, 199, 1000, -200, "200", None, 200.5, True])
def test_statuses_of_asgi_out_of_range(asgi: Site, status: Any) -> None:
    reply = asgi.ask(script(["start", status], ["body", "x"], headers=["Connection: close"]))
    if status in (100, 199) and status is not True:  # informational; no real start came
        assert reply.status in (100, 199, 500)
    else:
        assert reply.status == 500


@pytest.mark.parametrize(
    "status",
    [
        "",
        "200",
        "20 OK",
        "2000 OK",
        "OK",
        "200\r\nX: y",
        "200 OK\r\nX: y",
        "200 OK\n",
        "099 Low",
        "abc OK",
        "200OK",
        "+20 OK",
        "\xb2\xb2\xb2 OK",
        "200 \0",
    ],
)
def test_bad_statuses_of_wsgi(wsgi: Site, status: str) -> None:
    reply = wsgi.ask(get(f"/bad-status?status={quote(status, encoding='latin-1')}"))
    assert reply.all("x") == []
    assert reply.status == 500 or (status == "200" and reply.status == 200)


STEPS = [
    "body", "start,start", "start,body,body", "start,body,start", "start,unknown", "start,websocket", "start,untyped",
    "start,body-str", "start,hint", "start,body,hint", "header-str", "unknown", "status-none",
]  # fmt: skip


@pytest.mark.parametrize("steps", STEPS)
def test_illegal_steps_raise_in_the_app(asgi: Site, fifo: Callable[[str], Fifo], steps: str) -> None:
    report = fifo("report")
    with asgi.peer() as peer:
        peer.send(get(f"/steps?steps={steps}&report={report}", "Connection: close"))
        assert report.wait_sync() != b"accepted"
        found = replies(peer.rest())
        if "start" not in steps.split(",")[:-1]:
            assert [one.status for one in found] == [500]
        else:
            assert len(found) <= 1


# too much and too little


def test_more_body_than_content_length(site: Site, fifo: Callable[[str], Fifo]) -> None:
    """An error in the app and the connection closed (or 500, if nothing went out): never a byte behind the length."""
    for number, steps in enumerate(
        (
            [["body", "hello!"]],
            [["body", "hel", True], ["body", "lo!"]],
            [["body", "hello", True], ["body", "!", True], ["body"]],
        )
    ):
        report = fifo(f"report{number}")
        data = script(["start", 200, [["Content-Length", "5"]]], *steps, report=report) + last()
        with site.peer() as peer:
            peer.send(data)
            found = replies(peer.rest())
            assert found[0].status == 500 or (len(found) == 1 and b"hello".startswith(found[0].body)), found
            if site.interface == "asgi":
                assert report.wait_sync().startswith(b"body ")
    for data in (get("/calls"), get("/hello")):
        assert site.ask(data).status == 200


def test_less_body_than_content_length(site: Site) -> None:
    """Closed, so that the client sees the truncation."""
    for steps in (
        [["body", "hel"]],
        [["body", "hel", True], ["body"]],
        [["body", "h", True], ["body", "el"]],
        [["body"]],
    ):
        for method in ("GET", "POST"):
            data = script(["start", 200, [["Content-Length", "5"]]], *steps, method=method) + last()
            found = replies(site.talk(data))
            assert found[0].status == 500 or (len(found) == 1 and not found[0].whole), found


def test_the_next_response_after_a_wrong_length(site: Site) -> None:
    """Where nothing had left it is 500 and the connection stays: then what is behind it is what the next request got,
    whether that came at once, in pieces or later, and whether the wrong one had a body."""
    wrong = [["start", 200, [["Content-Length", "5"]]], ["body", "hello!"]]
    steps = [wrong, [wrong[0], ["body", "hell"]], [wrong[0], ["body"]], [wrong[0], ["body", "HTTP/1.1 200 OK\r\n\r\n"]]]
    requests = [script(*one, method=method, body=body) for one in steps for method, body in (
        ("GET", None), ("POST", b""), ("POST", b"GET /cookies HTTP/1.1\r\nHost: a\r\n\r\n"), ("POST", b"x" * 100_000),
    )]  # fmt: skip
    if site.interface == "wsgi":
        requests += [get(f"/returned?{length}") for length in ("4", "6", "0")]
    echo = request("POST", "/echo", body=b"an echo")
    kept = 0
    for data in requests:
        for cutting in (bytes, by_byte) if len(data) < 5000 else (bytes,):
            with site.peer(unix=cutting is by_byte) as peer:
                pieces = [data + echo] if cutting is bytes else by_byte(data + echo)
                peer.send_pieces([*pieces, last()]) if peer.unix else peer.send(data + echo + last())
                found = replies(peer.rest())
            assert found[0].status in (200, 500)
            if found[0].status == 500 and not found[0].closes:
                kept += 1
                assert [reply.body for reply in found[1:]] == [b"an echo", b"Hello, World!"], found
            else:  # the rest of the request was not read, or the response had begun
                assert len(found) == 1, found
                assert found[0].closes or not found[0].whole
        with site.peer() as peer:
            reply = peer.ask(data)
            if reply.whole and not reply.closes:
                assert peer.ask(echo).body == b"an echo"
                assert peer.ask(get("/hello")).body == b"Hello, World!"
    assert kept


def test_a_returned_list_of_another_length(wsgi: Site) -> None:
    for length in ("4", "6", "0"):
        found = replies(wsgi.talk(get(f"/returned?{length}") + last()))
        if found[0].status != 500:
            assert len(found) == 1, found
            assert found[0].body == b"hello"[: int(length)]
            assert length != "6" or not found[0].whole
    found = replies(wsgi.talk(get("/returned?5") + last()))
    assert [one.body for one in found] == [b"hello", b"Hello, World!"]


def test_body_of_length_0(site: Site) -> None:
    for steps in ([["body"]], [["body", "", True], ["body"]]):
        found = replies(site.talk(script(["start", 200, [["Content-Length", "0"]]], *steps) + last()))
        assert [one.body for one in found] == [b"", b"Hello, World!"]


# errors


def test_an_error_before_the_start_is_500(site: Site) -> None:
    """The traceback is logged, once; the client reads nothing of it."""
    site.records.clear()
    with site.peer() as peer:
        reply = peer.ask(get("/raise"))
        assert reply.status == 500
        assert b"no such thing" not in reply.body
        assert b"Traceback" not in reply.body
        if not reply.closes:
            assert peer.ask(get("/hello")).status == 200
    assert site.logged("no such thing")
    texts = [f"{record.getMessage()} {record.exc_text or ''}" for record in site.records]
    assert sum("no such thing" in text for text in texts) == 1, texts


def test_no_response_is_500(site: Site) -> None:
    assert site.ask(get("/silent")).status == 500
    assert site.ask(get("/hello")).status == 200


def test_an_app_that_ends_its_interpreter(site: Site) -> None:
    """SystemExit: an error of that request, and the next one is served."""
    assert site.ask(get("/exit")).status in (500, 502)
    assert site.ask(get("/hello")).status == 200


def test_an_error_after_the_start_aborts(site: Site) -> None:
    """Never a good end: no last chunk, too few bytes, or a connection that is reset."""
    for version in ("1.1", "1.0"):
        data = script(["start", 200], ["body", "half", True], ["fail"], version=version) + last()
        found = replies(site.talk(data))
        assert len(found) == 1
        assert found[0].body in (b"half", b"")
        if version == "1.1":
            assert (found[0].framing, found[0].whole) == ("chunked", False)
    data = script(["start", 200, [["Content-Length", "8"]]], ["body", "half", True], ["fail"]) + last()
    (reply,) = replies(site.talk(data))
    assert not reply.whole
    (reply,) = replies(site.talk(get("/raise-half") + last()))
    assert not reply.whole


@pytest.mark.parametrize("path", ["/half", "/start-only"])
def test_an_app_that_returns_too_early(asgi: Site, path: str) -> None:
    found = replies(asgi.talk(get(path) + last()))
    assert found[0].status == 500 or (len(found) == 1 and not found[0].whole)


def test_an_error_after_the_end_changes_nothing(asgi: Site) -> None:
    with asgi.peer() as peer:
        reply = peer.ask(script(["start", 200], ["body", "all"], ["fail"]))
        assert (reply.status, reply.body) == (200, b"all")
        assert peer.ask(get("/hello")).status == 200


def test_the_app_is_called_once(site: Site) -> None:
    site.journal()
    paths = ["/hello", "/raise", "/echo", "/silent", "/hello"]
    for path in paths:
        site.ask(request("POST", path, body=b"x"))
    assert site.journal() == [f"POST {path}" for path in paths]


# informational responses, trailers, Expect


def test_103_as_a_start(asgi: Site) -> None:
    for data in (
        script(
            ["start", 103, [["Link", "</a>"], ["Link", "</b>"]]],
            ["start", 102],
            ["start", 103, [["link", "</c>"]]],
            ["start", 200],
            ["body", "x"],
        )
        + last(),
    ):
        for pieces in (data, by_byte(data)):
            found = replies(asgi.talk(pieces))
            assert [one.status for one in found] == [103, 102, 103, 200, 200]
            assert found[0].all("link") == ["</a>", "</b>"]
            assert found[3].all("link") == []


def test_early_hints(site: Site) -> None:
    step: list[Any] = (
        ["links", "</a>; rel=preload", "</b>"]
        if site.interface == "asgi"
        else ["hint", [["Link", "</a>; rel=preload"], ["Link", "</b>"]]]
    )
    found = replies(site.talk(script(step, step, ["start", 200], ["body", "x"], headers=["Connection: close"])))
    assert [one.status for one in found] == [103, 103, 200]
    assert found[0].reason == "Early Hints"
    assert found[0].all("link") == ["</a>; rel=preload", "</b>"]
    assert found[2].all("link") == []


def test_http10_gets_nothing_informational(site: Site) -> None:
    """RFC 9110, 15.2."""
    steps: list[Any] = (
        [["hint", [["Link", "</a>"]]]] if site.interface == "wsgi" else [["start", 103, [["Link", "</a>"]]]]
    )
    found = replies(site.talk(script(*steps, ["start", 200], ["body", "x"], version="1.0")))
    assert [one.status for one in found] in ([200], [500])
    data = request("POST", "/echo", "Expect: 100-continue", body=b"hello", version="1.0")
    assert [one.status for one in replies(site.talk(data))] == [200]


def test_bad_hints_split_nothing(site: Site) -> None:
    bad: list[Any] = ["links", "</a>\r\nX: y"] if site.interface == "asgi" else ["hint", [["Link", "</a>\r\nX: y"]]]
    found = replies(site.talk(script(bad, ["start", 200], ["body", "x"], headers=["Connection: close"])))
    assert found[-1].status == 500
    assert all(one.all("x") == [] for one in found)


def test_trailers(asgi: Site) -> None:
    data = script(
        ["start", 200, [["Trailer", "x-sum"]], {"trailers": True}],
        ["body", "one", True],
        ["body", "two"],
        ["trailers", [["X-Sum", "6"]], True],
        ["trailers", [["x-more", "7"]]],
        headers=["TE: trailers"],
    )
    for pieces in (data + last(), by_byte(data + last())):
        found = replies(asgi.talk(pieces))
        assert [one.status for one in found] == [200, 200]
        assert (found[0].body, found[0].trailers) == (b"onetwo", [("x-sum", "6"), ("x-more", "7")])


def test_trailers_that_never_come_or_were_not_announced(asgi: Site, fifo: Callable[[str], Fifo]) -> None:
    report = fifo("report")
    promised = script(["start", 200, [], {"trailers": True}], ["body", "x"], headers=["TE: trailers"])
    (reply,) = replies(asgi.talk(promised + last()))
    assert not reply.whole
    sudden = script(
        ["start", 200], ["body", "x", True], ["trailers", [["X", "y"]]], headers=["TE: trailers"], report=report
    )
    found = replies(asgi.talk(sudden + last()))
    assert report.wait_sync().startswith(b"trailers ")
    assert not found[0].whole
    bad = script(["start", 200, [], {"trailers": True}], ["body", "x"], ["trailers", [["X", "a\r\nY: b"]]],
                 headers=["TE: trailers"])  # fmt: skip
    (reply,) = replies(asgi.talk(bad + last()))
    assert not reply.whole
    assert reply.trailers == []


def test_100_continue_when_the_app_reads(site: Site, fifo: Callable[[str], Fifo]) -> None:
    gate, started = fifo("gate"), fifo("started")
    data = script(
        ["signal", str(started)],
        ["wait", str(gate)],
        ["read"],
        ["start", 200],
        ["body", "read"],
        method="POST",
        headers=["Expect: 100-continue", "Content-Length: 5"],
    )
    for chopped in (False, True):
        with site.peer(unix=True) as peer:
            peer.send_pieces(by_byte(data) if chopped else [data])
            started.wait_sync()
            assert peer.quiet(0.05)
            gate.release()
            reply = peer.reply()
            assert (reply.status, reply.headers) == (100, [])
            assert peer.quiet(0.05)
            peer.send(b"hello" + last())
            found = replies(peer.rest())
            assert [(one.status, one.body) for one in found] == [(200, b"read"), (200, b"Hello, World!")]


def test_no_100_without_reading(site: Site) -> None:
    """The final response alone; then the body may come or not, but it is never taken for a request."""
    site.journal()
    with site.peer() as peer:
        reply = peer.ask(request("POST", "/hello", "Expect: 100-continue", "Content-Length: 20"))
        assert (reply.status, reply.body) == (200, b"Hello, World!")
        peer.send(b"GET /smuggled HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        peer.rest()
    assert site.journal() == ["POST /hello"]


def test_expect_in_other_cases(site: Site) -> None:
    """The body came already, there is none, or the expectation is written otherwise: one final response."""
    for data in (
        request("POST", "/echo", "Expect: 100-continue", "Connection: close", body=b"hello"),
        request("POST", "/echo", "Expect: 100-Continue", "Connection: close", body=b"hello"),
        chunked("/echo", b"hello", headers=["Expect: 100-continue", "Connection: close"]),
        request("GET", "/hello", "Expect: 100-continue", "Connection: close"),
        request("POST", "/echo", "Expect: 100-continue", "Connection: close", body=b""),
    ):
        found = replies(site.talk(data))
        assert [one.status for one in found if one.status >= 200] == [200], found


# connections


def test_keep_alive_and_close(site: Site) -> None:
    for header in ("Connection: close", "connection: Close", "Connection: keep-alive, close", "Connection: x, close"):
        with site.peer() as peer:
            reply = peer.ask(get("/hello", header))
            assert reply.status == 200
            assert reply.closes
            assert peer.closed()
    with site.peer() as peer:
        for header in ("Connection: keep-alive", "Connection: x", "Keep-Alive: timeout=5", "X-Connection: close"):
            assert not peer.ask(get("/hello", header)).closes
    with site.peer() as peer:
        reply = peer.ask(b"GET /hello HTTP/1.0\r\n\r\n")
        assert reply.body == b"Hello, World!"
        assert peer.closed()
    with site.peer() as peer:
        reply = peer.ask(b"GET /hello HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        if (reply.get("connection") or "").lower() == "keep-alive":
            assert peer.ask(b"GET /hello HTTP/1.0\r\n\r\n").status == 200
        assert peer.closed()


def test_an_app_may_close(asgi: Site) -> None:
    """An ASGI app; PEP 3333 forbids it to WSGI apps."""
    for value in ("close", "Close", "x, close"):
        for steps in ([["body", "x"]], [["body", "x", True], ["body"]]):
            found = replies(asgi.talk(script(["start", 200, [["Connection", value]]], *steps) + last()))
            assert len(found) == 1
            assert found[0].closes
            assert found[0].whole


def test_pipelining_keeps_order(site: Site) -> None:
    """Fast behind slow, errors, bodies, HEAD: each answer in its place."""
    kinds: list[tuple[bytes, str, Callable[[Reply], bool]]] = [
        (get("/hello"), "GET", lambda r: r.body == b"Hello, World!"),
        (request("POST", "/echo", body=b"one"), "POST", lambda r: r.body == b"one"),
        (request("HEAD", "/hello"), "HEAD", lambda r: r.status == 200 and r.body == b""),
        (chunked("/echo", b"t", b"wo"), "POST", lambda r: r.body == b"two"),
        (get("/cookies"), "GET", lambda r: r.status in (200, 204)),
        (script(["start", 200], ["body", "s", True], ["body", "t"]), "GET", lambda r: r.body == b"st"),
        (request("POST", "/hello", body=b"unread"), "POST", lambda r: r.body == b"Hello, World!"),
        (get("/big?40000"), "GET", lambda r: r.body == b"b" * 40000),
        (get("/nothing?mark=7"), "GET", lambda r: b"mark=7" in r.body),
    ]
    data = b"".join(kind[0] for kind in kinds * 3) + last()
    for pieces in (data, cut(data, range(0, len(data), 13))):
        site.journal()
        found = replies(site.talk(pieces), *[kind[1] for kind in kinds * 3])
        assert len(found) == len(kinds) * 3 + 1
        for kind, reply in zip(kinds * 3, found, strict=False):
            assert kind[2](reply), (kind[0], reply)
        assert len(site.journal()) == len(found)


def test_many_requests_on_one_connection(site: Site) -> None:
    with site.peer() as peer:
        for number in range(300):
            assert peer.ask(request("POST", "/echo", body=b"%d" % number)).body == b"%d" % number


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 500), max_size=10))
def test_answers_do_not_depend_on_the_cuts(site: Site, places: list[int]) -> None:
    data = (
        get("/hello")
        + request("POST", "/echo", body=b"x" * 30)
        + chunked("/echo", b"abc", b"def")
        + last("/x?y", "Z: w")
    )
    whole = replies(site.talk(data, unix=True))
    cut_up = replies(site.talk(cut(data, places)))
    assert [one.gist() for one in cut_up] == [one.gist() for one in whole]
    assert len(whole) == 4


# mounts


@pytest.fixture(scope="module")
def mounted() -> Iterator[Site]:
    mounts = [
        {"prefix": "/api", "app": "http_app:app"},
        {"prefix": "/api/v2", "app": "http_app:other"},
        {"prefix": "/wsgi", "app": "http_wsgi:app"},
        {"prefix": "/wsgi/in", "app": "http_wsgi:other"},
        {"prefix": "/admin", "app": "http_app:other"},
        {"prefix": "/caf\xe9", "app": "http_app:other"},
    ]
    with serving(mounts=mounts, loop="uvloop") as site:
        yield site


MOUNTS = [
    ("/api", ["/api", "/api"]),
    ("/api/", ["/api", "/api/"]),
    ("/api/scope?x", ["/api", "/api/scope"]),
    ("/api/v2", ["other", "/api/v2", "/api/v2"]),
    ("/api/v2/x", ["other", "/api/v2", "/api/v2/x"]),
    ("/api/v22", ["/api", "/api/v22"]),
    ("/api?x=/api/v2", ["/api", "/api"]),
    ("/api/x/../v2", ["/api", "/api/x/../v2"]),
    ("/%61pi/scope", ["/api", "/api/scope"]),
    ("/%61dmin", ["other", "/admin", "/admin"]),
    ("/admin/%2e%2e/x", ["other", "/admin", "/admin/../x"]),
    ("/wsgi", ["/wsgi", ""]),
    ("/wsgi/", ["/wsgi", "/"]),
    ("/wsgi/scope", ["/wsgi", "/scope"]),
    ("/wsgi/in/x", ["other", "/wsgi/in", "/x"]),
    ("/wsgi/inner", ["/wsgi", "/inner"]),
    ("/w%73gi/in", ["other", "/wsgi/in", ""]),
    ("/caf%C3%A9/x", ["other", "/caf\xe9", "/caf\xe9/x"]),
    ("http://h.test/admin/x", ["other", "/admin", "/admin/x"]),
    ("/", None), ("/apis", None), ("/ap", None), ("/API", None), ("//api", None), ("/x/api", None),
    ("/api%2Fscope", None), ("/adm", None), ("/wsgi%2fin", None), ("/caf%E9", None),
]  # fmt: skip


@pytest.mark.parametrize(("target", "wanted"), MOUNTS, ids=[case[0] for case in MOUNTS])
def test_mounts(mounted: Site, target: str, wanted: list[str] | None) -> None:
    """Longest prefix at boundaries of the decoded path; %2F is none; 404 for none."""
    reply = mounted.ask(get(target, "X: y"))
    if wanted is None:
        assert reply.status == 404
        return
    assert reply.status == 200
    if reply.body.startswith(b"["):
        assert json.loads(reply.body)[: len(wanted)] == wanted
        return
    shown = seen(reply)
    if "path" in shown:
        assert [shown["root_path"], shown["path"]] == wanted
    else:
        assert [shown["SCRIPT_NAME"], shown["PATH_INFO"]] == wanted


def test_mounts_change_within_a_connection(mounted: Site) -> None:
    data = b"".join(
        request("POST", f"{path}/echo", body=b"hello") for path in ("/api", "/wsgi", "/none", "/api")
    ) + last("/wsgi/hello")
    for _ in range(3):
        assert [one.status for one in replies(mounted.talk(data))] == [200, 200, 404, 200, 200]


def test_404_reads_past_the_body(mounted: Site) -> None:
    found = replies(mounted.talk(request("POST", "/none", body=get("/api/smuggled")) + last("/api/hello")))
    assert [one.status for one in found] in ([404, 200], [404])
    assert mounted.ask(request("HEAD", "/none"), "HEAD").status == 404


@pytest.mark.parametrize("interface", ["asgi", "wsgi"])
def test_root_path(interface: str) -> None:
    with serving(interface, root_path="/base") as site:
        for target in ("/base/scope", "/scope"):
            shown = seen(site.ask(get(target)))
            if interface == "asgi":
                assert shown["root_path"] == "/base"
                assert shown["path"] in ("/base/scope", "/scope")
            else:
                assert (shown["SCRIPT_NAME"], shown["PATH_INFO"]) == ("/base", "/scope")
        if interface == "wsgi":
            assert seen(site.ask(get("/basement")))["PATH_INFO"] == "/basement"


def test_root_path_and_mounts() -> None:
    mounts = [{"prefix": "/api", "app": "http_app:app"}, {"prefix": "/wsgi", "app": "http_wsgi:app"}]
    with serving(mounts=mounts, root_path="/base") as site:
        assert seen(site.ask(get("/api/scope")))["root_path"] == "/base/api"
        shown = seen(site.ask(get("/wsgi/scope")))
        assert (shown["SCRIPT_NAME"], shown["PATH_INFO"]) == ("/base/wsgi", "/scope")


# WSGI


def test_write_goes_first(wsgi: Site) -> None:
    assert wsgi.ask(get("/write")).body == b"written twice returned"


def test_generators_leave_piece_by_piece(wsgi: Site, fifo: Callable[[str], Fifo]) -> None:
    """Each yielded or written chunk is with the client before the next is asked for."""
    gate = fifo("gate")
    for kind in ("body", "write"):
        steps = [["start", 200], [kind, "one"], ["wait", str(gate)], [kind, "two"], ["wait", str(gate)], ["body", "."]]
        with wsgi.peer() as peer:
            peer.send(script(*steps, headers=["Connection: close"]))
            peer.until(b"one\r\n")
            assert peer.quiet(0.02)
            gate.release()
            peer.until(b"two\r\n")
            assert peer.quiet(0.02)
            gate.release()
            assert peer.rest().endswith(b"0\r\n\r\n")


def test_headers_of_generators_are_taken_at_the_first_byte(wsgi: Site) -> None:
    reply = wsgi.ask(get("/generator"))
    assert (reply.status, reply.get("x-late"), reply.body) == (201, "yes", b"one two")


def test_close_is_called_once(wsgi: Site, fifo: Callable[[str], Fifo]) -> None:
    for number, data in enumerate((
        "/close?report={}", "/close?fail=1&report={}", "/close-unstarted?report={}",
    )):  # fmt: skip
        report = fifo(f"report{number}")
        wsgi.talk(get(data.format(report), "Connection: close"))
        assert wsgi.ask(get("/hello")).status == 200
        assert report.wait_sync() == b"c"
    for number, steps in enumerate((
        [["start", 200], ["body", "x"]],
        [["start", 200], ["body", "x"], ["fail"]],
        [["fail"]],
        [["start", 200, [["Content-Length", "1"]]], ["body", "xyz"], ["body", "more"]],
        [["start", 204], ["body", "x"]],
    )):  # fmt: skip
        for method in ("GET", "HEAD"):
            closed = fifo(f"closed{number}{method}")
            wsgi.talk(script(*steps, closed=closed, method=method, headers=["Connection: close"]))
            assert wsgi.ask(get("/hello")).status == 200
            assert closed.wait_sync() == b"c"


def test_exc_info(wsgi: Site) -> None:
    reply = wsgi.ask(get("/start-exc-info"))
    assert (reply.status, reply.reason, reply.get("x-second"), reply.all("x-first")) == (500, "Sorry", "yes", [])
    (reply,) = replies(wsgi.talk(get("/start-exc-info-late") + last()))
    assert (reply.status, reply.body, reply.whole) == (200, b"gone out", False)
    assert wsgi.ask(get("/start-twice")).status == 500
    assert wsgi.ask(get("/bad-body")).status == 500


@pytest.mark.parametrize("chunks", [None, 1, 7, 100])
def test_wsgi_input(wsgi: Site, chunks: int | None) -> None:
    body = b"first line\nsecond\n\nlast without end"
    ways = [
        ["readline"],
        ["read", 3],
        ["readline", 2],
        ["read", 0],
        ["next"],
        ["next"],
        ["readlines"],
        ["read"],
        ["readline"],
    ]

    def send(target: str) -> Any:
        if chunks is None:
            data = last(target, method="POST", body=body)
        else:
            parts = [body[at : at + chunks] for at in range(0, len(body), chunks)]
            data = chunked(target, *parts, headers=["Connection: close"])
        found = [replies(wsgi.talk(pieces))[0] for pieces in (data, by_byte(data))]
        assert found[0].body == found[1].body
        return literal_eval(found[0].body.decode())

    assert send(f"/reads?ways={quote(json.dumps(ways))}") == [
        b"first line\n", b"sec", b"on", b"", b"d\n", b"\n", [b"last without end"], b"", b"",
    ]  # fmt: skip
    assert send("/lines-iter") == body.splitlines(keepends=True)
    assert send(f"/reads?ways={quote(json.dumps([['read', 1000], ['read', 1000], ['read', -1], ['next']]))}") == [
        body,
        b"",
        b"",
        b"",
    ]


def test_file_wrapper(wsgi: Site, tmp_path: Path, fifo: Callable[[str], Fifo]) -> None:
    data = os.urandom(3_000_000)
    file = tmp_path / "file"
    file.write_bytes(data)
    empty = tmp_path / "empty"
    empty.write_bytes(b"")
    with wsgi.peer() as peer:
        assert peer.ask(get(f"/real-file?path={file}")).body == data
        assert peer.ask(get(f"/file-part?path={file}&offset=1000")).body == data[1000:]
        assert peer.ask(get(f"/file-part?path={file}&length=3000000")).body == data
        assert peer.ask(get(f"/real-file?path={empty}")).body == b""
        assert peer.ask(request("HEAD", f"/real-file?path={file}"), "HEAD").status == 200
        assert peer.ask(get("/file")).body == b"f" * 100_000
        report = fifo("report")
        assert peer.ask(get(f"/file-like?size=20000&report={report}")).body == b"f" * 20000
        assert report.wait_sync() == b"c"
    (reply, _) = replies(wsgi.talk(get(f"/file-part?path={file}&offset=5000000") + last()))
    assert reply.body == b""
    found = replies(wsgi.talk(get(f"/file-part?path={file}&length=3000001") + last()))
    assert len(found) == 1
    assert not found[0].whole
    found = replies(wsgi.talk(get(f"/file-part?path={file}&length=1000") + last()))
    assert [one.body for one in found] == [data[:1000], b"Hello, World!"]
    (reply,) = replies(wsgi.talk(get(f"/real-file?path={file}", version="1.0")))
    assert reply.body == data
    found = replies(wsgi.talk(b"".join(get(f"/real-file?path={file}") + get("/hello") for _ in range(3)) + last()))
    assert [len(one.body) for one in found] == [3_000_000, 13] * 3 + [13]


@pytest.mark.parametrize("isolation", ["process", "thread"])
def test_file_wrapper_elsewhere(isolation: str, tmp_path: Path) -> None:
    data = os.urandom(500_000)
    file = tmp_path / "file"
    file.write_bytes(data)
    with serving("wsgi", isolation, "uvloop") as site, site.peer() as peer:
        for _ in range(3):
            assert peer.ask(get(f"/real-file?path={file}")).body == data
            assert peer.ask(get(f"/file-part?path={file}&offset=10")).body == data[10:]


def test_errors_stream_goes_to_the_log(wsgi: Site) -> None:
    wsgi.records.clear()
    assert wsgi.ask(get("/errors")).status == 200
    assert wsgi.logged("to the error log")


@pytest.mark.parametrize("name", ["app", "writer"])
def test_the_validator_passes(name: str) -> None:
    """wsgiref.validate, through the server."""
    with serving("wsgi", app=f"strict_wsgi:{name}") as site:
        for data in (get("/"), request("POST", "/?a=b", body=b"hello"), chunked("/", b"hello"), request("HEAD", "/")):
            reply = site.ask(data, data[:4].decode().strip())
            assert reply.status == 200
            assert not [record for record in site.records if record.levelname == "ERROR"]


# ASGI


def test_pathsend(asgi: Site, tmp_path: Path) -> None:
    data = os.urandom(700_000)
    file = tmp_path / "file"
    file.write_bytes(data)
    for headers in ([], [["Content-Length", "700000"]]):
        with asgi.peer() as peer:
            reply = peer.ask(script(["start", 200, headers], ["pathsend", str(file)]))
            assert reply.body == data
            assert peer.ask(get("/hello")).status == 200
            assert peer.ask(script(["start", 200, headers], ["pathsend", str(file)], method="HEAD"), "HEAD").body == b""
            assert peer.ask(get("/hello")).status == 200
    found = replies(asgi.talk(script(["start", 200], ["pathsend", str(tmp_path / "none")]) + last()))
    assert len(found) == 1 or found[0].status == 500
    assert found[0].status == 500 or not found[0].whole
    assert asgi.ask(get("/hello")).status == 200


def test_receive_waits_after_the_body(asgi: Site, fifo: Callable[[str], Fifo]) -> None:
    """It never answers an empty request twice, and tells the disconnect when the response is complete."""
    report = fifo("report")
    target = f"/receive-after-end?report={report}"
    for data in (
        get(target),
        request("POST", target, body=b"hello"),
        request("POST", target, body=b"x" * 20_000),
        chunked(target, b"hello"),
        chunked(target),
    ):
        for _ in range(15):
            assert asgi.ask(data).status == 200
            assert json.loads(report.wait_sync()) == [False, "http.disconnect", "http.disconnect"]


def test_state_of_the_lifespan_is_a_copy() -> None:
    with serving(app="lifespan_app:app", lifespan="auto") as site:
        assert site.ask(get("/")).status in (200, 404, 500)


# real clients


def test_httpx(site: Site) -> None:
    httpx = pytest.importorskip("httpx")
    with httpx.Client(base_url=site.url) as client:
        assert client.get("/hello").text == "Hello, World!"
        assert client.post("/echo", content=b"x" * 100_000).content == b"x" * 100_000
        assert client.post("/echo", content=iter([b"one", b"two"])).content == b"onetwo"
        assert client.head("/hello").content == b""
        assert client.get("/raise").status_code == 500
        assert client.get("/cookies").headers.get_list("set-cookie")[:2] == ["a=1", "b=2"]
        with client.stream("GET", "/big?300000") as response:
            assert sum(map(len, response.iter_bytes())) == 300_000
        with pytest.raises(httpx.RemoteProtocolError):
            client.get("/raise-half")
    with httpx.Client(transport=httpx.HTTPTransport(uds=site.unix)) as client:
        assert client.get("http://localhost/hello").text == "Hello, World!"


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_curl(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "upload"
    file.write_bytes(os.urandom(1_500_000))  # enough for curl to say Expect: 100-continue

    def curl(*arguments: str) -> bytes:
        done = subprocess.run(
            ["curl", "-sS", "--fail-with-body", "--max-time", "10", *arguments],
            capture_output=True,
            check=False,
            timeout=15,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert curl(f"{site.url}/hello") == b"Hello, World!"
    assert curl("--http1.0", f"{site.url}/hello") == b"Hello, World!"
    assert curl("--http2", f"{site.url}/hello") == b"Hello, World!"  # asks for an upgrade to h2c
    assert b"content-type: text/plain" in curl("-I", f"{site.url}/hello").lower()
    assert curl("--data-binary", f"@{file}", f"{site.url}/echo") == file.read_bytes()
    assert curl("-T", str(file), "-H", "Transfer-Encoding: chunked", f"{site.url}/echo") == file.read_bytes()
    assert curl("--http2", "--data", "a=b", f"{site.url}/echo") == b"a=b"
    assert curl(f"{site.url}/hello", f"{site.url}/hello") == b"Hello, World!" * 2
    assert curl("--unix-socket", site.unix, "http://localhost/hello") == b"Hello, World!"


# listening


def test_unix_sockets_mode_and_end(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with serving(unix=str(path), unix_mode="600") as site:
        assert path.stat().st_mode & 0o777 == 0o600
        assert site.addresses == [site.url, f"unix:{path}"]
    assert not path.exists()


def test_a_port_that_is_taken() -> None:
    with (
        serving() as site,
        pytest.raises(OSError, match=r"(?i)address already in use"),
        serving(bind=[f"127.0.0.1:{site.port()}"]),
    ):
        pass


def test_an_inherited_socket() -> None:
    with socket.socket() as listener, contextlib.ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        site = stack.enter_context(serving(bind=[f"fd://{os.dup(listener.fileno())}"]))
        with socket.create_connection(listener.getsockname()) as client:
            client.sendall(last())
            client.settimeout(10)
            assert client.recv(65536).startswith(b"HTTP/1.1 200 OK")
        assert site.addresses


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="reads /proc")
def test_no_file_descriptor_is_left_behind() -> None:
    """Of a server that has stopped; the first leaves what is made once."""
    held = []
    for _ in range(4):
        with serving() as site, site.peer() as peer:
            peer.ask(get("/hello"))
            site.talk(b"nonsense\r\n\r\n")
        held.append(len(os.listdir("/proc/self/fd")))
    assert held[-1] <= held[1]
