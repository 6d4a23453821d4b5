"""The parts of hooks: registry, requests, heads of responses, the watch; and where a configuration of them is wrong."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
from conftest import APPS, EXAMPLES
from hypothesis import given
from hypothesis import strategies as st

from subpool import ConfigError, Hooks, Request, Response, ResponseHead
from subpool.channels.exchange import AppProtocolError
from subpool.hooks import NAMES, run
from subpool.watch import LIMIT, Watch


def request(target: bytes = b"/a%20b/c?d=e", method: str = "GET", kind: str = "http") -> Request:
    headers = [(b"host", b"x"), (b"x-two", b"1"), (b"x-two", b"2"), (b"content-length", b"3")]
    return Request(7, method, target, headers, ("192.0.2.1", 5), "http", "1.1", kind)


# requests


def test_a_request_that_is_only_read_is_not_copied() -> None:
    one = request()
    assert (one.path, one.raw_path, one.query_string, one.target) == ("/a b/c", b"/a%20b/c", b"d=e", b"/a%20b/c?d=e")
    assert (one.get("Host"), one.get("x-two"), one.get("x-none")) == ("x", "1", None)
    assert (one.changed(), one.moved) == (None, False)
    assert list(one.headers) == one.given
    assert one.changed() is None


def test_what_is_set_is_checked() -> None:
    one = request()
    for name, value, kind in (
        ("method", "A B", ValueError), ("method", 3, TypeError), ("method", "HEAD", ValueError),
        ("path", "a", ValueError), ("path", b"/a", TypeError), ("raw_path", b"/a b", ValueError),
        ("raw_path", b"/a?b", ValueError), ("raw_path", "/a", TypeError), ("query_string", b"a#", ValueError),
        ("query_string", b"a\r\nb: c", ValueError), ("client", ("a", "b"), TypeError), ("client", 3, TypeError),
        ("scheme", "ftp", ValueError),
    ):  # fmt: skip
        with pytest.raises(kind, match=name):
            setattr(one, name, value)
    for name, value in (("a b", "c"), ("a", "b\r\nc: d"), ("", "b")):
        with pytest.raises((ValueError, RuntimeError)):
            one.set(name, value)
    assert (one.changed(), one.moved, one.method) == (None, False, "GET")
    with pytest.raises(ValueError, match="HEAD cannot become GET"):
        request(method="HEAD").method = "GET"
    with pytest.raises(ValueError, match="cannot become"):
        request(kind="websocket").method = "PUT"


@given(st.text(min_size=0, max_size=20).map(lambda text: "/" + text).filter(lambda text: text.isprintable()))
def test_any_path_goes_there_and_back(path: str) -> None:
    one = request()
    one.path = path
    assert one.path == path
    assert one.target == one.raw_path + b"?d=e"
    assert one.raw_path.isascii()


pairs = st.lists(st.tuples(
    st.sampled_from([b"host", b"Content-Length", b"content-length", b"Transfer-Encoding", b"x-a", b"connection"]),
    st.sampled_from([b"", b"1", b"chunked", b"close"]),
), max_size=6)  # fmt: skip


@given(pairs)
def test_hooks_cannot_change_a_requests_framing(headers: list[tuple[bytes, bytes]]) -> None:
    one = request()
    one.headers = headers
    try:
        changed = one.changed()
    except (ValueError, AppProtocolError):
        return  # two lengths
    assert changed is not None
    framing = [pair for pair in changed if pair[0] in (b"content-length", b"transfer-encoding")]
    assert framing == [(b"content-length", b"3")]
    assert all(name.islower() for name, _ in changed)


@given(pairs, st.sampled_from([200, 204, 304, 404]), st.sampled_from([200, 204, 304, 404]), st.booleans())
def test_hooks_cannot_change_a_responses_framing(
    headers: list[tuple[bytes, bytes]], was: int, status: int, head: bool
) -> None:
    framed = [(b"transfer-encoding", b"chunked"), (b"connection", b"close")]
    response = ResponseHead(was, framed if was == 200 else [(b"content-length", b"5")] if was == 404 else [])
    response.headers = headers
    response.status = status
    try:
        found = response.checked(head=head)
    except (ValueError, AppProtocolError):
        return
    length = [value for name, value in found if name == b"content-length"]
    if status in (204, 304):
        assert length == []
        assert response.drops is (was in (200, 404))
    elif was in (204, 304):
        assert length == ([] if head else [b"0"])
    else:
        assert length == ([b"5"] if was == 404 else [])
    coded = [value for name, value in found if name == b"transfer-encoding"]
    assert coded == ([b"chunked"] if was == 200 and status not in (204, 304) else [])
    assert [value for name, value in found if name == b"connection"] == ([b"close"] if was == 200 else [])


def test_a_response_has_a_final_status() -> None:
    response = ResponseHead(200, [])
    for value, kind in ((103, ValueError), (99, AppProtocolError), ("200", TypeError), (True, TypeError)):
        with pytest.raises(kind):
            response.status = value  # type: ignore[assignment]


# the registry


def test_decorators_give_the_function_back() -> None:
    hooks = Hooks()

    def function(*args: Any) -> None:
        pass

    for kind in NAMES:
        assert getattr(hooks, kind)(function) is function
        assert [one.kind for one in hooks.row(kind)] == [kind]
    assert hooks.at("/") is hooks.at("")
    with pytest.raises(ValueError, match=r"there is no hook 'on_reqest'; there are on_request, .*on_reload"):
        hooks.add("on_reqest", function)
    with pytest.raises(TypeError, match="on_request is 3, which cannot be called"):
        hooks.on_request(3)  # type: ignore[type-var]


def test_hooks_run_in_their_order_until_one_answers() -> None:
    told: list[str] = []
    hooks = Hooks()

    async def waits(name: str, answer: Any) -> Any:
        await asyncio.sleep(0)
        told.append(name)
        return answer

    hooks.on_request(lambda request: told.append("one"))
    hooks.on_request(lambda request: waits("two", None))
    hooks.on_request(lambda request: waits("three", 403))
    hooks.on_request(lambda request: told.append("never"))
    found = run(hooks.row("on_request"), request())
    assert told == ["one"]

    async def main() -> Any:
        assert asyncio.iscoroutine(found)
        return await found

    assert asyncio.run(main()).status == 403
    assert told == ["one", "two", "three"]


def test_what_hooks_may_answer() -> None:
    def answered(value: Any) -> Any:
        hooks = Hooks()
        hooks.on_request(lambda request: value)
        return run(hooks.row("on_request"), request())

    assert answered(None) is None
    assert answered(429).body == b"Too Many Requests\n"
    assert answered((200, [(b"A", b"b"), (b"Connection", b"close")], bytearray(b"x"))) == Response(
        200, [(b"a", b"b")], b"x"
    )
    for wrong in ("text", b"", True, {"status": 200}, (200, []), (200, [], "text"), (103, [], b""), 1000,
                  ("200 OK", [], b""), (200, [("a", "b")], b"")):  # fmt: skip
        with pytest.raises((TypeError, ValueError, RuntimeError)) as caught:
            answered(wrong)
        assert not isinstance(caught.value, AssertionError)


# the watch


def burn(seconds: float) -> None:
    end = perf_counter() + seconds
    while perf_counter() < end:
        pass


def test_who_holds_the_loop_is_named_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    watch = Watch("the hook a:b")
    with caplog.at_level(logging.WARNING, "subpool"):
        for _ in range(3):
            watch.call(burn, LIMIT * 1.2)
        with pytest.raises(LookupError):
            watch.call({}.__getitem__, 1)
        assert len(caplog.records) == 1
        assert "the hook a:b held the event loop for " in caplog.records[0].getMessage()
        watch._quiet_until = 0.0
        watch.held(1.0)
    assert "for 1000 ms, and every request with it; so it did 2 times more" in caplog.records[1].getMessage()


def test_each_step_of_a_coroutine_is_watched(caplog: pytest.LogCaptureFixture) -> None:
    async def steps(hold: bool) -> str:
        try:
            await asyncio.sleep(LIMIT * 1.2)  # waiting is no holding
            await asyncio.wait_for(asyncio.Event().wait(), 0.001)
        except TimeoutError:
            if hold:
                burn(LIMIT * 1.2)
        return "done"

    async def main(hold: bool) -> None:
        assert await Watch("it").steps(steps(hold)) == "done"

    with caplog.at_level(logging.WARNING, "subpool"):
        asyncio.run(main(False))
        quiet = len(caplog.records)
        asyncio.run(main(True))
    assert len(caplog.records) > quiet


def test_a_watched_coroutine_is_cancelled() -> None:
    told: list[str] = []

    async def waits() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            told.append("cleaned up")

    async def main() -> None:
        async def step() -> None:
            await Watch("it").steps(waits())

        task = asyncio.create_task(step())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert told == ["cleaned up"]


# configuration

pytest.importorskip("pydantic")
pytest.importorskip("yaml")
pytest.importorskip("click")

CONFIG = """\
app: asgi_app:app
hooks:
  on_request:
    - hook_module:good
    - hook_module:missing
    - hook_module:number
  on_response: no_such_module:f
  on_error: hook_broken:f
mounts:
  - prefix: /api
    app: asgi_app:app
    hooks:
      on_request: hook_module.no:f
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where hooks are imported from."""
    (tmp_path / "hook_module.py").write_text("number = 3\ndef good(request): pass\nclass deep:\n  good = good\n")
    (tmp_path / "hook_broken.py").write_text("raise LookupError('broken')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    for name in ("hook_module", "hook_broken"):
        sys.modules.pop(name, None)


def problems(*arguments: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    from subpool import cli

    assert cli.main(["serve", *arguments]) == 1
    return [line.removeprefix("subpool: error: ") for line in capsys.readouterr().err.splitlines()]


def test_wrong_hooks_are_told_with_their_places(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("subpool.yaml").write_text(CONFIG)
    assert problems("--config", "subpool.yaml", capsys=capsys) == [
        "5 problems in the configuration",
        "subpool.yaml:5: hooks.on_request[1]: is 'hook_module:missing': the module 'hook_module' has no 'missing'",
        "subpool.yaml:6: hooks.on_request[2]: is 'hook_module:number': that is of type int, which cannot be called",
        "subpool.yaml:7: hooks.on_response: is 'no_such_module:f': there is no module 'no_such_module'",
        "subpool.yaml:8: hooks.on_error: is 'hook_broken:f': the import of 'hook_broken' raised LookupError: broken",
        "subpool.yaml:13: mounts[0].hooks.on_request: is 'hook_module.no:f': there is no module 'hook_module.no'",
    ]


def test_wrong_names_of_hooks(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("subpool.yaml").write_text(
        "app: a:b\nhooks:\n  on_reqest: a:b\n  on_error: a\n  on_response: [a:b()]\n  on_reload: 3\n"
        "mounts:\n  - prefix: /a\n    app: a:b\n    hooks: {on_reload: a:b}\n"
    )
    assert problems("--config", "subpool.yaml", capsys=capsys) == [
        "5 problems in the configuration",
        "subpool.yaml:3: hooks.on_reqest: there is no such option; did you mean 'on_request'?",
        "subpool.yaml:4: hooks.on_error[0]: is 'a'; it must be 'module:function'",
        "subpool.yaml:5: hooks.on_response[0]: is 'a:b()'; it must be 'module:function', without '()'",
        "subpool.yaml:6: hooks.on_reload: is 3; it must be a list",
        "subpool.yaml:10: mounts[0].hooks.on_reload: there is no such option; did you mean 'on_response'?",
    ]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--hook", "on_reqest=a:b"], "--hook: on_reqest: there is no such option; did you mean 'on_request'?"),
        (["--hook", "nonsense"], "--hook: is a list; it must be NAME=MODULE:FUNCTION"),
        (["--hook", "on_error=no_such_module:f"],
         "--hook: on_error: is 'no_such_module:f': there is no module 'no_such_module'"),
    ],
)  # fmt: skip
def test_wrong_hooks_of_a_command_line(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    assert problems("asgi_app:app", *arguments, capsys=capsys) == [told]


def test_hooks_of_every_source() -> None:
    from subpool.http.sources import load_config

    config = load_config(None, {"SUBPOOL_HOOKS": "on_request=a:b, on_request=c:d, on_error=e:f"}, {"app": "x:y"})
    assert config.hooks is not None
    assert config.hooks.model_dump(exclude_none=True) == {"on_request": ["a:b", "c:d"], "on_error": ["e:f"]}
    config = load_config(None, {}, {"app": "x:y", "hooks": ["on_reload=a:b.c"]})
    assert config.hooks is not None
    assert config.hooks.on_reload == ["a:b.c"]


def test_a_server_refuses_hooks_that_are_not_there(folder: Path) -> None:
    from subpool import Server, ServerConfig

    hooks = Hooks()
    hooks.at("/nowhere").on_request(print)
    config = ServerConfig(app="asgi_app:app", hooks={"on_request": "hook_module:missing"}, bind=["127.0.0.1:0"],
                          pythonpath=[str(folder), APPS])  # fmt: skip

    async def main() -> None:
        with pytest.raises(ConfigError) as caught:
            await Server(config, hooks=hooks).start()
        assert caught.value.problems == (
            "hooks.on_request: is 'hook_module:missing': the module 'hook_module' has no 'missing'",
            "hooks.at('/nowhere'): no app is mounted there",
        )

    asyncio.run(main())


def test_config_show_has_hooks(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from subpool import cli

    Path("subpool.yaml").write_text("app: a:b\nhooks:\n  on_request: [c:d, e:f]\n  on_error: g:h\n")
    assert cli.main(["config", "show", "--config", "subpool.yaml"]) == 0
    (line,) = (one for one in capsys.readouterr().out.splitlines() if one.startswith("hooks "))
    assert "on_request: c:d, e:f; on_error: g:h" in line
    assert line.endswith("subpool.yaml:2")


# the example


def test_the_example_under_a_guard(record_property: Callable[[str, object], None]) -> None:
    """The command of the example's docstring: with a guard, hooks named in YAML."""
    import http.client
    import json

    from guard_kit import Command

    guides = str(EXAMPLES / "guides")
    more = ["--pythonpath", guides, "--config", f"{guides}/hooks_gate.yaml", "--isolation", "subinterpreter"]

    def ask(**headers: str) -> tuple[int, dict[str, str], bytes]:
        client = http.client.HTTPConnection("127.0.0.1", command.port, timeout=15)
        try:
            client.request("GET", "/", headers={name.replace("_", "-"): value for name, value in headers.items()})
            answer = client.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            client.close()

    with Command("asgi_scope:app", *more) as command:
        status, headers, body = ask(x_user="mallory")
        assert (status, headers["x-content-type-options"]) == (401, "nosniff")
        status, headers, body = ask(x_user="mallory", x_api_key="open-sesame")
        assert (status, headers["cache-control"]) == (200, "private")
        shown = json.dumps(body.decode())
        assert "ada" in shown
        assert "mallory" not in shown
        assert "open-sesame" not in shown
        found = [ask(x_api_key="open-sesame") for _ in range(20)]
        assert {status for status, _, _ in found} == {200, 429}
        assert int(found[-1][1]["retry-after"]) >= 1
