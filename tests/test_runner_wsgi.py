"""The WSGI runner against PEP 3333: `run_wsgi` and `serve_wsgi` must agree, so most tests run over both."""

from __future__ import annotations

import io
import sys
import types
from typing import TYPE_CHECKING, Any
from wsgiref.validate import validator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from subpool.runners import wsgi
from subpool.runners.wsgi import check_headers, run_wsgi, serve_wsgi

from subpool import runners
from subpool.environ import complete
from subpool.wsgi_io import ErrorStream, FileWrapper, make_input

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PLAIN = [("Content-Type", "text/plain")]


class Sink:
    """Records what leaves, in `events` shared with the application under test."""

    def __init__(self, events: list[Any] | None = None, gone_after: int | None = None) -> None:
        self.events: list[Any] = [] if events is None else events
        self.gone_after = gone_after
        self.answer: tuple[str, list[tuple[str, str]]] | None = None
        self.chunks: list[bytes] = []

    def start(self, status: str, headers: list[tuple[str, str]]) -> None:
        assert self.answer is None
        self.answer = status, headers
        self.events.append(("start", status))

    def file(self, status: str, headers: list[tuple[str, str]], fd: int, offset: int, count: int) -> bool:
        return False

    def whole(self, status: str, headers: list[tuple[str, str]], body: bytes) -> None:
        self.start(status, headers)
        if body:
            self.write(body)

    def write(self, data: bytes) -> None:
        assert self.answer is not None
        assert type(data) is bytes
        assert data
        if self.gone_after is not None and len(self.chunks) >= self.gone_after:
            raise BrokenPipeError("the client has gone")
        self.chunks.append(data)
        self.events.append(("write", data))


class Body:
    """An iterable that counts its close() calls; `fails` ends its iteration, `close_fails` its close()."""

    def __init__(self, *chunks: Any, fails: BaseException | None = None, close_fails: Exception | None = None) -> None:
        self.chunks = chunks
        self.fails = fails
        self.close_fails = close_fails
        self.closed = 0
        self.taken = 0

    def __iter__(self) -> Iterator[Any]:
        for chunk in self.chunks:
            self.taken += 1
            yield chunk
        if self.fails is not None:
            raise self.fails

    def close(self) -> None:
        self.closed += 1
        if self.close_fails is not None:
            raise self.close_fails


def whole(method: str = "GET", body: bytes = b"") -> dict[str, Any]:
    given = {
        "REQUEST_METHOD": method,
        "PATH_INFO": "/",
        "SERVER_NAME": "example.test",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.url_scheme": "http",
    }
    return complete(given, stream=make_input(body, None), errors=ErrorStream(), multithread=False, worker=1)


def serve(app: Any, environ: dict[str, Any]) -> tuple[str, list[tuple[str, str]], bytes]:
    sink = Sink()
    serve_wsgi(app, environ, sink)
    assert sink.answer is not None
    return *sink.answer, b"".join(sink.chunks)


@pytest.fixture(params=[run_wsgi, serve], ids=["run", "serve"])
def run(request: pytest.FixtureRequest) -> Callable[..., tuple[str, list[tuple[str, str]], bytes]]:
    return request.param  # type: ignore[no-any-return]


def answering(result: Any, status: Any = "200 OK", headers: Any = PLAIN) -> Callable[[dict[str, Any], Any], Any]:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response(status, headers)
        return result

    return app


# What a good application gets


def test_names_of_the_package() -> None:
    assert runners.default_wsgi_handler is run_wsgi
    assert "default_wsgi_handler" in dir(runners)
    with pytest.raises(AttributeError, match="no_such"):
        runners.no_such  # noqa: B018


@pytest.mark.parametrize(
    "result",
    [[b"hello"], (b"hello",), [b"he", b"", b"llo"], iter([b"hello"]), Body(b"", b"hel", b"lo")],
    ids=["list", "tuple", "pieces", "iterator", "closable"],
)
def test_body_shapes(result: Any) -> None:
    assert run_wsgi(answering(result), whole()) == ("200 OK", PLAIN, b"hello")


def test_empty_body(run: Any) -> None:
    assert run(answering([]), whole()) == ("200 OK", PLAIN, b"")
    assert run(answering([b""]), whole()) == ("200 OK", PLAIN, b"")


def test_the_header_list_is_a_copy(run: Any) -> None:
    headers = [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("X-Tab", "a\tb"), ("X-Latin", "caf\xe9")]
    _, got, _ = run(answering([b"x"], headers=headers), whole())
    assert got == headers
    assert got is not headers


def test_a_generator_may_start_late(run: Any) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        yield b""
        start_response("201 Created", PLAIN)
        yield b"made"

    assert run(app, whole()) == ("201 Created", PLAIN, b"made")


def test_write_goes_first(run: Any) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        write = start_response("200 OK", PLAIN)
        write(b"one ")
        write(b"")
        write(b"two ")
        return [b"three"]

    assert run(app, whole()) == ("200 OK", PLAIN, b"one two three")


def test_write_after_the_end_is_refused() -> None:
    kept: list[Any] = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        kept.append(start_response("200 OK", PLAIN))
        return [b"all"]

    serve(app, whole())
    with pytest.raises(RuntimeError, match="ended"):
        kept[0](b"late")


def test_each_piece_leaves_before_the_next_is_asked_for() -> None:
    events: list[Any] = []

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        events.append("first")
        yield b"1"
        events.append("second")
        yield b"2"
        events.append("end")

    serve_wsgi(app, whole(), Sink(events))
    wanted = ["first", ("start", "200 OK"), ("write", b"1"), "second", ("write", b"2"), "end"]
    assert events == wanted


def test_nothing_leaves_before_the_first_byte() -> None:
    events: list[Any] = []

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        yield b""
        events.append("nothing yet")
        yield b"x"

    serve_wsgi(app, whole(), Sink(events))
    assert events[0] == "nothing yet"


@pytest.mark.parametrize(("method", "status"), [("HEAD", "200 OK"), ("GET", "204 No"), ("GET", "304 Not")])
def test_answers_without_a_body(run: Any, method: str, status: str) -> None:
    body = Body(b"a", b"b")
    headers = [("Content-Length", "9")]
    assert run(answering(body, status, headers), whole(method)) == (status, headers, b"")
    assert body.closed == 1
    assert body.taken == 1  # headers are taken with the first byte; the rest cannot leave
    assert run(answering([b"ab"], status, headers), whole(method)) == (status, headers, b"")


def test_head_with_write(run: Any) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", PLAIN)(b"body")
        return []

    assert run(app, whole("HEAD")) == ("200 OK", PLAIN, b"")


def test_str_subclasses_become_str(run: Any) -> None:
    class Safe(str):
        __slots__ = ()

    _, headers, _ = run(answering([b"x"], headers=[("A", "1"), (Safe("B"), Safe("2"))]), whole())
    assert headers == [("A", "1"), ("B", "2")]
    assert {type(part) for pair in headers for part in pair} == {str}
    with pytest.raises(TypeError, match="two str"):
        check_headers([(Safe("B"), "2"), ("C", 3)])  # type: ignore[list-item]


# start_response twice


def test_twice_without_exc_info(run: Any) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", PLAIN)
        start_response("200 OK", PLAIN)
        return [b""]

    with pytest.raises(RuntimeError, match="twice"):
        run(app, whole())


def test_exc_info_replaces_what_has_not_left(run: Any) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("204 No Content", [("Content-Length", "99")])
        try:
            raise KeyError("late trouble")
        except KeyError:
            start_response("500 Oops", PLAIN, sys.exc_info())
        return [b"sorry"]

    assert run(app, whole()) == ("500 Oops", PLAIN, b"sorry")


def test_exc_info_after_bytes_is_raised_again(run: Any) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        yield b"some"
        try:
            raise KeyError("late trouble")
        except KeyError:
            start_response("500 Oops", PLAIN, sys.exc_info())
        yield b"never"

    with pytest.raises(KeyError, match="late trouble"):
        run(app, whole())


# close() exactly once


@pytest.mark.parametrize(
    "fails",
    [None, ValueError("bad"), GeneratorExit(), KeyboardInterrupt(), SystemExit(3)],
    ids=lambda error: type(error).__name__,
)
def test_close_once(run: Any, fails: BaseException | None) -> None:
    body = Body(b"a", fails=fails)
    if fails is None:
        run(answering(body), whole())
    else:
        with pytest.raises(type(fails)) as caught:
            run(answering(body), whole())
        assert caught.value is fails
    assert body.closed == 1


@pytest.mark.parametrize("gone_after", [0, 1])
def test_close_once_when_the_client_has_gone(gone_after: int) -> None:
    body = Body(b"a", b"b", b"c")
    with pytest.raises(BrokenPipeError):
        serve_wsgi(answering(body), whole(), Sink(gone_after=gone_after))
    assert body.closed == 1
    assert body.taken == gone_after + 1


def test_close_that_fails_is_an_error(run: Any) -> None:
    body = Body(b"a", close_fails=OSError("disk"))
    with pytest.raises(OSError, match="disk"):
        run(answering(body), whole())
    assert body.closed == 1


def test_the_first_error_wins_over_close(run: Any, caplog: pytest.LogCaptureFixture) -> None:
    body = Body(b"a", fails=ValueError("first"), close_fails=OSError("second"))
    with pytest.raises(ValueError, match="first"):
        run(answering(body), whole())
    assert body.closed == 1
    assert "second" in caplog.text


def test_close_after_a_fault_of_the_head(run: Any) -> None:
    body = Body(b"a")
    with pytest.raises(RuntimeError, match="start_response"):
        run(lambda environ, start_response: body, whole())
    assert body.closed == 1


def test_an_error_before_the_answer(run: Any) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", PLAIN)
        raise LookupError("in the app")

    with pytest.raises(LookupError, match="in the app"):
        run(app, whole())


# The application's faults


@pytest.mark.parametrize("result", [[], [b"x"], [b"", b""], iter(())])
def test_never_started(run: Any, result: Any) -> None:
    with pytest.raises(RuntimeError, match="start_response"):
        run(lambda environ, start_response: result, whole())


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (["text"], "not str"),
        ([bytearray(b"x")], "not bytearray"),
        (b"bytes", "list of bytes"),
        ("text", "not str"),
        (None, "returned None"),
        (7, "not iterable"),
    ],
)
def test_bad_bodies(run: Any, result: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        run(answering(result), whole())


def test_write_takes_bytes(run: Any) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", PLAIN)("text")
        return []

    with pytest.raises(TypeError, match=r"write\(\).*not str"):
        run(app, whole())


@pytest.mark.parametrize(
    "status",
    [
        *("200", "20 OK", "OK 200", "2000 OK", "200 O\nK", "200 O\x00K", "", "103 Early", "99 x", "600 x", "999 x"),
        *("200 \u20ac", "\u0662\u0660\u0660 OK", "200 OK\n", "1000"),
    ],
)
def test_bad_status(run: Any, status: str) -> None:
    with pytest.raises(ValueError, match="status"):
        run(answering([b"x"], status), whole())


@pytest.mark.parametrize("status", [b"200 OK", 200, None, ["200 OK"]])
def test_status_of_a_wrong_type(run: Any, status: Any) -> None:
    with pytest.raises(TypeError, match="status"):
        run(answering([b"x"], status), whole())


@pytest.mark.parametrize(
    ("headers", "error"),
    [
        ((("A", "b"),), TypeError),
        ({"A": "b"}, TypeError),
        (None, TypeError),
        ([["A", "b"]], TypeError),
        ([("A",)], TypeError),
        ([("A", "b", "c")], TypeError),
        ([(b"A", "b")], TypeError),
        ([("A", b"b")], TypeError),
        ([("A", 1)], TypeError),
        ([([], "b")], TypeError),
        ([("", "b")], ValueError),
        ([("A b", "c")], ValueError),
        ([("A:", "c")], ValueError),
        ([("A\n", "c")], ValueError),
        ([("\xc4", "c")], ValueError),
        ([("A", "b\r\nC: d")], ValueError),
        ([("A", "b\n")], ValueError),
        ([("A", "b\x00")], ValueError),
        ([("A", "\x7f")], ValueError),
        ([("A", "\u20ac")], ValueError),
        ([("Connection", "close")], ValueError),
        ([("transfer-encoding", "chunked")], ValueError),
        ([("Content-Length", "1"), ("content-length", "1")], ValueError),
        ([("Content-Length", "-1")], ValueError),
        ([("Content-Length", "")], ValueError),
        ([("Content-Length", "\u0661")], ValueError),
    ],
)
def test_bad_headers(run: Any, headers: Any, error: type[Exception]) -> None:
    for _ in range(2):  # a refusal is not cached as good
        with pytest.raises(error, match=r"WSGI"):
            run(answering([b"x"], headers=headers), whole())


@given(st.text(), st.text())
def test_no_header_smuggles(name: str, value: str) -> None:
    try:
        headers, _ = check_headers([(name, value)])
    except ValueError:
        return
    line = f"{headers[0][0]}: {headers[0][1]}".encode("latin-1")
    assert not any(byte < 32 and byte != 9 for byte in line)
    assert ":" not in name
    assert name


def test_the_caches_are_bounded() -> None:
    for number in range(2000):
        check_headers([(f"X-Made-Up-{number}", "1")])
        run_wsgi(answering([b""], f"200 Reason {number}"), whole())
    assert len(wsgi._names) <= wsgi._CACHE_LIMIT
    assert len(wsgi._statuses) <= wsgi._CACHE_LIMIT


@pytest.mark.parametrize("result", [[b"12345"], [b"12", b"345"], (b"1234", b"5")])
def test_content_length_that_fits(run: Any, result: Any) -> None:
    headers = [("Content-Length", "5")]
    assert run(answering(result, headers=headers), whole()) == ("200 OK", headers, b"12345")


@pytest.mark.parametrize("result", [[b"123456"], [b"123", b"456"], Body(b"12345", b"6")])
def test_too_much_body(run: Any, result: Any) -> None:
    with pytest.raises(RuntimeError, match="1 bytes over its Content-Length"):
        run(answering(result, headers=[("Content-Length", "5")]), whole())


def test_what_is_too_much_never_leaves() -> None:
    sink = Sink()
    with pytest.raises(RuntimeError, match="over"):
        serve_wsgi(answering([b"123456"], headers=[("Content-Length", "5")]), whole(), sink)
    assert sink.events == []  # so that an error page can still be sent


@pytest.mark.parametrize("result", [[b"1234"], [b"1", b"2"], [], [b""]])
def test_too_little_body(run: Any, result: Any) -> None:
    with pytest.raises(RuntimeError, match="bytes fewer than its Content-Length"):
        run(answering(result, headers=[("Content-Length", "5")]), whole())


def test_write_over_content_length_raises_in_the_application(run: Any) -> None:
    seen: list[str] = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        write = start_response("200 OK", [("Content-Length", "3")])
        try:
            write(b"1234")
        except RuntimeError as error:
            seen.append(str(error))
            raise
        return []

    with pytest.raises(RuntimeError, match="over"):
        run(app, whole())
    assert seen


# wsgiref.validate, frameworks, file_wrapper


@pytest.mark.parametrize("kind", ["list", "generator", "write", "closable", "file", "reads", "exc_info", "errors"])
def test_wsgiref_validates(run: Any, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        write = start_response("200 OK", [("Content-Type", "text/plain")])
        if kind == "write":
            write(b"he")
            return [b"llo"]
        if kind == "generator":
            return (piece for piece in (b"he", b"llo"))
        if kind == "closable":
            return Body(b"he", b"llo")
        if kind == "file":
            return environ["wsgi.file_wrapper"](io.BytesIO(b"hello"), 2)
        if kind == "reads":
            stream = environ["wsgi.input"]
            return [stream.read(2), stream.readline(), *stream.readlines(), *stream]
        if kind == "exc_info":
            try:
                raise KeyError
            except KeyError:
                start_response("200 OK", [("Content-Type", "text/plain")], sys.exc_info())
        if kind == "errors":
            environ["wsgi.errors"].write("a line\n")
            environ["wsgi.errors"].writelines(["another\n"])
            environ["wsgi.errors"].flush()
        return [b"hello"]

    status, headers, body = run(validator(app), whole("POST", b"hel\nlo" if kind == "reads" else b""))
    assert (status, headers) == ("200 OK", PLAIN)
    assert body.replace(b"\n", b"") == b"hello"
    assert capsys.readouterr().err == ""  # it complains there about a body that nobody closed


def test_file_wrapper() -> None:
    file = io.BytesIO(b"0123456789")
    wrapper = FileWrapper(file, 4)
    assert list(wrapper) == [b"0123", b"4567", b"89"]
    wrapper.close()
    assert file.closed
    assert not hasattr(FileWrapper(types.SimpleNamespace(read=lambda size: b"")), "close")


def test_file_wrapper_is_closed_by_the_runner(run: Any) -> None:
    file = io.BytesIO(b"x" * 20000)
    assert run(answering(FileWrapper(file)), whole())[2] == b"x" * 20000
    assert file.closed


def test_flask(run: Any) -> None:
    flask = pytest.importorskip("flask")
    app = flask.Flask("t")

    @app.route("/", methods=["GET", "POST"])
    def index() -> Any:
        return {"got": flask.request.get_data().decode()}

    status, headers, body = run(app, whole("POST", b"data"))  # no CONTENT_LENGTH: input_terminated
    assert status == "200 OK"
    assert body == b'{"got":"data"}\n'
    assert ("Content-Length", "15") in headers
