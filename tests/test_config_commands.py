"""`subpool config`: what it finds, what it shows, and the schema that it gives to editors."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import EXAMPLES

pytest.importorskip("click")
pytest.importorskip("pydantic")
pytest.importorskip("yaml")

from subpool import cli
from subpool.http.config import MountConfig
from subpool.http.options import options
from subpool.http.schema import json_schema
from subpool.http.yamlfile import YAMLFile


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [name for name in os.environ if name.startswith("SUBPOOL_")]:
        monkeypatch.delenv(variable)


def write(folder: Path, text: str) -> str:
    file = folder / "subpool.yaml"
    file.write_text(text, encoding="utf-8")
    return str(file)


def check(file: str, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, list[str]]:
    """`subpool config check FILE`: its status and what it prints."""
    status = cli.main(["config", "check", file, *more])
    out, err = capsys.readouterr()
    assert err == ""
    return status, out.splitlines()


# check


def test_a_good_file(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUBPOOL_WORKERS", "many")  # a file is judged by itself
    file = write(tmp_path, "app: a:b\nworkers: 2\n")
    assert check(file, capsys) == (0, [f"{file}: ok"])


def test_an_app_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path, "workers: 2\n")
    assert check(file, capsys) == (1, [f"{file}:1: app: there is nothing to serve: name an app, or mounts"])
    assert check(file, capsys, "a:b") == (0, [f"{file}: ok"])
    assert check(file, capsys, "ab") == (1, ["APP: is 'ab'; it must be 'module:callable'"])


def test_a_file_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(tmp_path / "none.yaml")
    assert check(file, capsys) == (1, [f"{file}: No such file or directory"])
    assert check(write(tmp_path, "a: ["), capsys)[0] == 1
    assert cli.main(["config", "check"]) == 2


def test_the_example_is_right(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(EXAMPLES / "subpool.yaml")
    assert check(file, capsys) == (0, [f"{file}: ok"])
    assert cli.main(["config", "check", write(tmp_path, uncommented(file))]) == 1
    for line in capsys.readouterr().out.splitlines():
        assert re.search("there is no such file|holds no pyvenv.cfg|serves already", line), line


def uncommented(file: str) -> str:
    """The file with the options that it has as comments."""
    return re.sub("^# (?=[a-z_]+: )", "", Path(file).read_text(encoding="utf-8"), flags=re.MULTILINE)


# show


def show(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert cli.main(["config", "show", "--json", *arguments]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert isinstance(shown, dict)
    return shown


def test_every_value_says_where_it_came_from(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                             monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    file = write(tmp_path, "# ours\nthreads: 3\nunix_mode: 600\nwindow: 1\nmounts:\n  - prefix: /\n    app: a:b\n")
    monkeypatch.setenv("SUBPOOL_WINDOW", "2")
    monkeypatch.setenv("SUBPOOL_BIND", "127.0.0.1:0, unix:x.sock")
    shown = show(capsys, "--config", file, "--workers", "4", "--timeout", "none")
    of_mount = set(options(MountConfig)) - {"hooks"}  # those of a mount are beside the server's
    assert set(shown) == {*options(), *(f"mounts[0].{name}" for name in of_mount)} - {"mounts"}
    expected = {
        "app": (None, "default"),
        "threads": (3, f"{file}:2"),
        "unix_mode": ("600", f"{file}:3"),
        "window": (2, "SUBPOOL_WINDOW"),
        "bind": (["127.0.0.1:0", "unix:x.sock"], "SUBPOOL_BIND"),
        "mounts[0].prefix": ("/", f"{file}:6"),
        "mounts[0].app": ("a:b", f"{file}:7"),
        "workers": (4, "--workers"),
        "timeout": (None, "--timeout"),
        "grace": (0.5, "default"),
    }
    assert {name: (shown[name]["value"], shown[name]["origin"]) for name in expected} == expected
    inherited = {name: (one["value"], one["origin"]) for name, one in shown.items() if one.get("inherited")}
    assert inherited == {
        f"mounts[0].{name}": (shown[name]["value"], shown[name]["origin"])
        for name in of_mount - {"prefix", "app"}
    }
    monkeypatch.setenv("SUBPOOL_CONFIG", file)
    assert cli.main(["config", "show"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: re.split(r"  +", line)[1:] for line in lines}
    assert rows["bind"] == ["127.0.0.1:0, unix:x.sock", "SUBPOOL_BIND"]
    assert rows["mounts[0].app"] == ["a:b", f"{file}:7"]
    assert rows["max_body"] == ["none", "default"]
    assert rows["mounts[0].threads"] == ["3", f"{file}:2, the server"]
    assert rows["root_path"] == ["''", "default"]
    assert rows["date_header"] == ["true", "default"]
    assert len({line.rindex("  ") for line in lines}) == 1, "aligned"


def test_a_mount_inherits_what_it_does_not_say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also where it says null, as the server does (`groups`)."""
    from subpool.http.groups import groups
    from subpool.http.sources import load_config

    mounts = "  - {prefix: /, app: 'a:b', threads: 3, timeout: null}\n  - {prefix: /c, app: 'c:d', timeout: 1}\n"
    file = write(tmp_path, f"timeout: 7\nworkers: 2\nmounts:\n{mounts}")
    shown = show(capsys, "--config", file)
    assert shown["mounts[0].threads"] == {"value": 3, "origin": f"{file}:4"}
    assert shown["mounts[0].timeout"] == {"value": 7.0, "origin": f"{file}:1", "inherited": True}
    assert shown["mounts[1].timeout"] == {"value": 1.0, "origin": f"{file}:5"}
    for number, group in enumerate(groups(load_config(file))):
        for name in ("workers", "threads", "isolation", "pythonpath"):
            assert shown[f"mounts[{number}].{name}"]["value"] == group.options[name]
        assert shown[f"mounts[{number}].timeout"]["value"] == group.specs[0].timeout


def test_secrets_are_never_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                 monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    file = write(tmp_path, f"app: a:b\ncertfile: {__file__}\n")
    monkeypatch.setenv("SUBPOOL_KEYFILE_PASSWORD", "hunter2")
    assert show(capsys, "--config", file)["keyfile_password"] == {"value": "***", "origin": "SUBPOOL_KEYFILE_PASSWORD"}
    assert cli.main(["config", "show", "--config", file]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^keyfile_password +\*\*\* +SUBPOOL_KEYFILE_PASSWORD$", out, re.MULTILINE)
    assert "hunter2" not in out
    monkeypatch.delenv("SUBPOOL_KEYFILE_PASSWORD")
    assert show(capsys, "--config", file)["keyfile_password"]["value"] is None


def test_what_is_wrong_is_not_shown_but_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "show", "a:b", "--workers", "0"]) == 1
    assert capsys.readouterr() == ("", "subpool: error: --workers: is 0; it must be more than 0\n")


@pytest.mark.parametrize("value", ["*hunter2", "!hunter2", "!!hunter2", "!hunter2!x", "[hunter2", "{hunter2: 'x",
                                   "&hunter2", "{a: hunter2}", "'hunter2", '"hunter2', '"hun\\ter2\\q"', "@hunter2",
                                   "hunter2: 3", "%hunter2", "&a &hunter2 3", "2024", "[hunter2]",
                                   "|hunter2"])  # fmt: skip
def test_a_mistake_around_a_password_tells_nothing_of_it(value: str, tmp_path: Path,
                                                         capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    file = write(tmp_path, f"app: a:b\nkeyfile_password: {value}\nworkers: 0\n")
    status, lines = check(file, capsys)
    assert status == 1
    assert lines
    assert not re.search("hunter|2024", "\n".join(lines))


# schema


def test_the_schema_describes_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert schema == json_schema()
    assert set(schema["properties"]) == set(options())
    for model in (schema, *schema["$defs"].values()):
        assert model["additionalProperties"] is False
        for name, field in model["properties"].items():
            assert field["description"], name
            assert not {"group", "secret", "option", "title"} & set(field)
    assert schema["properties"]["keyfile_password"]["writeOnly"] is True


def test_editors_accept_and_refuse() -> None:
    validator = pytest.importorskip("jsonschema").Draft202012Validator
    validator.check_schema(json_schema())
    judge = validator(json_schema())
    judge.validate(YAMLFile(str(EXAMPLES / "subpool.yaml")).values)
    judge.validate({"mounts": [{"prefix": "/", "app": "a:b"}], "timeout": None, "unix_mode": 660,
                    "tls_min_version": 1.3, "grace": 1, "http_version": ["h2"]})  # fmt: skip
    for wrong in (
        {"worker": 3}, {"workers": 0}, {"workers": "3"}, {"bind": "127.0.0.1:80"}, {"isolation": "sub"}, {"grace": 0},
        {"mounts": [{"prefix": "/"}]}, {"mounts": [{"prefix": "/", "app": "a:b", "thread": 1}]}, {"date_header": "no"},
        {"tls_min_version": "1.1"}, {"http_version": ["http/3"]}, {"unix_mode": "rw"},
    ):  # fmt: skip
        assert not judge.is_valid(wrong), wrong
