"""A configuration with 30 mistakes: each is found and told with its line, by real commands, and nothing is started."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest

pytest.importorskip("click")
pytest.importorskip("pydantic")
pytest.importorskip("yaml")

from ops_kit import command, short_folder

# Each line but the comments has one mistake, and the words that must be said of it.
WRONG = """\
bind: ["127.0.0.1"]  # bind[0]: is '127.0.0.1'; it must be HOST:PORT
unix_mode: 0999  # unix_mode: is '999'; it must be an octal file mode
backlog: 0  # backlog: is 0; it must be more than 0
http_version: h2  # http_version: is 'h2'; it must be a list
loop: uvlop  # loop: is 'uvlop'; it must be one of auto, asyncio, uvloop; did you mean 'uvloop'?
server_header: " subpool"  # server_header: is ' subpool'; it must be printable ASCII
date_header: yes  # date_header: is 'yes'; it must be true or false
worker: 4  # worker: there is no such option; did you mean 'workers'?
workers: -1  # workers: is -1; it must be more than 0
isolation: subinterpeter  # isolation: is 'subinterpeter'; it must be one of
interface: 3  # interface: is 3; it must be one of
threads: two  # threads: is 'two'; it must be a whole number
pythonpath: lib  # pythonpath: is 'lib'; it must be a list
venv: /nowhere  # venv: is '/nowhere', which holds no pyvenv.cfg
preload_app: 1  # preload_app: is 1; it must be true or false
lifespan: of  # lifespan: is 'of'; it must be one of auto, on, off
max_conections: 100  # max_conections: there is no such option; did you mean 'max_connections'?
max_pending: 1.5  # max_pending: is 1.5; it must be a whole number
max_body: 10MB  # max_body: is '10MB'; it must be a whole number
timeout: 30s  # timeout: is '30s'; it must be a number
graceful-timeout: 10  # graceful-timeout: there is no such option; did you mean 'graceful_timeout'?
grace: .nan  # grace: is nan; it must be
root_path: api  # root_path: is 'api'; it must start with '/'
forwarded_allow_ips: [localhost]  # forwarded_allow_ips[0]: is 'localhost'; it must be an address
certfile: /nowhere/cert.pem  # certfile: is '/nowhere/cert.pem', and there is no such file
verify_client: required  # verify_client: is 'required', but ca_certs is not given
tls_min_version: 1.1  # tls_min_version: is '1.1'; it must be one of 1.2, 1.3
log_level: verbose  # log_level: is 'verbose'; it must be one of
access_log_file: access.log  # access_log_file: is given, but access_log is off
mounts:
  - prefix: /api/  # mounts[0].prefix: is '/api/'; it must not end with '/'
    app: api:app
"""
APP = """
import pathlib
pathlib.Path(__file__).with_name("imported").touch()
async def app(scope, receive, send): ...
"""


@pytest.mark.parametrize("words", [("config", "check"), ("serve", "--guard"), ("serve", "--no-guard")], ids=" ".join)
def test_thirty_wrong_values_are_thirty_findings(words: tuple[str, ...], figure: Callable[[str], None]) -> None:
    expected = [(number, line.partition("  # ")[2]) for number, line in enumerate(WRONG.splitlines(), 1)
                if "  # " in line]  # fmt: skip
    assert len(expected) == 30
    with short_folder() as folder:
        file = folder / "subpool.yaml"
        file.write_text(re.sub("  # .*", "", WRONG))
        (folder / "api.py").write_text(APP)
        there = sorted(folder.iterdir())
        options = ["--config", str(file), "--control-socket", str(folder / "control")]
        options += ["--metrics-bind", f"unix:{folder}/metrics"]
        begin = time.monotonic()
        status, out, err = command(*words, *(options if words[0] == "serve" else [str(file)]), PYTHONPATH=str(folder),
                                   PYTHONDONTWRITEBYTECODE="1", XDG_RUNTIME_DIR=str(folder))  # fmt: skip
        figure(f"30 findings after {time.monotonic() - begin:.2f} s")
        assert status == 1
        if words[0] == "serve":
            first, _, err = err.partition("\n")
            assert (first, out) == ("subpool: error: 30 problems in the configuration", "")
        else:
            assert err == ""
        lines = (err or out).splitlines()
        assert len(lines) == 30
        for (number, said), line in zip(expected, lines, strict=True):
            assert line.startswith(f"{file}:{number}: {said}")
        assert sorted(folder.iterdir()) == there, "and nothing was started"
