"""What becomes of a YAML file, the environment and a command line: a configuration, or all that is wrong with them."""

from __future__ import annotations

import os
import pickle
import re
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("pydantic")
pytest.importorskip("yaml")

from subpool import ConfigError, SubpoolError
from subpool.http.options import from_text, options
from subpool.http.sources import Sources, load_config
from subpool.http.yamlfile import YAMLFile

NAMES = list(options())


def problems(file: Path | None = None, environ: dict[str, str] | None = None, **arguments: Any) -> list[str]:
    """What `load_config` finds wrong."""
    with pytest.raises(ConfigError) as caught:
        load_config(None if file is None else str(file), environ, arguments)
    return list(caught.value.problems)


def test_the_later_source_wins(tmp_path: Path) -> None:
    file = tmp_path / "subpool.yaml"
    file.write_text("app: file:app\nworkers: 1\nthreads: 1\nwindow: 1\nbind: ['127.0.0.1:1', '127.0.0.1:2']\n")
    environ = {"SUBPOOL_WORKERS": "2", "SUBPOOL_WINDOW": "2", "SUBPOOL_BIND": "127.0.0.1:3, [::1]:4", "PATH": "/bin"}
    made = load_config(str(file), environ, {"window": "3"})
    assert (made.app, made.threads, made.workers, made.window, made.max_body) == ("file:app", 1, 2, 3, None)
    assert made.bind == ["127.0.0.1:3", "[::1]:4"]
    origins = Sources(str(file), environ, {"window": "3"}).origins
    assert (origins["threads"], origins["workers"], origins["window"]) == (str(file), "SUBPOOL_WORKERS", "--window")


def test_everything_wrong_is_told_at_once_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "subpool.yaml"
    file.write_text(
        """\
workerz: 3
bind: [nowhere, 3]
proxy_headers: yes
mounts:
  - &first
    prefix: /a/
    app: a:b
    timeout: true
  - <<: *first
    prefix: /b
    interface: asgy
    thread: 2
  - nope
  - prefix: /b
grace: .inf
threads: 1
threads: 2
window: !!python/object:os.system x
max-body: 1
http_version: h2
keyfile_password: 12345
"""
    )
    found = problems(file, {"SUBPOOL_WORKER": "3", "SUBPOOL_BACKLOG": "x"}, timeout="-1", loop="asynci")
    assert [one.removeprefix(f"{file}:") for one in found] == [
        "1: workerz: there is no such option; did you mean 'workers'?",
        "2: bind[0]: is 'nowhere'; it must be HOST:PORT with a port of 0 to 65535, unix:PATH or fd://N",
        "2: bind[1]: is 3; it must be text",
        "3: proxy_headers: is 'yes'; it must be true or false",
        "6: mounts[0].prefix: is '/a/'; it must not end with '/'",
        "8: mounts[0].timeout: is true; it must be a number",
        "8: mounts[1].timeout: is true; it must be a number",
        "11: mounts[1].interface: is 'asgy'; it must be one of auto, asgi, wsgi; did you mean 'asgi'?",
        "12: mounts[1].thread: there is no such option; did you mean 'threads'?",
        "13: mounts[2]: is 'nope'; it must be a mapping",
        "14: mounts[3].app: is missing",
        "14: mounts[3].prefix: is '/b', which mounts[1] serves already",
        "15: grace: is inf; it must be finite",
        "17: threads: is there twice; the first is in line 16",
        "18: its tag is not known here",
        "19: max-body: there is no such option; did you mean 'max_body'?",
        "20: http_version: is 'h2'; it must be a list",
        "21: keyfile_password: is given, but certfile is not",
        "21: keyfile_password: is not shown; it must be text",
        "SUBPOOL_WORKER: there is no such option; did you mean 'workers'?",
        "SUBPOOL_BACKLOG: is 'x'; it must be a whole number",
        "--loop: is 'asynci'; it must be one of auto, asyncio, uvloop; did you mean 'asyncio'?",
        "--timeout: is -1.0; it must be more than 0",
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("app: [", "1: expected the node content, but found '<stream end>'"),
        ("- a", "1: must be a mapping, option: value"),
        ("\n\nworkers: &a [*a]", "3: this value contains itself"),
        ("app: *a", "1: found undefined alias"),
        ("app: a:b\n---\napp: b:c", "2: but found another document"),
        ("app: \x00", " this is no YAML: "),
        ("[" * 5000, " its values are nested too deeply"),
        ("? [a]\n: b", "1: a key must be text"),
        ("<<: 3", "1: '<<' merges mappings, and this is none"),
        ("workers: " + "9" * 5000, "1: this is no int"),
    ],
)
def test_what_is_no_yaml(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "subpool.yaml"
    file.write_text(text)
    found = problems(file, {}, app="a:b") if "workers" in text or "<<" in text or "?" in text else problems(file)
    assert any(one.startswith(f"{file}:{told}") for one in found), found


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    assert problems(tmp_path / "none.yaml") == [f"{tmp_path / 'none.yaml'}: No such file or directory"]
    assert problems(tmp_path) == [f"{tmp_path}: Is a directory"]


def test_yaml_12_scalars(tmp_path: Path) -> None:
    file = tmp_path / "subpool.yaml"
    file.write_text(
        "a: off\nb: on\nc: 0660\nd: 1:30\ne: 2001-01-01\nf: ~\ng: 1e3\nh: .5\ni: true\nj: 'true'\nk: -.inf\n"
    )
    assert YAMLFile(str(file)).values == {
        "a": "off", "b": "on", "c": 660, "d": "1:30", "e": "2001-01-01", "f": None, "g": 1000.0, "h": 0.5, "i": True,
        "j": "true", "k": float("-inf"),
    }  # fmt: skip
    file.write_text("app: a:b\naccess_log: off\nlifespan: on\nunix_mode: 0660\ntls_min_version: 1.3\ntimeout: null\n")
    made = load_config(str(file))
    assert (made.access_log, made.lifespan, made.unix_mode) == ("off", "on", "660")
    assert (made.tls_min_version, made.timeout) == ("1.3", None)


def test_aliases_are_made_once(tmp_path: Path) -> None:
    """The "billion laughs": what would be 10**20 items."""
    file = tmp_path / "subpool.yaml"
    lines = ["a0: &a0 [x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 20))]
    file.write_text("\n".join([*lines, "bind: *a19"]))
    assert len(problems(file)) == 20 + 10 + 1


def test_environment() -> None:
    ours = {"SUBPOOL_APP": "a:b", "SUBPOOL_DATE_HEADER": "No", "SUBPOOL_TIMEOUT": "none", "SUBPOOL_MAX_BODY": ""}
    others = {"SUBPOOL_PORT": "tcp://10.0.0.1:80", "SUBPOOL_PORT_80_TCP": "x", "SUBPOOL_SERVICE_HOST": "10.0.0.1",
              "SUBPOOL_CONFIG": "subpool.yaml", "SUBPOOLS": "3"}  # fmt: skip
    made = load_config(None, ours | others)
    assert (made.app, made.date_header, made.timeout, made.max_body) == ("a:b", False, None, None)
    made = load_config(None, {"SUBPOOL_MOUNTS": "/=site:app,/api=api:make()"})
    assert [(mount.prefix, mount.app) for mount in made.mounts] == [("/", "site:app"), ("/api", "api:make()")]
    assert problems(None, {"SUBPOOL_MOUNTS": "/a,b=x:y"}) == [
        "SUBPOOL_MOUNTS: is '/a'; it must be PREFIX=APP",
        "SUBPOOL_MOUNTS: prefix: is 'b'; it must start with '/'",
    ]


def test_nothing_to_serve() -> None:
    assert problems() == ["app: there is nothing to serve: name an app, or mounts"]


def test_config_error() -> None:
    error = pickle.loads(pickle.dumps(ConfigError(["one", "two"])))
    assert isinstance(error, SubpoolError)
    assert isinstance(error, ValueError)
    assert error.problems == ("one", "two")
    assert str(error) == "one\ntwo"


TEXTS = st.text(string.printable, max_size=12)


@given(
    st.dictionaries(st.sampled_from(NAMES), TEXTS), st.dictionaries(st.sampled_from(NAMES), st.lists(TEXTS, max_size=3))
)
def test_any_text_makes_a_configuration_or_problems(environ: dict[str, str], arguments: dict[str, list[str]]) -> None:
    variables = {options()[name].variable: text for name, text in environ.items()}
    given_: dict[str, Any] = {
        name: texts if options()[name].many else "".join(texts) for name, texts in arguments.items()
    }
    found: tuple[str, ...] = ()
    try:
        load_config(None, variables, given_)
    except ConfigError as error:
        found = error.problems
    assert all(re.match(r"(SUBPOOL_\w+|--[\w-]+|APP|app): \S", one) for one in found), found


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
TREES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*NAMES, "prefix", "other"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from([*NAMES, "mount", "work"]), TREES))
def test_every_problem_of_a_file_has_its_line(tmp_path_factory: pytest.TempPathFactory, tree: dict[str, Any]) -> None:
    import yaml

    file = tmp_path_factory.getbasetemp() / f"any-{os.getpid()}.yaml"
    file.write_text(yaml.safe_dump(tree), encoding="utf-8")
    lines = file.read_text(encoding="utf-8").splitlines()
    told: tuple[str, ...] = ()
    try:
        load_config(str(file))
    except ConfigError as error:
        told = error.problems
    for one in told:
        if one.startswith("app: there is nothing"):
            continue
        found = re.match(re.escape(str(file)) + r":(\d+): (\w+)(\[\d+\])?(\.\w+)?", one)
        assert found is not None, one
        assert 1 <= int(found[1]) <= len(lines)
        if found[3] is None:
            name = found[4].removeprefix(".") if found[4] else found[2]
            assert name in lines[int(found[1]) - 1], one


@given(st.text(max_size=60) | st.text("ab:-[]{}&*!<>'\"\n ,?#|%@0123.~", max_size=60))
def test_any_file_makes_data_or_problems(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    file = tmp_path_factory.getbasetemp() / f"text-{os.getpid()}.yaml"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    made = YAMLFile(str(file))
    assert isinstance(made.values, dict)
    assert all(line >= 0 and what for line, what in made.problems)


def test_text_of_each_kind() -> None:
    every = options()
    assert from_text(every["workers"], "3") == 3
    assert from_text(every["workers"], "none") is None
    assert from_text(every["threads"], "none") == "none"
    assert from_text(every["grace"], "0.5") == 0.5
    assert from_text(every["mounts"], "/a=b:c") == {"prefix": "/a", "app": "b:c"}
    assert from_text(every["date_header"], "maybe") == "maybe"
