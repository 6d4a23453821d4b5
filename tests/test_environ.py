"""The WSGI environ and its streams: `io.BytesIO` is the reference for `wsgi.input`."""

from __future__ import annotations

import http
import io
import logging
import marshal
from typing import Any
from urllib.parse import unquote_to_bytes
from wsgiref.validate import validator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from subpool.runners.wsgi import run_wsgi

from subpool import environ as environ_module
from subpool.environ import check_environ, complete, from_scope
from subpool.wsgi_io import ErrorStream, InputStream, make_input

GIVEN = {
    "REQUEST_METHOD": "GET",
    "PATH_INFO": "/",
    "SERVER_NAME": "example.test",
    "SERVER_PORT": "80",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "wsgi.url_scheme": "http",
    "wsgi.input": b"",
}


# check_environ


def test_what_passes() -> None:
    class Safe(str):
        __slots__ = ()

    given = {
        **GIVEN,
        "REQUEST_METHOD": http.HTTPMethod.POST,
        "PATH_INFO": "/caf\xc3\xa9",
        "HTTP_X": Safe("x"),
        "wsgi.input": b"body",
        "wsgi.errors": object(),
        "wsgi.version": (1, 0),
        "wsgi.multithread": True,
        "my.data": {"a": [1, 2.5, None, b"x", "\u20ac"]},
    }
    before = dict(given)
    plain, body = check_environ(given)
    assert body == b"body"
    assert given == before
    assert "wsgi.input" not in plain
    assert "wsgi.errors" not in plain
    assert marshal.loads(marshal.dumps(plain)) == plain
    assert plain["REQUEST_METHOD"] == "POST"
    assert type(plain["REQUEST_METHOD"]) is type(plain["HTTP_X"]) is str


@pytest.mark.parametrize("key", sorted(GIVEN))
def test_required_keys(key: str) -> None:
    with pytest.raises(ValueError, match=f"environ has no '{key}'"):
        check_environ({name: value for name, value in GIVEN.items() if name != key})


def test_script_name_and_query_string_are_not_required() -> None:
    plain, _ = check_environ(GIVEN)
    whole = complete(plain, stream=None, errors=None, multithread=False, worker=0)
    assert whole["SCRIPT_NAME"] == whole["QUERY_STRING"] == ""


@pytest.mark.parametrize(
    ("key", "value", "error"),
    [
        ("SERVER_PORT", 80, TypeError),
        ("REQUEST_METHOD", b"GET", TypeError),
        ("REQUEST_METHOD", "", ValueError),
        ("PATH_INFO", None, TypeError),
        ("PATH_INFO", "/\u20ac", ValueError),
        ("HTTP_X", ["a"], TypeError),
        ("wsgi.url_scheme", None, TypeError),
        ("wsgi.input", "text", TypeError),
        ("wsgi.input", None, TypeError),
        ("my.object", object(), TypeError),
        ("my.function", len, TypeError),
        ("my.code", (lambda: None).__code__, TypeError),
        ("my.list", [1, object()], TypeError),
        (7, "x", TypeError),
        (b"HTTP_X", "x", TypeError),
    ],
)
def test_bad_values_name_the_key(key: Any, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=str(key)):
        check_environ({**GIVEN, key: value})


@pytest.mark.parametrize("given", [None, 7, "text", [1, 2]])
def test_no_mapping(given: Any) -> None:
    with pytest.raises(TypeError, match="mapping"):
        check_environ(given)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_input_as_bytes(kind: Any) -> None:
    _, body = check_environ({**GIVEN, "wsgi.input": kind(b"data")})
    assert type(body) is bytes
    assert body == b"data"


def test_input_as_a_stream() -> None:
    stream = io.BytesIO(b"data")
    assert check_environ({**GIVEN, "wsgi.input": stream})[1] is stream


# complete


def test_complete() -> None:
    hints: list[Any] = []
    stream, errors = object(), object()
    whole = complete(
        {"REQUEST_METHOD": "GET", "wsgi.multithread": "mine", "SCRIPT_NAME": "/app"},
        stream=stream,
        errors=errors,
        multithread=True,
        multiprocess=False,
        worker=3,
        early_hints=hints.append,
    )
    assert whole["wsgi.version"] == (1, 0)
    assert whole["wsgi.input"] is stream
    assert whole["wsgi.errors"] is errors
    assert whole["wsgi.multithread"] == "mine"  # the caller's keys win
    assert whole["wsgi.multiprocess"] is False
    assert whole["wsgi.run_once"] is False
    assert whole["wsgi.input_terminated"] is True
    assert whole["SCRIPT_NAME"] == "/app"
    assert whole["subpool.worker"] == 3
    whole["wsgi.early_hints"]([("Link", "</a.css>; rel=preload")])
    assert hints == [[("Link", "</a.css>; rel=preload")]]


def test_early_hints_may_be_ignored() -> None:
    whole = complete({}, stream=None, errors=None, multithread=False, worker=0)
    assert whole["wsgi.early_hints"]([("Link", "x")]) is None
    assert whole["wsgi.multithread"] is False
    assert whole["wsgi.multiprocess"] is True


# from_scope


def scope(**fields: Any) -> dict[str, Any]:
    return {"type": "http", "path": "/", **fields}


def test_from_scope() -> None:
    got = from_scope(
        scope(
            http_version="2",
            method="POST",
            scheme="https",
            path="/api/caf\xe9",
            root_path="/api",
            query_string=b"q=%20\xff",
            server=("example.test", 8443),
            client=("192.0.2.7", 5000),
            headers=[
                (b"host", b"example.test:8443"),
                (b"content-type", b"text/plain"),
                (b"content-length", b"5"),
                (b"x-many", b"1"),
                (b"cookie", b"a=1"),
                (b"x-many", b"2"),
                (b"cookie", b"b=2"),
                (b"x_user", b"admin"),
                (b"x-user", b"caf\xe9"),
                (b"content_length", b"99"),
            ],
        )
    )
    assert got == {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "/api",
        "PATH_INFO": "/caf\xc3\xa9",
        "QUERY_STRING": "q=%20\xff",
        "SERVER_NAME": "example.test",
        "SERVER_PORT": "8443",
        "SERVER_PROTOCOL": "HTTP/2",
        "REMOTE_ADDR": "192.0.2.7",
        "REMOTE_PORT": "5000",
        "wsgi.url_scheme": "https",
        "HTTP_HOST": "example.test:8443",
        "CONTENT_TYPE": "text/plain",
        "CONTENT_LENGTH": "5",
        "HTTP_X_MANY": "1,2",
        "HTTP_COOKIE": "a=1; b=2",
        "HTTP_X_USER": "caf\xe9",
    }


@pytest.mark.parametrize("server", [None, ("/run/app.sock", None)])
def test_from_scope_on_a_unix_socket(server: Any) -> None:
    got = from_scope(scope(server=server, client=None))
    assert (got["SERVER_NAME"], got["SERVER_PORT"], got["REMOTE_ADDR"]) == ("localhost", "80", "")
    assert got["SCRIPT_NAME"] == ""
    assert got["REQUEST_METHOD"] == "GET"
    assert got["SERVER_PROTOCOL"] == "HTTP/1.1"


@pytest.mark.parametrize(
    ("path", "root", "script_name", "path_info"),
    [
        ("/api/x", "/api", "/api", "/x"),
        ("/api", "/api", "/api", ""),
        ("/apiary", "/api", "/api", "/apiary"),
        ("/x", "/api", "/api", "/x"),
        ("/x", "/", "", "/x"),
        ("/api/x", "/api/", "/api", "/x"),
        ("/caf\xe9/x", "/caf\xe9", "/caf\xc3\xa9", "/x"),
    ],
)
def test_root_path(path: str, root: str, script_name: str, path_info: str) -> None:
    got = from_scope(scope(path=path, root_path=root))
    assert (got["SCRIPT_NAME"], got["PATH_INFO"]) == (script_name, path_info)


def test_content_lengths() -> None:
    twice = [(b"content-length", b"5"), (b"content-length", b"5")]
    assert from_scope(scope(headers=twice))["CONTENT_LENGTH"] == "5"
    with pytest.raises(ValueError, match="Content-Length"):
        from_scope(scope(headers=[(b"content-length", b"5"), (b"content-length", b"6")]))


def test_only_http() -> None:
    with pytest.raises(ValueError, match="websocket"):
        from_scope({"type": "websocket", "path": "/"})


@given(st.binary())
def test_path_bytes_survive(raw: bytes) -> None:
    path = b"/" + raw
    quoted = b"/" + b"".join(b"%%%02x" % byte for byte in raw)
    got = from_scope(scope(path=path.decode("utf-8", "replace"), raw_path=quoted))
    assert got["PATH_INFO"].encode("latin-1") == path == unquote_to_bytes(quoted)
    escaped = from_scope(scope(path=path.decode("utf-8", "surrogateescape")))
    assert escaped["PATH_INFO"].encode("latin-1") == path


@given(st.text(), st.binary())
def test_a_raw_path_that_is_another_path_is_ignored(path: str, raw: bytes) -> None:
    if raw.decode("utf-8", "replace") != path:
        got = from_scope(scope(path=path, raw_path=b"".join(b"%%%02x" % byte for byte in raw)))
        assert got["PATH_INFO"].encode("latin-1").decode() == path


NAMES = st.text("abcxyz-_", min_size=1, max_size=6).map(str.encode)
VALUES = st.binary(max_size=8)


@given(st.lists(st.tuples(NAMES, VALUES)))
def test_headers_of_any_kind(headers: list[tuple[bytes, bytes]]) -> None:
    got = from_scope(scope(headers=headers))
    wanted: dict[str, list[str]] = {}
    for name, value in headers:
        if b"_" not in name:
            key = "HTTP_" + name.decode().upper().replace("-", "_")
            wanted.setdefault(key, []).append(value.decode("latin-1"))
    found = {key: value for key, value in got.items() if key.startswith("HTTP_")}
    assert found == {key: ",".join(values) for key, values in wanted.items()}


def test_the_cache_of_header_names_is_bounded() -> None:
    from_scope(scope(headers=[(b"x-made-up-%d" % number, b"1") for number in range(2000)]))
    assert len(environ_module._keys) <= environ_module._CACHE_LIMIT


def test_a_scope_makes_a_valid_environ() -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [environ["SERVER_NAME"].encode()]

    plain = from_scope(scope(server=("example.test", 80)))
    whole = complete(plain, stream=make_input(b"", None), errors=ErrorStream(), multithread=False, worker=1)
    body = run_wsgi(validator(app), whole)[2]
    assert body == b"example.test"


# InputStream


def test_make_input() -> None:
    assert type(make_input(b"data", None)) is io.BytesIO
    assert make_input(b"da", iter([b"ta", b""]).__next__).read() == b"data"


PIECES = st.lists(st.text("ab\n", min_size=1, max_size=7).map(str.encode), max_size=8)
SIZES = st.one_of(st.none(), st.integers(-1, 12))
READS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["read", "readline", "readlines"]), SIZES),
        st.tuples(st.sampled_from(["read", "readline", "readlines"])),
        st.tuples(st.just("next")),
    ),
    max_size=12,
)


@given(st.text("ab\n", max_size=7).map(str.encode), PIECES, READS)
def test_reads_like_bytesio(data: bytes, pieces: list[bytes], reads: list[tuple[Any, ...]]) -> None:
    wanted = io.BytesIO(data + b"".join(pieces))
    ends = 0
    left = iter(pieces)

    def pull() -> bytes:
        nonlocal ends
        piece = next(left, b"")
        ends += not piece
        return piece

    stream = InputStream(data, pull)
    for name, *arguments in reads:
        if name == "next":
            assert next(stream, None) == next(wanted, None)
        else:
            assert getattr(stream, name)(*arguments) == getattr(wanted, name)(*arguments)
    assert stream.read() == wanted.read()
    assert stream.read() == stream.readline() == stream.read(1) == b""
    assert ends == 1  # the end is asked for once


def test_a_read_takes_no_more_pieces_than_it_needs() -> None:
    pieces = [b"second\n", b"third"]
    stream = InputStream(b"first\n", lambda: pieces.pop(0) if pieces else b"")
    assert stream.read(6) == b"first\n"
    assert len(pieces) == 2
    assert stream.readline() == b"second\n"
    assert len(pieces) == 1
    assert stream.read(0) == stream.readline(0) == b""
    assert len(pieces) == 1
    assert "5 bytes" not in repr(stream)
    assert stream.read(1) == b"t"
    assert "4 bytes" in repr(stream)


def test_a_broken_body_raises() -> None:
    def pull() -> bytes:
        raise BrokenPipeError("the client has gone")

    stream = InputStream(b"some", pull)
    assert stream.read(4) == b"some"
    with pytest.raises(BrokenPipeError):
        stream.read(1)


# ErrorStream


def test_whole_lines_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    errors = ErrorStream(7)
    assert errors.write("one %s\ntwo") == 10
    assert caplog.messages == ["one %s"]
    errors.writelines([" more\n", "\n", "rest"])
    assert caplog.messages == ["one %s", "two more", ""]
    errors.flush()
    errors.flush()
    assert caplog.messages[3:] == ["rest"]
    record = caplog.records[0]
    assert (record.name, record.levelno, vars(record)["request"]) == ("subpool.wsgi", logging.ERROR, 7)


def test_an_endless_line_does_not_grow(caplog: pytest.LogCaptureFixture) -> None:
    errors = ErrorStream()
    for _ in range(100):
        errors.write("x" * 1000)
    assert len(caplog.messages) == 1
    assert len(caplog.messages[0]) == 66000
    errors.flush()
    assert sum(map(len, caplog.messages)) == 100000


def test_errors_takes_str(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(TypeError, match="not bytes"):
        ErrorStream().write(b"x")  # type: ignore[arg-type]
    print("printed", file=ErrorStream(), flush=True)
    assert caplog.messages == ["printed"]
