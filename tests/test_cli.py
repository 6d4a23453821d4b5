"""The command line: its options are the models', its errors one message, its status what a script needs."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import subprocess
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import APPS

pytest.importorskip("click")
pytest.importorskip("pydantic")
pytest.importorskip("yaml")

from subpool import AppLoadError, PoolBroken, cli, commands
from subpool.http.config import GROUPS, ServerConfig
from subpool.http.options import options

# A server that prints what it was given, or raises.
FAKE = """
import sys, types
from subpool import AppLoadError, cli
class Server:
    def __init__(self, config):
        self.config = config
    async def serve(self):
        if self.config.app == "broken:app":
            raise AppLoadError("cannot import 'broken'", "Traceback: in broken.py\\n")
        if self.config.app == "taken:app":
            raise OSError(98, "cannot listen on 127.0.0.1:80: Address already in use")
        print(type(__import__("asyncio").get_running_loop()).__module__, self.config.workers, self.config.pythonpath)
sys.modules["subpool.http.server"] = types.SimpleNamespace(Server=Server)
sys.exit(cli.main())
"""


def run(*arguments: str, program: tuple[str, ...] = ("-m", "subpool"), **environ: str) -> tuple[int, str, str]:
    """A real command line: its status, stdout and stderr."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SUBPOOL_")}
    done = subprocess.run([sys.executable, "-W", "error", *program, *arguments], stdin=subprocess.DEVNULL, cwd=APPS,
                          capture_output=True, text=True, timeout=25, check=False, env={**kept, **environ})  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[ServerConfig]]:
    """In place of the server one that only notes its configuration; logging and warnings are put back."""
    seen: list[ServerConfig] = []

    class Server:
        def __init__(self, config: ServerConfig) -> None:
            seen.append(config)

        async def serve(self) -> None:
            pass

    module = types.ModuleType("subpool.http.server")
    module.Server = Server  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "subpool.http.server", module)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    for variable in [name for name in os.environ if name.startswith("SUBPOOL_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("SUBPOOL_GUARD", "false")  # a guard would take the place of this process
    root, access = logging.getLogger(), logging.getLogger("subpool.access")
    level, handlers, own = root.level, list(root.handlers), list(access.handlers)
    yield seen
    root.setLevel(level)
    for handler in [one for one in root.handlers if one not in handlers]:
        root.removeHandler(handler)
    for handler in [one for one in access.handlers if one not in own]:
        access.removeHandler(handler)
        handler.close()
    access.propagate = True


# serve: the options


def test_every_field_is_an_option() -> None:
    command = commands.serve_command()
    assert {param.name for param in command.params} == {*ServerConfig.model_fields, "config"}
    status, out, err = run("serve", "--help")
    assert (status, err) == (0, "")
    sections = re.split(r"^(\S.*):$", out, flags=re.MULTILINE)
    text = dict(zip(sections[1::2], sections[2::2], strict=True))
    for option in options().values():
        if option.name != "app":
            assert re.search(rf"{option.flag}\b", text[GROUPS[option.group]]), option.name
            assert option.kind != "boolean" or f"--no-{option.flag[2:]}" in text[GROUPS[option.group]]
    assert "SUBPOOL_MAX_BODY" in out


def test_options_reach_the_server(served: list[ServerConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "subpool.yaml"
    file.write_text("workers: 1\nthreads: 5\nwindow: 1\npythonpath: [first]\n")
    monkeypatch.setenv("SUBPOOL_WORKERS", "2")
    monkeypatch.setenv("SUBPOOL_WINDOW", "2")
    monkeypatch.chdir(tmp_path)
    status = cli.main([
        "serve", "myapp:app", "--config", str(file), "--window", "3", "--bind", "127.0.0.1:0", "--bind", "unix:x.sock",
        "--no-date-header", "--timeout", "none", "--max-header", "100", "--websocket-compress", "--http-version",
        "http/1.1",
        "--mount", "/api=api:app", "--forwarded-allow-ips", "10.0.0.0/8", "--grace", "0.25", "--unix-mode", "600",
    ])  # fmt: skip
    assert status == 0
    (config,) = served
    assert (config.app, config.workers, config.threads, config.window) == ("myapp:app", 2, 5, 3)
    assert (config.bind, config.http_version) == (["127.0.0.1:0", "unix:x.sock"], ["http/1.1"])
    assert (config.date_header, config.websocket_compress, config.proxy_headers) == (False, True, True)
    assert (config.timeout, config.grace, config.max_header, config.unix_mode) == (None, 0.25, 100, "600")
    assert [(mount.prefix, mount.app) for mount in config.mounts] == [("/api", "api:app")]
    assert config.pythonpath == ["first", str(tmp_path)]


def test_without_options_all_is_default(served: list[ServerConfig]) -> None:
    assert cli.main(["serve", "myapp:app"]) == 0
    assert served == [ServerConfig(app="myapp:app", pythonpath=[os.getcwd()], guard=False)]


def test_the_file_may_be_named_by_a_variable(served: list[ServerConfig], tmp_path: Path,
                                             monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    file = tmp_path / "subpool.yaml"
    file.write_text("mounts: [{prefix: /, app: 'site:app', pythonpath: [lib]}]\n")
    monkeypatch.setenv("SUBPOOL_CONFIG", str(file))
    assert cli.main(["serve"]) == 0
    assert served[0].mounts[0].app == "site:app"
    assert served[0].mounts[0].pythonpath == ["lib", os.getcwd()]


# serve: what goes wrong


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["serve"], 1, "app: there is nothing to serve: name an app, or mounts"),
        (["serve", "myapp"], 1, "APP: is 'myapp'; it must be 'module:callable'"),
        (["serve", "a:b", "--workers", "many"], 1, "--workers: is 'many'; it must be a whole number"),
        (["serve", "a:b", "--config", "none.yaml"], 1, "none.yaml: No such file or directory"),
        (["serve", "a:b", "--worker", "3"], 2, "No such option '--worker'"),
        (["serve", "a:b", "c:d"], 2, "unexpected extra argument"),
        (["sevre", "a:b"], 2, "No such command 'sevre'"),
        (["check"], 2, "Missing argument 'APP'"),
        (["check", "myapp"], 2, "app is 'myapp'; it must be 'module:callable'"),
        (["check", "a:b", "--isolation", "none"], 2, "Invalid value for '--isolation'"),
    ],
)
def test_wrong_command_lines(arguments: list[str], status: int, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("subpool: error: ")
    assert told.lower() in err.lower()
    assert err.count("\n") == 1


def test_many_problems_are_one_message(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve", "a", "--workers", "0", "--bind", "x"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "subpool: error: 3 problems in the configuration"
    assert [line.partition(":")[0] for line in lines[1:]] == ["APP", "--bind", "--workers"]


def test_no_command_prints_help() -> None:
    status, out, err = run()
    assert (status, out) == (2, "")
    assert err.startswith("Usage: subpool")
    assert "serve" in err


def test_version() -> None:
    import subpool

    assert run("--version") == (0, f"subpool {subpool.__version__}\n", "")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (PoolBroken("no worker"), "subpool: error: no worker\n"),
        (OSError(98, "cannot listen on x: taken"), "subpool: error: cannot listen on x: taken\n"),
        (FileNotFoundError(2, "No such file or directory", "x.pem"),
         "subpool: error: No such file or directory: x.pem\n"),
        (AppLoadError("cannot import 'x'", "Traceback: theirs\n"),
         "Traceback: theirs\nsubpool: error: cannot import 'x'\n"),
        (ModuleNotFoundError("No module named 'httptools'", name="httptools.parser"),
         "subpool: error: httptools is not installed: pip install 'subpool[server]'\n"),
        (KeyboardInterrupt(), "\n"),
    ],
)  # fmt: skip
def test_errors_of_the_server(error: BaseException, told: str, served: list[ServerConfig],
                              monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    def serve(self: Any) -> None:
        raise error

    monkeypatch.setattr(sys.modules["subpool.http.server"].Server, "serve", serve)  # type: ignore[attr-defined]
    assert cli.main(["serve", "a:b", "--loop", "asyncio"]) == (130 if isinstance(error, KeyboardInterrupt) else 1)
    assert capsys.readouterr().err == told


def test_a_bug_of_ours_is_not_hidden(served: list[ServerConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    error = ModuleNotFoundError("No module named 'subpool.nothing'", name="subpool.nothing")
    monkeypatch.setattr(sys.modules["subpool.http.server"], "Server", lambda config: (_ for _ in ()).throw(error))
    with pytest.raises(ModuleNotFoundError):
        cli.main(["serve", "a:b"])


@pytest.mark.parametrize("missing", ["click", "pydantic", "yaml"])
def test_a_library_that_is_missing_is_named(missing: str, tmp_path: Path) -> None:
    file = tmp_path / "subpool.yaml"
    file.write_text("app: a:b\n")
    program = f"import sys\nsys.modules[{missing!r}] = None\nfrom subpool.cli import main\nsys.exit(main())"
    status, out, err = run("serve", "--config", str(file), program=("-c", program))
    assert (status, out) == (1, "")
    assert err == f"subpool: error: {missing} is not installed: pip install 'subpool[server]'\n"


def test_a_real_process() -> None:
    fake, given = ("-c", FAKE), ("--no-guard", "--loop", "asyncio")
    status, out, err = run("serve", "my:app", *given, program=fake, SUBPOOL_WORKERS="2")
    assert (status, err) == (0, "")
    assert out == f"asyncio.unix_events 2 {[APPS]!r}\n"
    status, _, err = run("serve", "broken:app", *given, program=fake)
    assert (status, err) == (1, "Traceback: in broken.py\nsubpool: error: cannot import 'broken'\n")
    status, _, err = run("serve", "taken:app", *given, program=fake)
    assert (status, err) == (1, "subpool: error: cannot listen on 127.0.0.1:80: Address already in use\n")


def test_an_app_that_is_not_there() -> None:
    pytest.importorskip("httptools")
    status, out, err = run("serve", "no_such_app:app", "--workers", "1", "--bind", "127.0.0.1:0")
    assert (status, out) == (1, "")
    assert err.endswith(
        "ModuleNotFoundError: No module named 'no_such_app'\nsubpool: error: cannot import 'no_such_app' "
        "(for 'no_such_app:app'): ModuleNotFoundError: No module named 'no_such_app'\n"
    )


def test_a_server_from_start_to_signal() -> None:
    pytest.importorskip("httptools")
    command = ["-m", "subpool", "serve", "asgi_app:app", "--workers", "1", "--bind", "127.0.0.1:0"]
    with subprocess.Popen([sys.executable, *command], cwd=APPS, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            while "listening on" not in (line := process.stderr.readline()):
                assert line, "it ended before it listened"
            assert re.search(r"listening on http://127\.0\.0\.1:\d+$", line.strip())
            process.send_signal(signal.SIGTERM)
            assert process.wait(15) == 0
        finally:
            process.kill()


# the loop, logging


def test_loops() -> None:
    uvloop = pytest.importorskip("uvloop")
    assert commands.loop_factory("asyncio") is None
    assert commands.loop_factory("auto") is commands.loop_factory("uvloop") is uvloop.new_event_loop


def test_without_uvloop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert commands.loop_factory("auto") is None
    with pytest.raises(OSError, match="uvloop cannot be had"):
        commands.loop_factory("uvloop")


def test_what_is_logged_goes_to_stderr() -> None:
    program = (
        "import logging, sys, warnings\nfrom subpool import commands\nfrom subpool.http.config import ServerConfig\n"
        "commands.set_up_logging(ServerConfig(app='a:b', access_log='common', log_level='warning'))\n"
        "log = logging.getLogger('subpool')\nlog.info('not this')\nlog.error('an error')\n"
        "warnings.simplefilter('always')\nwarnings.warn('subpool runs it in processes', RuntimeWarning)\n"
        "warnings.warn('another', RuntimeWarning)\nlogging.getLogger('subpool.access').info('GET /')\n"
    )
    status, out, err = run(program=("-c", program))
    assert (status, out) == (0, "GET /\n")
    lines = err.splitlines()
    assert lines[0].endswith("ERROR subpool: an error")
    assert lines[1].endswith("WARNING subpool: subpool runs it in processes")
    assert "RuntimeWarning: another" in lines[2]
    assert "not this" not in err


def test_the_access_log_has_its_file(served: list[ServerConfig], tmp_path: Path) -> None:
    file = tmp_path / "access.log"
    assert cli.main(["serve", "a:b", "--access-log", "json", "--access-log-file", str(file)]) == 0
    logging.getLogger("subpool.access").info("{}")
    assert file.read_text() == "{}\n"
    assert cli.main(["serve", "a:b", "--access-log", "json", "--access-log-file", str(tmp_path)]) == 1


def test_the_runner_gets_the_loop(served: list[ServerConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Callable[[], Any] | None] = []
    runner = asyncio.Runner

    def note(*, loop_factory: Callable[[], Any] | None) -> asyncio.Runner:
        made.append(loop_factory)
        return runner()

    monkeypatch.setattr(asyncio, "Runner", note)
    assert cli.main(["serve", "a:b", "--loop", "asyncio"]) == 0
    assert made == [None]
