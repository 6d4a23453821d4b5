"""What the server refuses, and when it gives up: bad requests, smuggling, limits, clocks, trust.

Every refused request is sent whole, byte by byte, and cut at random, each time with a request behind it: there is one
refusal, the connection closes, and the app never hears of what came behind.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import select
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("pydantic")
pytest.importorskip("httptools")

from conftest import DEADLINE, Fifo
from http_kit import (
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
)

HOST = b"Host: example.test\r\n"
BEHIND = get("/smuggled") + last("/smuggled-again")


def raw(head: bytes, body: bytes = b"") -> bytes:
    return head + b"\r\n\r\n" + body


def post(fields: bytes, body: bytes = b"", path: bytes = b"/echo", version: bytes = b"1.1") -> bytes:
    """A POST with exactly these header lines besides Host."""
    return b"POST %s HTTP/%s\r\n%s%s\r\n\r\n%s" % (path, version, HOST, fields, body)


def plain(fields: bytes) -> bytes:
    return b"GET /hello HTTP/1.1\r\n%s%s\r\n\r\n" % (HOST, fields)


def body_of(chunks: bytes) -> bytes:
    return post(b"Transfer-Encoding: chunked", chunks)


def line(first: bytes) -> bytes:
    return first + b"\r\n" + HOST + b"\r\n"


BAD = {400}
REFUSED: dict[str, tuple[bytes, set[int]]] = {
    # two ways to tell the length (RFC 9112, 6.1 and 6.3)
    "length-and-chunked": (post(b"Content-Length: 5\r\nTransfer-Encoding: chunked", b"0\r\n\r\n"), BAD),
    "chunked-and-length": (post(b"Transfer-Encoding: chunked\r\nContent-Length: 5", b"0\r\n\r\n"), BAD),
    "length-0-and-chunked": (post(b"Content-Length: 0\r\nTransfer-Encoding: chunked", b"0\r\n\r\n"), BAD),
    "length-and-gzip": (post(b"Content-Length: 5\r\nTransfer-Encoding: gzip", b"hello"), {400, 501}),
    "two-lengths": (post(b"Content-Length: 5\r\nContent-Length: 6", b"hello!"), BAD),
    "two-lengths-apart": (post(b"Content-Length: 5\r\nX: y\r\nContent-Length: 0", b"hello!"), BAD),
    "length-list": (post(b"Content-Length: 5, 6", b"hello!"), BAD),
    "length-plus": (post(b"Content-Length: +5", b"hello"), BAD),
    "length-minus": (post(b"Content-Length: -5", b"hello"), BAD),
    "length-hex": (post(b"Content-Length: 0x5", b"hello"), BAD),
    "length-underscore": (post(b"Content-Length: 0_5", b"hello"), BAD),
    "length-two-words": (post(b"Content-Length: 5 5", b"hello"), BAD),
    "length-fraction": (post(b"Content-Length: 5.0", b"hello"), BAD),
    "length-empty": (post(b"Content-Length:", b"hello"), BAD),
    "length-word": (post(b"Content-Length: five", b"hello"), BAD),
    "length-latin": (post(b"Content-Length: \xb2", b"hello"), BAD),
    "length-overflow": (post(b"Content-Length: 18446744073709551621", b"hello"), {400, 413}),
    "length-huge": (post(b"Content-Length: " + b"9" * 60, b"hello"), {400, 413}),
    # transfer codings
    "coding-gzip": (post(b"Transfer-Encoding: gzip", b"0\r\n\r\n"), {501}),
    "coding-gzip-chunked": (post(b"Transfer-Encoding: gzip, chunked", b"0\r\n\r\n"), {501}),
    "coding-unknown": (post(b"Transfer-Encoding: xchunked", b"0\r\n\r\n"), {501}),
    "coding-unknown-behind": (post(b"Transfer-Encoding: chunkedx", b"0\r\n\r\n"), {501}),
    "coding-identity": (post(b"Transfer-Encoding: identity", b"0\r\n\r\n"), {400, 501}),
    "coding-chunked-gzip": (post(b"Transfer-Encoding: chunked, gzip", b"0\r\n\r\n"), {400, 501}),
    "coding-chunked-identity": (post(b"Transfer-Encoding: chunked, identity", b"0\r\n\r\n"), {400, 501}),
    "coding-chunked-twice": (post(b"Transfer-Encoding: chunked, chunked", b"0\r\n\r\n"), {400, 501}),
    "coding-two-headers": (post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip", b"0\r\n\r\n"), {400, 501}),
    "coding-two-chunked": (post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", b"0\r\n\r\n"), {400, 501}),
    "coding-gzip-then-chunked": (post(b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked", b"0\r\n\r\n"), {501}),
    "coding-empty": (post(b"Transfer-Encoding:", b"0\r\n\r\n"), {400, 501}),
    "coding-quoted": (post(b'Transfer-Encoding: "chunked"', b"0\r\n\r\n"), {400, 501}),
    "coding-vertical-tab": (post(b"Transfer-Encoding: \x0bchunked", b"0\r\n\r\n"), {400, 501}),
    "coding-form-feed": (post(b"Transfer-Encoding: chunked\x0c", b"0\r\n\r\n"), {400, 501}),
    "coding-parameter": (post(b"Transfer-Encoding: chunked;q=1", b"0\r\n\r\n"), {400, 501}),
    "coding-in-http-1.0": (post(b"Transfer-Encoding: chunked", b"0\r\n\r\n", version=b"1.0"), {400, 501}),
    # chunks
    "chunk-size-letter": (body_of(b"g\r\nhello\r\n0\r\n\r\n"), BAD),
    "chunk-size-empty": (body_of(b"\r\nhello\r\n0\r\n\r\n"), BAD),
    "chunk-size-minus": (body_of(b"-5\r\nhello\r\n0\r\n\r\n"), BAD),
    "chunk-size-plus": (body_of(b"+5\r\nhello\r\n0\r\n\r\n"), BAD),
    "chunk-size-0x": (body_of(b"0x5\r\nhello\r\n0\r\n\r\n"), BAD),
    "chunk-size-underscore": (body_of(b"0_5\r\nhello\r\n0\r\n\r\n"), BAD),
    "chunk-size-space-before": (body_of(b" 5\r\nhello\r\n0\r\n\r\n"), BAD),
    "chunk-size-space-within": (body_of(b"0 5\r\nhello\r\n0\r\n\r\n"), BAD),
    "chunk-size-overflow": (body_of(b"10000000000000005\r\nhello\r\n0\r\n\r\n"), {400, 413}),
    "chunk-size-overflow-long": (body_of(b"f" * 40 + b"\r\nhello\r\n0\r\n\r\n"), {400, 413}),
    "chunk-size-bare-lf": (body_of(b"5\nhello\r\n0\r\n\r\n"), BAD),
    "chunk-size-bare-cr": (body_of(b"5\rhello\r\n0\r\n\r\n"), BAD),
    "chunk-extension-bare-lf": (body_of(b"5;a=b\nhello\r\n0\r\n\r\n"), BAD),
    "chunk-extension-bare-cr": (body_of(b"5;a=b\rX\r\nhello\r\n0\r\n\r\n"), BAD),
    "chunk-too-long": (body_of(b"5\r\nhello!\r\n0\r\n\r\n"), BAD),
    "chunk-ends-with-lf": (body_of(b"5\r\nhello\n0\r\n\r\n"), BAD),
    "chunk-without-crlf": (body_of(b"5\r\nhello0\r\n\r\n"), BAD),
    "chunk-last-bare-lf": (body_of(b"5\r\nhello\r\n0\n\n"), BAD),
    "chunk-last-lf-behind": (body_of(b"5\r\nhello\r\n0\r\n\n"), BAD),
    "trailer-without-colon": (body_of(b"5\r\nhello\r\n0\r\nnonsense\r\n\r\n"), BAD),
    "trailer-space-before-colon": (body_of(b"5\r\nhello\r\n0\r\nX : y\r\n\r\n"), BAD),
    "trailer-bare-lf": (body_of(b"5\r\nhello\r\n0\r\nX: y\nZ: z\r\n\r\n"), BAD),
    "trailer-folded": (body_of(b"5\r\nhello\r\n0\r\nX: y\r\n z\r\n\r\n"), BAD),
    # lines
    "request-line-bare-lf": (b"GET /hello HTTP/1.1\n" + HOST + b"\r\n", BAD),
    "header-bare-lf": (plain(b"X: y\nZ: z"), BAD),
    "header-bare-lf-length": (plain(b"X: y\nContent-Length: 30"), BAD),
    "head-ends-with-lf": (b"GET /hello HTTP/1.1\r\n" + HOST + b"\n", BAD),
    "all-bare-lf": (b"GET /hello HTTP/1.1\nHost: example.test\n\n", BAD),
    "request-line-bare-cr": (b"GET /hello HTTP/1.1\r" + HOST + b"\r\n", BAD),
    "header-bare-cr": (plain(b"X: y\rZ: z"), BAD),
    "header-bare-cr-length": (plain(b"X: y\rContent-Length: 30"), BAD),
    "header-ends-with-cr-cr-lf": (plain(b"X: y\r"), BAD),
    "head-ends-with-cr": (b"GET /hello HTTP/1.1\r\n" + HOST + b"\rX", BAD),
    "header-nul": (plain(b"X: a\0b"), BAD),
    "header-name-nul": (plain(b"X\0: a"), BAD),
    "space-before-colon": (plain(b"X : y"), BAD),
    "tab-before-colon": (plain(b"X\t: y"), BAD),
    "space-before-colon-length": (post(b"Content-Length : 5", b"hello"), BAD),
    "space-before-colon-coding": (post(b"Transfer-Encoding : chunked", b"0\r\n\r\n"), BAD),
    "space-before-colon-host": (raw(b"GET /hello HTTP/1.1\r\nHost : example.test"), BAD),
    "folded": (plain(b"X: y\r\n z"), BAD),
    "folded-tab": (plain(b"X: y\r\n\tz"), BAD),
    "folded-coding": (post(b"Transfer-Encoding:\r\n chunked", b"0\r\n\r\n"), BAD),
    "folded-first": (raw(b"GET /hello HTTP/1.1\r\n Host: example.test"), BAD),
    "folded-empty": (plain(b"X: y\r\n "), BAD),
    "header-without-colon": (plain(b"nonsense"), BAD),
    "header-without-name": (plain(b": value"), BAD),
    "header-name-space": (plain(b"X Y: z"), BAD),
    "header-name-delimiter": (plain(b"X(Y): z"), BAD),
    "header-name-latin": (plain(b"X\xe9: z"), BAD),
    "header-name-bracket": (plain(b"[x]: z"), BAD),
    "header-name-quote": (plain(b'"x": z'), BAD),
    "header-name-at": (plain(b"x@y: z"), BAD),
    # Host (RFC 9112, 3.2)
    "no-host": (raw(b"GET /hello HTTP/1.1\r\nX: y"), BAD),
    "no-header": (raw(b"GET /hello HTTP/1.1"), BAD),
    "two-hosts": (plain(b"Host: other.test"), BAD),
    "two-hosts-the-same": (plain(b"Host: example.test"), BAD),
    "two-hosts-other-case": (plain(b"X: y\r\nhOST: example.test"), BAD),
    "host-space": (raw(b"GET /hello HTTP/1.1\r\nHost: a b"), BAD),
    "host-path": (raw(b"GET /hello HTTP/1.1\r\nHost: a/b"), BAD),
    "host-user": (raw(b"GET /hello HTTP/1.1\r\nHost: user@example.test"), BAD),
    "host-list": (raw(b"GET /hello HTTP/1.1\r\nHost: a.test, b.test"), BAD),
    "absolute-without-host": (raw(b"GET http://example.test/hello HTTP/1.1\r\nX: y"), BAD),
    # methods and targets
    "method-delimiter": (line(b"G@T /hello HTTP/1.1"), BAD),
    "method-parenthesis": (line(b"(GET) /hello HTTP/1.1"), BAD),
    "method-empty": (line(b" /hello HTTP/1.1"), BAD),
    "method-tab": (line(b"GET\t/hello HTTP/1.1"), BAD),
    "method-nul": (line(b"G\0T /hello HTTP/1.1"), BAD),
    "method-colon": (line(b"GET: /hello HTTP/1.1"), BAD),
    "space-at-the-end": (line(b"GET /hello HTTP/1.1 "), BAD),
    "target-space": (line(b"GET /hel lo HTTP/1.1"), BAD),
    "target-empty": (line(b"GET  HTTP/1.1"), BAD),
    "target-relative": (line(b"GET hello HTTP/1.1"), BAD),
    "target-query-alone": (line(b"GET ?x HTTP/1.1"), BAD),
    "target-fragment": (line(b"GET /hello#x HTTP/1.1"), BAD),
    "target-star": (line(b"GET * HTTP/1.1"), BAD),
    "target-nul": (line(b"GET /a\0b HTTP/1.1"), BAD),
    "target-control": (line(b"GET /a\x01b HTTP/1.1"), BAD),
    "target-del": (line(b"GET /a\x7fb HTTP/1.1"), BAD),
    "target-tab": (line(b"GET /a\tb HTTP/1.1"), BAD),
    "target-cr": (line(b"GET /a\rb HTTP/1.1"), BAD),
    "target-no-authority": (line(b"GET http:// HTTP/1.1"), BAD),
    "connect": (line(b"CONNECT example.test:80 HTTP/1.1"), {400, 405, 501}),
    "connect-path": (line(b"CONNECT /hello HTTP/1.1"), {400, 405, 501}),
    # versions
    "version-2.0": (line(b"GET /hello HTTP/2.0"), {505}),
    "version-3.0": (line(b"GET /hello HTTP/3.0"), {505}),
    "version-9.9": (line(b"GET /hello HTTP/9.9"), {505}),
    "version-0.9": (line(b"GET /hello HTTP/0.9"), {400, 505}),
    "version-none": (b"GET /hello\r\n\r\n", {400, 505}),
    "version-one-number": (line(b"GET /hello HTTP/1"), {400, 505}),
    "version-long": (line(b"GET /hello HTTP/1.10"), {400, 505}),
    "version-letter": (line(b"GET /hello HTTP/1.x"), {400, 505}),
    "version-lower-case": (line(b"GET /hello http/1.1"), {400, 505}),
    "version-other-protocol": (line(b"GET /hello ICE/1.0"), {400, 505}),
    "version-rtsp": (line(b"DESCRIBE /hello RTSP/1.0"), {400, 501, 505}),
    "version-ice": (line(b"SOURCE /hello ICE/1.0"), {400, 501, 505}),
    "nonsense": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(64)) + b"\r\n\r\n", {400, 505}),
    "words": (b"hello server\r\n\r\n", {400, 505}),
    "a-response": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", {400, 505}),
    "two-heads": (b"GET /hello HTTP/1.1\r\n" + HOST + b"GET /smuggled HTTP/1.1\r\n" + HOST + b"\r\n", BAD),
}

ACCEPTED: dict[str, tuple[bytes, bytes]] = {
    "length": (last("/echo", body=b"hello", method="POST"), b"hello"),
    "length-zeros": (last("/echo", "Content-Length: 0005", method="POST") + b"hello", b"hello"),
    "length-0": (last("/echo", body=b"", method="POST"), b""),
    "chunked": (chunked("/echo", b"hello", b" world", headers=["Connection: close"]), b"hello world"),
    "chunked-empty": (chunked("/echo", headers=["Connection: close"]), b""),
    "chunked-case": (last("/echo", "transfer-ENCODING: ChunKed", method="POST") + b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
    "chunk-size-zeros": (
        last("/echo", "Transfer-Encoding: chunked", method="POST") + b"0005\r\nhello\r\n000\r\n\r\n",
        b"hello",
    ),
    "chunk-size-hex": (
        last("/echo", "Transfer-Encoding: chunked", method="POST")
        + b"1a\r\n%s\r\n1A\r\n%s\r\n0\r\n\r\n" % (b"a" * 26, b"b" * 26),
        b"a" * 26 + b"b" * 26,
    ),
    "chunk-extension": (
        last("/echo", "Transfer-Encoding: chunked", method="POST") + b'5;a;b=c;d="e f"\r\nhello\r\n0;x\r\n\r\n',
        b"hello",
    ),
    "trailers": (
        last("/echo", "Transfer-Encoding: chunked", method="POST") + b"5\r\nhello\r\n0\r\nX-A: b\r\nX-C:\r\n\r\n",
        b"hello",
    ),
    "crlf-before": (b"\r\n" + last(), b"Hello, World!"),
    "crlf-between": (request("POST", "/hello", body=b"x") + b"\r\n" + last(), b"Hello, World!"),
    "absolute": (last("http://other.test/hello?x"), b"Hello, World!"),
    "http-1.0": (b"GET /hello HTTP/1.0\r\n\r\n", b"Hello, World!"),
    "no-space-behind-colon": (
        b"GET /hello HTTP/1.1\r\nHost:example.test\r\nConnection:close\r\n\r\n",
        b"Hello, World!",
    ),
    "empty-host": (b"GET /hello HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n", b"Hello, World!"),
    "ipv6-host": (b"GET /hello HTTP/1.1\r\nHost: [::1]:8000\r\nConnection: close\r\n\r\n", b"Hello, World!"),
    "odd-names": (last("/hello", "!#$%&'*+-.^_`|~0aZ: x", "X:", "X: \t y\t "), b"Hello, World!"),
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """An ASGI server with the default limits."""
    with serving(unix=str(tmp_path_factory.mktemp("edge") / "s"), loop="uvloop") as site:
        yield site


@pytest.fixture(scope="module")
def wsgi(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with serving("wsgi", unix=str(tmp_path_factory.mktemp("edge") / "s")) as site:
        yield site


def check_refused(site: Site, pieces: bytes | list[bytes], statuses: set[int], before: int = 0) -> Reply:
    """The last of `before` + 1 responses is a refusal that closes; the app heard of nothing behind it."""
    site.journal()
    found = replies(site.talk(pieces))
    assert [one.status for one in found[:before]] == [200] * before
    assert len(found) == before + 1, found
    refusal = found[-1]
    assert refusal.status in statuses, refusal
    assert refusal.whole
    assert refusal.closes, refusal
    assert not [call for call in site.journal() if "smuggled" in call]
    return refusal


# refusals


@pytest.mark.parametrize("name", REFUSED)
def test_refused(site: Site, name: str) -> None:
    data, statuses = REFUSED[name]
    check_refused(site, data + BEHIND, statuses)
    check_refused(site, get("/hello") + data + BEHIND, statuses, before=1)
    check_refused(site, by_byte(data + BEHIND), statuses)


@pytest.mark.parametrize("name", ["length-and-chunked", "two-lengths", "chunk-size-letter", "two-hosts", "coding-gzip"])
def test_refused_for_wsgi(wsgi: Site, name: str) -> None:
    data, statuses = REFUSED[name]
    check_refused(wsgi, data + BEHIND, statuses)
    check_refused(wsgi, by_byte(data + BEHIND), statuses)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(REFUSED)), st.lists(st.integers(0, 400), max_size=8))
def test_refused_in_any_pieces(site: Site, name: str, places: list[int]) -> None:
    data, statuses = REFUSED[name]
    check_refused(site, cut(get("/hello") + data + BEHIND, places), statuses, before=1)


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted(site: Site, name: str) -> None:
    data, body = ACCEPTED[name]
    for pieces in (data, by_byte(data)):
        site.journal()
        found = replies(site.talk(pieces))
        assert [one.status for one in found] == [200] * len(found), found
        assert found[-1].body == body
        assert len(site.journal()) == len(found)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(ACCEPTED)), st.lists(st.integers(0, 400), max_size=8))
def test_accepted_in_any_pieces(site: Site, name: str, places: list[int]) -> None:
    data, body = ACCEPTED[name]
    found = replies(site.talk(cut(get("/hello") + data, places)))
    assert {one.status for one in found} == {200}
    assert found[-1].body == body


def test_what_comes_behind_connection_close_is_not_parsed(site: Site) -> None:
    """Neither answered nor complained of."""
    for behind in (BEHIND, b"nonsense\r\n\r\n", b"\0\0\0", b"GET /x HTTP/1.1\nHost"):
        for pieces in (last() + behind, by_byte(last() + behind)):
            site.journal()
            found = replies(site.talk(pieces))
            assert [one.status for one in found] == [200]
            assert site.journal() == ["GET /hello"]


def test_an_upgrade_that_is_not_served_is_ignored(site: Site) -> None:
    """RFC 9110, 7.8: the request is an ordinary one, its body too. The connection may close behind it."""
    for name in ("foo", "h2c", "TLS/1.0", "websocket2"):
        upgrade = ["Connection: Upgrade", f"Upgrade: {name}"]
        for first in (
            request("POST", "/echo", *upgrade, body=b"hello"),
            chunked("/echo", b"hello", headers=upgrade),
            get("/echo", *upgrade, body=b"hello"),
        ):
            for pieces in (first + last(), by_byte(first + last())):
                site.journal()
                found = replies(site.talk(pieces))
                assert [one.status for one in found] in ([200], [200, 200]), (name, found)
                assert found[0].body == b"hello"
                assert len(site.journal()) == len(found)


def test_a_body_is_not_a_request(site: Site) -> None:
    """A request hidden in a body that the app does not read is never run."""
    inner = get("/smuggled")
    for data in (
        request("POST", "/hello", body=inner) + last(),
        request("GET", "/hello", body=inner) + last(),
        chunked("/hello", inner, inner) + last(),
        request("POST", "/hello", "Expect: 100-continue", body=inner) + last(),
    ):
        for pieces in (data, by_byte(data)):
            site.journal()
            found = [one for one in replies(site.talk(pieces)) if one.status >= 200]
            assert found[0].status == 200
            calls = site.journal()
            assert len(calls) == len(found)
            assert not [call for call in calls if "smuggled" in call]


def test_a_refusal_says_why_and_gives_nothing_away(site: Site) -> None:
    refusal = check_refused(site, b"GET <script> HTTP/1.1\r\n\r\n", BAD)
    assert b"<script>" not in refusal.body
    assert refusal.get("date")
    assert refusal.framing == "length"
    assert (refusal.get("content-type") or "text/plain").startswith("text/plain")


def test_a_big_refused_upload_reads_its_answer(site: Site) -> None:
    """The refusal is not lost to a reset while the client still sends."""
    for _ in range(5):
        with site.peer() as peer:
            data = post(b"Content-Length: 8000000\r\nTransfer-Encoding: chunked") + b"x" * 4_000_000
            peer.send(data)
            assert [one.status for one in replies(peer.rest())] == [400]


# limits


@pytest.fixture(scope="module")
def bounded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    mounts = [
        {"prefix": "/small", "app": "http_app:app", "max_body": 100},
        {"prefix": "/large", "app": "http_app:app", "max_body": 100_000},
        {"prefix": "/wsgi", "app": "http_wsgi:app", "max_body": 100},
    ]
    with serving(unix=str(tmp_path_factory.mktemp("edge") / "s"), app="http_app:app", mounts=mounts) as site:
        yield site


def pieces_of(data: bytes, size: int = 1000) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def test_request_line_at_the_limit(site: Site) -> None:
    """8190 bytes pass, with or without their CRLF counted; what is longer is 414 wherever it is cut."""
    room = 8190 - len("GET  HTTP/1.1\r\n")
    for size in (room - 1, room):
        target = "/scope?" + "a" * (size - 7)
        assert seen(site.ask(get(target)))["query_string"] == target[7:].encode()
        assert replies(site.talk(pieces_of(last(target))))[0].status == 200
    for size in (room + 3, room + 1000, 60_000, 600_000):
        data = get("/scope?" + "a" * (size - 7)) + BEHIND
        check_refused(site, data, {414})
        check_refused(site, pieces_of(data), {414})
        check_refused(site, get("/hello") + data, {414}, before=1)


def test_one_header_at_the_limit(site: Site) -> None:
    room = 8190 - len("X: \r\n")
    for size in (room - 1, room):
        assert dict(seen(site.ask(get("/scope", "X: " + "a" * size)))["headers"])[b"x"] == b"a" * size
        assert replies(site.talk(pieces_of(last("/scope", "X: " + "a" * size))))[0].status == 200
    for size in (room + 3, room + 1000, 60_000, 600_000):
        for header in ("X: " + "a" * size, "a" * size + ": x"):
            data = get("/hello", header) + BEHIND
            check_refused(site, data, {431})
            check_refused(site, pieces_of(data), {431})


def test_all_headers_at_the_limit(site: Site) -> None:
    fields = [f"X-{number}: " + "a" * 8000 for number in range(8)]
    assert len(seen(site.ask(get("/scope", *fields)))["headers"]) == 9
    more = [*fields, "Y: " + "a" * 2000]
    for data in (get("/hello", *more) + BEHIND, get("/hello", *more, *more) + BEHIND):
        check_refused(site, data, {431})
        check_refused(site, pieces_of(data), {431})


def test_all_headers_at_the_limit_behind_others(tmp_path: Path) -> None:
    """Of requests that come in one read, each head is counted by itself."""
    with serving(unix=str(tmp_path / "s"), max_header=1000, max_headers_size=1000) as site:
        small, large = (get("/hello", *[f"X-{number}: {'a' * 100}" for number in range(count)]) for count in (8, 12))
        assert len(replies(site.talk(small * 9 + last("/hello")))) == 10
        for before in range(3):
            check_refused(site, small * before + large + BEHIND, {431}, before)


def test_number_of_headers(site: Site) -> None:
    fields = [f"X-{number}: y" for number in range(99)]
    assert len(seen(site.ask(get("/scope", *fields)))["headers"]) == 100
    for more in (1, 500):
        data = get("/hello", *fields, *["Y: z"] * more) + BEHIND
        check_refused(site, data, {431})
        check_refused(site, by_byte(data) if more == 1 else pieces_of(data), {431})


@pytest.mark.parametrize(("start", "piece", "statuses"), [
    (b"GET /", b"a" * 1000, {414}),
    (b"A" * 5, b"A" * 1000, {400, 414, 501}),
    (b"GET /hello HTTP/1.1\r\nX: ", b"a" * 1000, {431}),
    (b"GET /hello HTTP/1.1\r\n", b"a" * 1000, {431}),
    (b"GET /hello HTTP/1.1\r\n", b"X: " + b"a" * 500 + b"\r\n", {431}),
    (b"GET /hello HTTP/1.1\r\n", b"X: y\r\n", {431}),
    (b"GET /hello HTTP/1.1\r\nX:", b" " * 1000, {400, 431}),
    (b"POST /hello HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n5;", b"a" * 1000, {400, 413, 431}),
    (b"POST /echo HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n" * 50, {400, 413, 431}),
    (b"POST /echo HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: ", b"a" * 1000, {400, 413, 431}),
    (b"POST /echo HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n", b"0" * 1000, {400, 413, 431}),
], ids=["target", "method", "value", "name", "big-headers", "many-headers", "spaces", "extension", "trailers",
        "trailer", "zeros"])  # fmt: skip
def test_an_endless_head_is_refused_before_it_ends(site: Site, start: bytes, piece: bytes, statuses: set[int]) -> None:
    """Nobody waits for an end that never comes; at most 1 MB is taken."""
    with site.peer() as peer:
        peer.send(start)
        sent = 0
        while sent < 1 << 20 and not select.select([peer.socket], [], [], 0)[0]:
            peer.send(piece)
            peer.settle()
            sent += len(piece)
        found = [one for one in replies(peer.rest(3.0)) if one.status != 200]
        assert not found or found[0].status in statuses
        assert found or b"/hello " in start  # an app that does not read may have answered already


def test_empty_lines_before_a_request_are_no_way_to_stay(site: Site) -> None:
    """They end at a limit, or at the clock of the head: not for ever."""
    with serving(head_timeout=0.5) as clocked, clocked.peer() as peer:
        end = time.monotonic() + 5.0
        while time.monotonic() < end and not select.select([peer.socket], [], [], 0.01)[0]:
            peer.send(b"\r\n" * 100)
        assert time.monotonic() < end
        assert [one.status for one in replies(peer.rest())] in ([], [400], [408], [431])


@pytest.mark.parametrize("prefix", ["/small", "/wsgi"])
def test_a_body_over_the_limit(bounded: Site, prefix: str) -> None:
    for body in (b"x" * 101, b"x" * 100_000):
        for data in (request("POST", f"{prefix}/echo", body=body), chunked(f"{prefix}/echo", body),
                     chunked(f"{prefix}/echo", *[body[:10]] * 11)):  # fmt: skip
            check_refused(bounded, data + BEHIND, {413})
            check_refused(bounded, pieces_of(data + BEHIND, 17 if len(data) < 1000 else 9000), {413})
    for data in (request("POST", f"{prefix}/echo", body=b"x" * 100), chunked(f"{prefix}/echo", *[b"y" * 10] * 10)):
        assert len(bounded.ask(data).body) == 100


def test_the_limit_is_the_mounts_own(bounded: Site) -> None:
    assert len(bounded.ask(request("POST", "/large/echo", body=b"x" * 100_000)).body) == 100_000
    assert len(bounded.ask(request("POST", "/echo", body=b"x" * 200_000)).body) == 200_000
    check_refused(bounded, request("POST", "/large/echo", body=b"x" * 100_001) + BEHIND, {413})
    assert bounded.ask(request("POST", "/smaller/echo", body=b"x" * 1000)).status == 200


def test_413_comes_before_the_body_and_without_100(bounded: Site) -> None:
    bounded.journal()
    with bounded.peer() as peer:
        peer.send(request("POST", "/small/echo", "Content-Length: 101", "Expect: 100-continue"))
        assert [one.status for one in replies(peer.rest())] == [413]
    assert bounded.journal() == []


def test_413_while_the_app_reads(bounded: Site) -> None:
    """A chunked body that grows too large: the app, which reads, is not told that it ended well."""
    with bounded.peer() as peer:
        peer.send(chunked("/small/echo", b"x" * 60, end=b""))
        peer.settle()
        peer.send(b"64\r\n" + b"y" * 100 + b"\r\n0\r\n\r\n" + BEHIND)
        assert [one.status for one in replies(peer.rest())] == [413]
    assert not [one for one in bounded.journal() if "smuggled" in one]


# clocks


@pytest.fixture(scope="module")
def clocked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server in a hurry."""
    with serving(unix=str(tmp_path_factory.mktemp("edge") / "s"), head_timeout=0.4, body_timeout=0.4,
                 keepalive_timeout=0.4, timeout=0.6, write_timeout=0.6, grace=0.2,
                 mounts=[{"prefix": "/wsgi", "app": "http_wsgi:app"},
                         {"prefix": "/slow", "app": "http_app:app", "timeout": 20.0},
                         {"prefix": "/", "app": "http_app:app"}]) as site:  # fmt: skip
        yield site


def lasted(peer: Peer, least: float, most: float = 5.0) -> list[Reply]:
    """What the server says until it closes, which takes from `least` to `most` seconds."""
    begin = time.monotonic()
    found = replies(peer.rest(most))
    assert time.monotonic() - begin >= least * 0.75
    return found


def dribble(peer: Peer, data: bytes, seconds: float = 5.0) -> list[Reply]:
    """Send a byte each 20 ms until the server closes."""
    end = time.monotonic() + seconds
    at = 0
    while not select.select([peer.socket], [], [], 0.02)[0]:
        assert time.monotonic() < end, "still open"
        peer.send(data[at : at + 1])
        at += 1
    return replies(peer.rest())


def test_head_clock_from_accept(clocked: Site) -> None:
    with clocked.peer() as peer:
        assert [one.status for one in lasted(peer, 0.4)] in ([], [408])


def test_head_clock_from_the_first_byte(clocked: Site) -> None:
    for part in (b"G", b"GET /hello HTTP/1.1\r\n", b"GET /hello HTTP/1.1\r\nHost: example.test\r\n"):
        with clocked.peer() as peer:
            peer.send(part)
            found = lasted(peer, 0.4)
            assert [one.status for one in found] in ([408], [] if part == b"G" else [408])
            assert all(one.closes for one in found)


def test_dribbling_does_not_put_the_head_clock_off(clocked: Site) -> None:
    with clocked.peer() as peer:
        begin = time.monotonic()
        found = dribble(peer, b"GET /hello HTTP/1.1\r\n" + b"X: y\r\n" * 100)
        assert [one.status for one in found] == [408]
        assert 0.3 < time.monotonic() - begin < 3.0


def test_the_head_clock_holds_for_later_requests(clocked: Site) -> None:
    with clocked.peer() as peer:
        assert peer.ask(get("/hello")).status == 200
        peer.send(b"GET /hello HTTP/1.1\r\n")
        assert [one.status for one in lasted(peer, 0.4)] == [408]
    with clocked.peer() as peer:
        assert peer.ask(get("/hello")).status == 200
        assert [one.status for one in dribble(peer, b"GET /hello HTTP/1.1\r\n" + b"X: y\r\n" * 100)] == [408]


def test_keep_alive_clock(clocked: Site) -> None:
    """An idle connection closes without a word: a 408 might be taken for the next request's answer."""
    with clocked.peer() as peer:
        assert peer.ask(get("/hello")).status == 200
        assert lasted(peer, 0.4) == []


@pytest.mark.parametrize("mount", ["", "/wsgi"])
def test_body_clock(clocked: Site, mount: str) -> None:
    for data in (
        request("POST", f"{mount}/echo", "Content-Length: 10") + b"hello",
        chunked(f"{mount}/echo", b"hello", end=b""),
    ):
        with clocked.peer() as peer:
            peer.send(data)
            (reply,) = lasted(peer, 0.4)
            assert reply.status == 408
            assert reply.closes


def test_progress_puts_the_body_clock_off(clocked: Site) -> None:
    body = b"x" * 30
    for head, data in (
        (request("POST", "/slow/echo", "Content-Length: 30", "Connection: close"), by_byte(body)),
        (request("POST", "/slow/echo", "Transfer-Encoding: chunked", "Connection: close"),
         [*[b"1\r\nx\r\n"] * 30, b"0\r\n\r\n"]),
    ):  # fmt: skip
        with clocked.peer() as peer:
            peer.send(head)
            for piece in data:
                assert not select.select([peer.socket], [], [], 0.03)[0]
                peer.send(piece)
            (reply,) = replies(peer.rest())
            assert (reply.status, reply.body) == (200, body)


def test_504(clocked: Site, fifo: Callable[[str], Fifo]) -> None:
    """A response that does not start in time; the app is cancelled."""
    started, cancelled = fifo("started"), fifo("cancelled")
    with clocked.peer() as peer:
        begin = time.monotonic()
        reply = peer.ask(get(f"/forever?started={started}&cancelled={cancelled}"))
        assert reply.status == 504
        assert 0.4 < time.monotonic() - begin < 5.0
        started.wait_sync()
        cancelled.wait_sync()
        assert reply.closes or peer.ask(get("/hello")).body == b"Hello, World!"


def test_a_server_that_stood_still_judges_nobody_by_it(clocked: Site, fifo: Callable[[str], Fifo]) -> None:
    """Its clock has not gone on meanwhile: who asks right behind has all of the time."""
    started, gate = fifo("started"), fifo("gate")
    with clocked.peer() as peer:
        assert peer.ask(get("/hello")).status == 200
        still = threading.Event()

        async def stand() -> None:
            still.set()
            time.sleep(1.0)  # noqa: ASYNC251  of a limit of 0.5 s

        with ThreadPoolExecutor(1) as executor:
            standing = executor.submit(clocked.call, stand())
            assert still.wait(DEADLINE)
            peer.send(get(f"/gate?started={started}&gate={gate}"))
            standing.result()
        started.wait_sync()
        gate.release()
        assert peer.reply().status == 200


def test_504_for_wsgi(clocked: Site, fifo: Callable[[str], Fifo]) -> None:
    started = fifo("started")
    assert clocked.ask(get(f"/wsgi/spin?started={started}")).status == 504
    assert clocked.ask(get("/wsgi/hello")).status == 200


def test_a_late_answer_reaches_nobody(clocked: Site, fifo: Callable[[str], Fifo]) -> None:
    """What an app sends after its 504 is not taken for the next response."""
    started, gate = fifo("started"), fifo("gate")
    with clocked.peer() as peer:
        reply = peer.ask(get(f"/stubborn?started={started}&gate={gate}"))
        assert reply.status == 504
        gate.release()
        assert clocked.ask(get("/hello")).body == b"Hello, World!"
        if not reply.closes:
            assert peer.ask(get("/hello")).body == b"Hello, World!"
        else:
            assert peer.closed()


def test_the_clock_of_the_start_does_not_end_a_response_that_started(
    clocked: Site, fifo: Callable[[str], Fifo]
) -> None:
    gate = fifo("gate")
    with clocked.peer() as peer:
        peer.send(get(f"/step-chunks?gate={gate}", "Connection: close"))
        peer.until(b"first\r\n")
        assert peer.quiet(1.2)
        gate.release()
        assert b"second" in peer.rest()


def test_the_timeout_is_the_mounts_own(clocked: Site, fifo: Callable[[str], Fifo]) -> None:
    gate = fifo("gate")
    with clocked.peer() as peer:
        peer.send(get(f"/slow/gate?gate={gate}"))
        assert peer.quiet(1.2)
        gate.release()
        assert peer.reply().body == b"through"


@pytest.mark.parametrize("mount", ["", "/wsgi"])
def test_write_clock(clocked: Site, fifo: Callable[[str], Fifo], mount: str) -> None:
    """A client that takes nothing is cut off, and the app learns it."""
    report = fifo("report")
    steps: list[list[Any]] = [["start", 200], *[["big", 1 << 20, True]] * 40]
    data = script(*steps, report=report, closed=report).replace(b"/script", f"{mount}/script".encode(), 1)
    with clocked.peer(receive_buffer=8192) as peer:
        peer.send(data)
        assert report.wait_sync() in (b"big OSError", b"c")
        assert not replies(peer.rest())[0].whole


def test_slow_reading_puts_the_write_clock_off(clocked: Site) -> None:
    """A download that takes longer than the clock, but is never without progress for so long."""
    with clocked.peer() as peer:
        peer.send(get("/big?25000000", "Connection: close"))
        begin, got = time.monotonic(), 0
        while not peer.ended:
            peer.fill()
            got += len(peer.data)
            peer.data.clear()
            while not peer.ended and got > (time.monotonic() - begin) * 20_000_000:
                os.sched_yield()
        assert got > 25_000_000
        assert time.monotonic() - begin > 1.0


# how many connections


def test_silent_connections_do_not_starve_new_ones() -> None:
    with serving(max_connections=8, head_timeout=60.0, keepalive_timeout=60.0) as site, contextlib.ExitStack() as stack:
        silent = [stack.enter_context(site.peer()) for _ in range(30)]
        assert site.ask(get("/hello")).status == 200
        idle = stack.enter_context(site.peer())
        assert idle.ask(get("/hello")).status == 200
        silent += [stack.enter_context(site.peer()) for _ in range(30)]
        assert site.ask(get("/hello")).status == 200
        partial = [stack.enter_context(site.peer()) for _ in range(30)]
        for peer in partial:
            peer.send(b"GET /hello HTTP/1.1\r\n")
        assert site.ask(get("/hello")).status == 200


def test_connections_are_bounded(fifo: Callable[[str], Fifo]) -> None:
    """Those at work keep their places; one more waits, or is told to come back."""
    started, gate = fifo("started"), fifo("gate")
    with serving(max_connections=4) as site, contextlib.ExitStack() as stack:
        busy = [stack.enter_context(site.peer()) for _ in range(4)]
        for peer in busy:
            peer.send(get(f"/gate?started={started}&gate={gate}", "Connection: close"))
            started.wait_sync()
        with site.peer() as more:
            more.send(last())
            early = not more.quiet(0.3)
            if early and more.data:
                assert more.reply().status == 503
            gate.release(4)
            for peer in busy:
                assert peer.reply().body == b"through"
            if not early:
                assert more.reply().status == 200
        assert site.ask(get("/hello")).status == 200


def test_too_many_requests_are_503(fifo: Callable[[str], Fifo]) -> None:
    started, gate = fifo("started"), fifo("gate")
    with (
        serving("wsgi", max_pending=2, window=1, max_concurrency=1) as site,
        contextlib.ExitStack() as stack,
        ThreadPoolExecutor() as executor,
    ):
        peers = [stack.enter_context(site.peer()) for _ in range(10)]
        peers[0].send(get(f"/block?started={started}&gate={gate}"))
        started.wait_sync()
        for peer in peers[1:]:
            peer.send(get("/hello"))
        waiting = [peer for peer in peers[1:] if peer.quiet(0.1)]
        assert len(waiting) in (2, 3, 4)
        refused = [peer.reply() for peer in peers[1:] if peer not in waiting]
        assert {one.status for one in refused} == {503}
        assert all((one.get("retry-after") or "").isdigit() for one in refused)
        gate.release()
        assert [one.status for one in executor.map(Peer.reply, [peers[0], *waiting])] == [200] * (len(waiting) + 1)


# who is believed


def forwarded_scope(reply: Reply) -> tuple[str, str]:
    scope = seen(reply)
    return scope["client"][0], scope["scheme"]


CASES = [
    (["X-Forwarded-For: 192.0.2.1"], "192.0.2.1", "http"),
    (["X-Forwarded-For: 192.0.2.1, 192.0.2.2"], "192.0.2.2", "http"),
    (["X-Forwarded-For: 192.0.2.1,192.0.2.2 , 10.0.0.1"], "192.0.2.2", "http"),
    (["X-Forwarded-For: 192.0.2.1", "X-Forwarded-For: 192.0.2.2"], "192.0.2.2", "http"),
    (["X-Forwarded-For: 192.0.2.1, 192.0.2.9", "X-Forwarded-For: 10.0.0.2, 127.0.0.1"], "192.0.2.9", "http"),
    (["x-forwarded-for:192.0.2.1"], "192.0.2.1", "http"),
    (["X-Forwarded-For: 10.0.0.3, 10.0.0.2"], "10.0.0.3", "http"),
    (["X-Forwarded-For: 2001:db8::1"], "2001:db8::1", "http"),
    (["X-Forwarded-For: [2001:db8::1]:4711"], "2001:db8::1", "http"),
    (["X-Forwarded-For: 192.0.2.1:4711"], "192.0.2.1", "http"),
    (["X-Forwarded-For: 192.0.2.1, fd00::2"], "192.0.2.1", "http"),
    (["X-Forwarded-For: 192.0.2.1", "X-Forwarded-Proto: https"], "192.0.2.1", "https"),
    (["X-Forwarded-Proto: HTTPS"], "127.0.0.1", "https"),
    (["X-Forwarded-Proto: gopher"], "127.0.0.1", "http"),
    (["X-Forwarded-Proto: "], "127.0.0.1", "http"),
    (["X-Forwarded-For: "], "127.0.0.1", "http"),
    (["Forwarded: for=192.0.2.1;proto=https"], "192.0.2.1", "https"),
    (["Forwarded: For=192.0.2.1; PROTO=https;by=10.0.0.1"], "192.0.2.1", "https"),
    (['Forwarded: for="[2001:db8::1]:4711"'], "2001:db8::1", "http"),
    (['Forwarded: for="192.0.2.1:80"'], "192.0.2.1", "http"),
    (["Forwarded: for=192.0.2.1, for=192.0.2.2;proto=https"], "192.0.2.2", "https"),
    (["Forwarded: for=192.0.2.1", "Forwarded: for=192.0.2.2, for=10.0.0.1"], "192.0.2.2", "http"),
    (['Forwarded: for="192.0.2.1";ext="a,b;for=6.6.6.6"'], "192.0.2.1", "http"),
]


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    allowed = ["127.0.0.1", "10.0.0.0/8", "fd00::/8"]
    with serving(unix=str(tmp_path_factory.mktemp("edge") / "s"), forwarded_allow_ips=allowed,
                 mounts=[{"prefix": "/wsgi", "app": "http_wsgi:app"}, {"prefix": "/", "app": "http_app:app"}],
                 ) as site:  # fmt: skip
        yield site


@pytest.mark.parametrize(("headers", "client", "scheme"), CASES, ids=["|".join(case[0]) for case in CASES])
def test_forwarded(proxied: Site, headers: list[str], client: str, scheme: str) -> None:
    """The first untrusted address from the right, over repeated headers; an app sees it as its client."""
    with proxied.peer() as peer:
        assert forwarded_scope(peer.ask(get("/scope", *headers))) == (client, scheme)
        environ = seen(peer.ask(get("/wsgi/scope", *headers)))
        assert (environ["REMOTE_ADDR"], environ["wsgi.url_scheme"]) == (client, scheme)
        assert forwarded_scope(peer.ask(get("/scope"))) == ("127.0.0.1", "http")
    with proxied.peer(source="127.0.0.2") as stranger:
        assert forwarded_scope(stranger.ask(get("/scope", *headers))) == ("127.0.0.2", "http")
    assert proxied.scope(get("/scope", *headers))["client"][1:] != ()


@pytest.mark.parametrize(
    "address", ["unknown", "_hidden", "-", "not.an.address", "999.1.1.1", "<script>", "\xe9", "1.2.3.4\x01"]
)
def test_what_is_no_address_is_no_client(proxied: Site, address: str) -> None:
    """Nothing left of it is believed either: it may come from anybody."""
    for headers in ([f"X-Forwarded-For: 192.0.2.1, {address}"], [f'Forwarded: for=192.0.2.1, for="{address}"']):
        reply = proxied.ask(get("/scope", *headers))
        if reply.status == 400 and "\x01" in address:
            continue
        scope = seen(reply)
        assert scope["client"] is None or scope["client"][0] != "192.0.2.1"


def test_the_clients_port(proxied: Site) -> None:
    """An int, and never the proxy's port beside the client's address."""
    with proxied.peer() as peer:
        client = seen(peer.ask(get("/scope", "X-Forwarded-For: 192.0.2.1")))["client"]
        assert type(client[1]) is int
        assert client[1] != peer.port
        environ = seen(peer.ask(get("/wsgi/scope", "X-Forwarded-For: 192.0.2.1")))
        assert environ.get("REMOTE_PORT") != str(peer.port)


def test_forwarded_host(proxied: Site) -> None:
    for header in ("X-Forwarded-Host: public.test:8443", 'Forwarded: for=192.0.2.1;host="public.test:8443"'):
        scope = proxied.scope(get("/scope", header))
        assert [value for name, value in scope["headers"] if name == b"host"] == [b"public.test:8443"]
        environ = proxied.scope(get("/wsgi/scope", header))
        assert environ["HTTP_HOST"] == "public.test:8443"
        stranger = proxied.scope(get("/scope", header), source="127.0.0.2")
        assert [value for name, value in stranger["headers"] if name == b"host"] == [b"example.test"]


def test_nobody_is_believed_without_proxy_headers() -> None:
    with serving(proxy_headers=False, forwarded_allow_ips=["*"]) as site:
        headers = ["X-Forwarded-For: 192.0.2.1", "X-Forwarded-Proto: https", "Forwarded: for=192.0.2.2"]
        assert forwarded_scope(site.ask(get("/scope", *headers))) == ("127.0.0.1", "http")


def test_everybody_is_believed_with_a_star(tmp_path: Path) -> None:
    with serving(forwarded_allow_ips=["*"], unix=str(tmp_path / "s")) as site:
        headers = ["X-Forwarded-For: 192.0.2.1, 192.0.2.2", "X-Forwarded-Proto: https"]
        scope = site.scope(get("/scope", *headers), source="127.0.0.2")
        assert (scope["client"][0], scope["scheme"]) == ("192.0.2.1", "https")


def test_a_unix_socket_is_believed_when_named(tmp_path: Path) -> None:
    headers = ["X-Forwarded-For: 192.0.2.1", "X-Forwarded-Proto: https"]
    with serving(forwarded_allow_ips=["unix:"], unix=str(tmp_path / "s")) as site:
        scope = site.scope(get("/scope", *headers), unix=True)
        assert (scope["client"][0], scope["scheme"]) == ("192.0.2.1", "https")
        assert forwarded_scope(site.ask(get("/scope", *headers))) == ("127.0.0.1", "http")
    with serving(unix=str(tmp_path / "t")) as site:
        scope = site.scope(get("/scope", *headers), unix=True)
        assert (scope["client"], scope["scheme"]) == (None, "http")


# the access log


COMMON = re.compile(
    r'(\S+) (\S+) (\S+) \[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "((?:[^"\\]|\\.)*)" (\d{3}) (\d+|-)'
)  # a request's id may stand behind
COMBINED = re.compile(COMMON.pattern + r' "((?:[^"\\]|\\.)*)" "((?:[^"\\]|\\.)*)"')
REQUEST_ID = r"( \S+)?"
AGENT = 'a"b\\c\xe9\x9b31m\x85'


@contextlib.contextmanager
def access_lines() -> Iterator[list[str]]:
    """What goes to the access log, as a handler would write it."""
    lines: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    logger, handler = logging.getLogger("subpool.access"), Handler()
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def logged(kind: str, *data: bytes) -> list[str]:
    with access_lines() as lines:
        with serving(access_log=kind, loop="uvloop") as site:
            for one in data:
                site.talk(one)
        return lines


def test_access_log_common() -> None:
    lines = logged("common", last("/hello?a=b"), last("/cookies"), last("/hello", method="HEAD"),
                   b"GET /x\x1b\"y HTTP/1.1\nHost", script(["start", 200], ["body", "chunk", True], ["body"],
                                                          headers=["Connection: close"]))  # fmt: skip
    found = [match for line in lines if (match := re.fullmatch(COMMON.pattern + REQUEST_ID, line))]
    assert len(found) == len(lines), lines
    done = {match[4].partition(" HTTP")[0]: (match[5], match[6]) for match in found}
    assert done["GET /hello?a=b"] == ("200", "13")
    assert done["GET /cookies"][0] == "204"
    assert done["GET /cookies"][1] in ("0", "-")
    assert done["HEAD /hello"][1] in ("0", "-")
    assert [match[6] for match in found if "/script" in match[4]] == ["5"]
    assert {match[1] for match in found} == {"127.0.0.1"}


@pytest.mark.parametrize("kind", ["combined", "json"])
def test_access_log_escapes(kind: str) -> None:
    """One line a request, of printable characters, which still says what was there."""
    lines = logged(kind, last("/hello?\"'%0a", f"User-Agent: {AGENT}", 'Referer: http://x/"\\'),
                   last("/hello", "X-Forwarded-For: 192.0.2.1", "User-Agent: \"\x85\" 200 5"),
                   last("/hello"))  # fmt: skip
    assert len(lines) == 3
    for line in lines:
        assert all(" " <= char <= "~" or char >= "\xa0" for char in line), repr(line)
    if kind == "json":
        values = [json.loads(line) for line in lines]
        assert any(value == 200 for value in values[0].values())
        assert any("192.0.2.1" in str(value) for value in values[1].values())
        assert any("\\" in str(value) and '"' in str(value) for value in values[0].values())
        return
    found = [re.fullmatch(COMBINED.pattern + REQUEST_ID, line) for line in lines]
    assert all(found), lines
    assert [match[1] for match in found if match] == ["127.0.0.1", "192.0.2.1", "127.0.0.1"]
    assert found[2] is not None
    assert found[2][7] in ("-", "")


def test_no_access_log_when_off() -> None:
    assert logged("off", last()) == []


# the server's own headers


def test_date_and_server_headers(site: Site) -> None:
    dates = re.compile(r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT")
    assert dates.fullmatch(site.ask(get("/hello")).get("date") or "")
    assert site.ask(get("/hello")).get("server") is None
    own = [["Date", "Thu, 01 Jan 1970 00:00:00 GMT"], ["SERVER", "mine"]]
    with serving(server_header="subpool") as named:
        assert named.ask(get("/hello")).get("server") == "subpool"
        reply = named.ask(script(["start", 200, own], ["body"]))
        assert (reply.get("date"), reply.get("server")) == ("Thu, 01 Jan 1970 00:00:00 GMT", "mine")
        assert replies(named.talk(b"nonsense\r\n\r\n"))[0].get("server") in (None, "subpool")
    with serving("wsgi", date_header=False) as undated:
        assert undated.ask(get("/hello")).get("date") is None


# ending


def test_stop_waits_for_what_runs(fifo: Callable[[str], Fifo]) -> None:
    """Idle connections close at once, new ones are not accepted, what runs is finished and then closed."""
    started, gate = fifo("started"), fifo("gate")
    with serving() as site, site.peer() as busy, site.peer() as idle, ThreadPoolExecutor() as executor:
        assert idle.ask(get("/hello")).status == 200
        busy.send(get(f"/gate?started={started}&gate={gate}"))
        started.wait_sync()
        stopping = executor.submit(site.call, site.server.stop(DEADLINE))
        assert idle.closed()
        with pytest.raises(OSError, match="refused"):
            site.peer()
        assert not stopping.done()
        gate.release()
        reply = busy.reply()
        assert (reply.status, reply.body) == (200, b"through")
        assert busy.closed()
        stopping.result(DEADLINE)


def test_stop_cuts_what_does_not_end(fifo: Callable[[str], Fifo]) -> None:
    started, cancelled = fifo("started"), fifo("cancelled")
    with serving() as site, site.peer() as busy:
        busy.send(get(f"/forever?started={started}&cancelled={cancelled}"))
        started.wait_sync()
        begin = time.monotonic()
        site.call(site.server.stop(0.2))
        assert time.monotonic() - begin < 6.0
        assert [one.status for one in replies(busy.rest())] in ([], [503])


# by anything at all


ALPHABET = st.sampled_from([
    b"GET", b"POST", b" ", b"/", b"/smuggled", b"HTTP/1.1", b"\r\n", b"\n", b"\r", b":", b"Host", b"x", b"\xff", b"\0",
    b"hello", b"Content-Length", b"Transfer-Encoding", b"chunked", b"5", b"0", b",", b";", b"\t", b"\r\n\r\n",
    b"Expect: 100-continue\r\n", b"Connection: close\r\n",
])  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(ALPHABET, max_size=20), st.booleans())
def test_any_bytes_end_in_well_formed_responses(site: Site, parts: list[bytes], begun: bool) -> None:
    """Whatever is sent: what comes is a sequence of whole responses, and the server lives."""
    data = (b"POST /hello HTTP/1.1\r\nHost: x\r\n" if begun else b"") + b"".join(parts)
    with site.peer(unix=True) as peer:
        peer.send(data)
        peer.socket.shutdown(1)
        for reply in replies(peer.rest()):
            assert reply.whole
            assert reply.status in (100, 200, 400, 408, 413, 414, 431, 501, 505)
    assert not site.unhandled
