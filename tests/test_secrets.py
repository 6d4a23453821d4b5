"""Secrets in the environment and the configuration are in no log, status, metric, finding or error."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import proc_kit
import pytest
from ops_kit import Served, command, serve, short_folder

pytest.importorskip("click")
pytest.importorskip("pydantic")
pytest.importorskip("yaml")
pytest.importorskip("httptools")
pytest.importorskip("prometheus_client")
if shutil.which("openssl") is None:
    pytest.skip("openssl makes the certificate", allow_module_level=True)

from subpool import ConfigError, Server
from subpool.http.options import options
from subpool.http.settings import settings
from subpool.http.sources import Sources, load_config

PASSWORD = "hunter2-of-the-key"
OTHER = "hunter2-of-the-app"  # what an app reads from its environment
REDIS = "redis://:hunter2-of-redis@127.0.0.1:1/0"
SECRETS = [option for option in options().values() if option.secret]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A certificate whose key has a password, and a folder for sockets."""
    with short_folder() as made:
        for arguments in (
            ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
             "-subj", "/CN=a.test", "-keyout", "plain.key", "-out", "cert.pem"],
            ["ec", "-in", "plain.key", "-aes256", "-passout", f"pass:{PASSWORD}", "-out", "key.pem"],
        ):  # fmt: skip
            subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=25, cwd=made)
        yield made


def environ(folder: Path, **more: str) -> dict[str, str]:
    return {"XDG_RUNTIME_DIR": str(folder), "DATABASE_PASSWORD": OTHER, "REDIS_URL": REDIS, "PYTHONASYNCIODEBUG": "1",
            **more}  # fmt: skip


def told(*arguments: str, **variables: str) -> str:
    """All that a command says."""
    return "\n".join(map(str, command(*arguments, **variables)))


def ask(port: int, path: str) -> str:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port), timeout=15) as plain, context.wrap_socket(plain) as peer:
        peer.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        with peer.makefile("rb") as file:
            return file.read().decode("latin-1")


@pytest.mark.parametrize(
    ("source", "isolation", "guard"),
    [
        *[(source, "subinterpreter", "--guard") for source in ("variable", "file", "option")],
        ("variable", "process", "--no-guard"),  # worker processes inherit no other
    ],
)
def test_a_servers_life(source: str, isolation: str, guard: str, folder: Path) -> None:
    file = folder / "subpool.yaml"
    given = {"certfile": str(folder / "cert.pem"), "keyfile": str(folder / "key.pem"), "log_level": "debug",
             "access_log": "json", "metrics_bind": "127.0.0.1:0", "isolation": isolation}  # fmt: skip
    variables, arguments = environ(folder), ["--config", str(file), guard]
    if source == "variable":
        variables["SUBPOOL_KEYFILE_PASSWORD"] = PASSWORD
    elif source == "file":
        given["keyfile_password"] = PASSWORD
    else:
        arguments += ["--keyfile-password", PASSWORD]
    file.write_text(json.dumps(given))  # JSON is YAML
    with serve(*arguments, **variables) as served:
        port = served.address[1]
        said = [ask(port, path) for path in ("/hello", "/raise", "/raise-half", "/log", "/nothing")]
        assert said[0].startswith("HTTP/1.1 200 ")
        said += [str(served.get(path, served.metrics)) for path in ("/metrics", "/healthz", "/readyz")]
        for words in (["status"], ["status", "--json"], ["scale", "2"], ["recycle", "1"], ["recycle", "7"], ["reload"]):
            said.append(told(*words, **environ(folder)))
        said.append(told("config", "show", "asgi_app:app", *arguments, **variables))
        assert "***" in said[-1]
        if guard == "--guard":
            said += what_a_guard_does(served, file, port)
        said.append(told("stop", **environ(folder)))
        assert said[-1] == "0\nstopped\n\n"
        assert served.end() == 0
        said.append(served.said)
    everything = "\n".join(said)
    assert "hunter2" not in everything


def what_a_guard_does(served: Served, file: Path, port: int) -> list[str]:
    """Reload, an upgrade that cannot be, another process in place of one that was killed. The arguments of all."""
    served.process.send_signal(signal.SIGHUP)
    served.wait_for("(?s)reloaded:.*reloaded:")  # the first was the command's
    given = json.loads(file.read_text())
    file.write_text(json.dumps({**given, "workers": 0, "keyfile_pasword": PASSWORD}))
    served.process.send_signal(signal.SIGUSR2)
    served.wait_for("this one goes on")
    file.write_text(json.dumps(given))
    lines = []
    if sys.platform == "linux":
        (child,) = proc_kit.children(served.pid)
        lines = [Path(f"/proc/{child}/cmdline").read_text()]
        os.kill(child, signal.SIGKILL)
        served.wait_for("is ready")
        assert ask(port, "/hello").startswith("HTTP/1.1 200 ")
    return lines


def test_a_start_that_fails(folder: Path) -> None:
    key, cert = str(folder / "key.pem"), str(folder / "cert.pem")
    wrong = "hunter2-is-not-right"
    for arguments, variables in (
        ([], {"SUBPOOL_KEYFILE_PASSWORD": wrong}),
        (["--keyfile-password", wrong], {}),
        (["--keyfile-password", wrong, "--workers", "0", "--worker"], {}),
        ([], {"SUBPOOL_KEYFILE_PASWORD": wrong}),
        (["--log-level", "debug"], {"SUBPOOL_KEYFILE_PASSWORD": wrong, "SUBPOOL_LOOP": "asyncio"}),
    ):
        status, out, err = command("serve", "asgi_app:app", "--certfile", cert, "--keyfile", key, *arguments,
                                   **environ(folder, **variables))  # fmt: skip
        assert status in (1, 2)
        assert err
        assert "hunter2" not in out + err


@pytest.mark.parametrize("secret", SECRETS, ids=lambda option: option.name)
def test_every_secret_option(secret: Any, tmp_path: Path) -> None:
    """In every finding there can be beside it, and in whatever shows a configuration."""
    value = "hunter2-of-this-option" if secret.name != "bus" else "redis://:hunter2-of-this-option@host:1/0"
    everything = []
    wrong: list[dict[str, Any]] = [{name: ["x", {}]} for name in options() if name != secret.name]
    wrong += [{secret.name: one} for one in ([value], {value: value}, {"a": [value]})]
    file = tmp_path / "subpool.yaml"
    for more in wrong:
        file.write_text(json.dumps({"app": "a:b", secret.name: value, **more}))
        with pytest.raises(ConfigError) as caught:
            load_config(str(file), {secret.variable: value} if secret.name not in more else {})
        everything.append(f"{caught.value} {caught.value!r} {caught.value.__cause__!r} {caught.value.__context__!r}")
    file.write_text(json.dumps({"app": "a:b", "certfile": str(file), secret.name: value}))
    sources = Sources(str(file))
    config = sources.config()
    assert getattr(config, secret.name) == value
    everything += [repr(sources), repr(config), str(config), repr(Server(config)), repr(settings(sources))]
    assert "hunter2-of-this-option" not in "\n".join(everything)
    assert os.environ.get(secret.variable) is None
