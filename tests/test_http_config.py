"""The server's options: the model, and what becomes of a file, the environment and a command line."""

from __future__ import annotations

import importlib.util
import pickle
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("pydantic")
pytest.importorskip("yaml")
pytest.importorskip("click")

from pydantic import ValidationError

from subpool import ConfigError, config
from subpool.http import config as http_config
from subpool.http.addresses import BindAddress, check_prefix, parse_bind
from subpool.http.config import GROUPS, MountConfig, ServerConfig
from subpool.http.options import options
from subpool.http.sources import load_config

ROOT = Path(__file__).resolve().parent.parent
NAMES = list(options())


def wrong(**values: Any) -> dict[str, str]:
    """The messages of the model, by place."""
    with pytest.raises(ValidationError) as caught:
        ServerConfig(**{"app": "myapp:app", **values})
    return {".".join(map(str, error["loc"])): error["msg"] for error in caught.value.errors()}


# the model


def test_defaults_are_those_of_a_pool() -> None:
    made, pool = ServerConfig(app="myapp:app"), config.make("myapp:app", {})
    for name in ("isolation", "interface", "preload_app", "lifespan", "threads", "timeout", "max_pending", "window",
                 "max_concurrency", "max_websockets", "start_timeout", "close_timeout", "grace"):  # fmt: skip
        assert getattr(made, name) == getattr(pool, name), name
    for alias, choices in (
        (http_config.Isolation, config.ISOLATION),
        (http_config.Interface, config.INTERFACES),
        (http_config.Lifespan, config.LIFESPANS),
    ):
        assert get_args(alias) == choices


def test_frozen_and_picklable() -> None:
    made = ServerConfig(app="myapp:app", mounts=[MountConfig(prefix="/api", app="api:app")])
    assert pickle.loads(pickle.dumps(made)) == made
    with pytest.raises(ValidationError):
        made.workers = 3


def test_every_option_is_described() -> None:
    for model in (ServerConfig, MountConfig):
        for option in options(model).values():
            assert option.text
            assert "\n" not in option.text
            assert option.group in GROUPS
    schema = ServerConfig.model_json_schema()
    assert set(schema["properties"]) == set(NAMES)
    assert set(options(MountConfig)) - {"prefix"} <= set(NAMES)


@pytest.mark.parametrize("name", [n for n, option in options().items() if option.kind in ("integer", "number")])
@pytest.mark.parametrize("value", [0, -1, "1", True, float("inf"), float("nan")])
def test_numbers_are_positive_and_numbers(name: str, value: Any) -> None:
    if value == 0 and value is not False and name in ("max_requests_jitter", "max_abandoned"):
        assert getattr(ServerConfig(app="a:b", **{name: value}), name) == 0
    else:
        assert name in wrong(**{name: value})


@pytest.mark.parametrize(("given", "meant"), [(3, 3), ("2-8", {"min": 2, "max": 8}), ({"min": 1, "max": 1},) * 2])
def test_workers_may_be_a_range(given: Any, meant: Any) -> None:
    made = ServerConfig(app="a:b", workers=given)
    assert made.workers == meant
    assert made.model_dump(mode="json")["workers"] == meant


@pytest.mark.parametrize(
    "given", ["8-2", "0-3", {"min": 2}, {"min": 3, "max": 2}, {"min": 1, "max": 2, "most": 3}, "many"]
)
def test_bad_ranges_of_workers(given: Any) -> None:
    assert "workers" in wrong(workers=given)


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ({"app": "myapp"}, "app"),
        ({"app": None}, "app"),
        ({"mounts": [{"prefix": "/", "app": "other:app"}]}, "mounts.0.prefix"),
        ({"mounts": [{"prefix": "/a", "app": "a:a"}, {"prefix": "/a", "app": "b:b"}]}, "mounts.1.prefix"),
        ({"mounts": [{"prefix": "/a", "app": "a:a", "lifespan": "on", "interface": "wsgi"}]}, "mounts.0.lifespan"),
        ({"interface": "wsgi", "lifespan": "on"}, "lifespan"),
        ({"keyfile": __file__}, "keyfile"),
        ({"keyfile_password": "open"}, "keyfile_password"),
        ({"ca_certs": __file__}, "ca_certs"),
        ({"certfile": "/nowhere/cert.pem"}, "certfile"),
        ({"certfile": __file__, "verify_client": "required"}, "verify_client"),
        ({"access_log_file": "access.log"}, "access_log_file"),
        ({"max_header": 100, "max_headers_size": 50}, "max_header"),
        ({"bind": []}, "bind"),
        ({"bind": ["127.0.0.1:8000", "127.0.0.1:8000"]}, "bind"),
        ({"http_version": ["h2", "h2"]}, "http_version"),
        ({"http_version": ["http/3"]}, "http_version.0"),
        ({"forwarded_allow_ips": ["10.0.0.1/8"]}, "forwarded_allow_ips.0"),
        ({"forwarded_allow_ips": ["somewhere"]}, "forwarded_allow_ips.0"),
        ({"root_path": "/api/"}, "root_path"),
        ({"server_header": "a\r\nb: c"}, "server_header"),
        ({"unix_mode": "999"}, "unix_mode"),
        ({"venv": "/nowhere"}, "venv"),
        ({"isolation": "sub"}, "isolation"),
        ({"tls_min_version": "1.1"}, "tls_min_version"),
        ({"proxy_headers": 1}, "proxy_headers"),
        ({"nothing": 1}, "nothing"),
    ],
)
def test_what_cannot_be(values: dict[str, Any], place: str) -> None:
    assert list(wrong(**values)) == [place]


def test_what_can_be() -> None:
    ServerConfig(
        mounts=[{"prefix": "/", "app": "a:a"}, {"prefix": "/a", "app": "b:b"}, {"prefix": "/ab", "app": "a:a"}]
    )
    ServerConfig(app="a:make()", bind=["127.0.0.1:0", "127.0.0.1:0"], forwarded_allow_ips=["*", "unix:", "fe80::/10"])
    ServerConfig(app="a:a", certfile=__file__, ca_certs=__file__, verify_client="optional", timeout=None)
    ServerConfig(app="a:a", unix_mode=660, tls_min_version=1.3)  # as YAML reads them


def test_mistakes_of_values_and_of_combinations_come_together() -> None:
    found = wrong(workers=0, keyfile=__file__, lifespan="on", interface="wsgi", nothing=1)
    assert set(found) == {"workers", "keyfile", "lifespan", "nothing"}


def test_the_password_is_shown_nowhere() -> None:
    made = ServerConfig(app="a:a", certfile=__file__, keyfile=__file__, keyfile_password="hunter2")
    assert "hunter2" not in repr(made)
    assert "hunter2" not in repr(wrong(keyfile_password="hunter2"))
    with pytest.raises(ConfigError) as told:
        load_config(None, {"SUBPOOL_KEYFILE_PASSWORD": "hunter2"})
    assert "hunter2" not in str(told.value)
    with pytest.raises(ValidationError) as caught:
        ServerConfig(app="a:a", certfile=__file__, keyfile_password=b"hunter2")
    assert "hunter2" not in str(caught.value)


# addresses


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8000", ("tcp", "127.0.0.1", 8000)),
        ("localhost:0", ("tcp", "localhost", 0)),
        (":80", ("tcp", "", 80)),
        ("[::1]:8000", ("tcp", "::1", 8000)),
        ("unix:/run/app.sock", ("unix", "/run/app.sock", 0)),
        ("unix:a:1", ("unix", "a:1", 0)),
        ("fd://3", ("fd", "", 3)),
    ],
)
def test_addresses(text: str, address: tuple[str, str, int]) -> None:
    assert parse_bind(text) == address


@pytest.mark.parametrize(
    "text",
    ["", "8000", "localhost", "localhost:", "localhost:65536", "localhost:-1", "localhost:٣", "::1:8000", "[::1]",
     "[x]:1", "a b:1", "a/b:1", "unix:", "unix:" + "x" * 200, "unix:a\0b", "fd:3", "fd://", "fd://x", "fd://-1"],
)  # fmt: skip
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match=r"^is "):
        parse_bind(text)


@given(st.text(max_size=40))
def test_any_text_is_an_address_or_a_value_error(text: str) -> None:
    try:
        address = parse_bind(text)
    except ValueError:
        return
    assert isinstance(address, BindAddress)
    assert address.number >= 0


@pytest.mark.parametrize("text", ["/", "/api", "/api/v1", "/a.b", "/..a", "/ä"])
def test_prefixes(text: str) -> None:
    assert check_prefix(text) == text


@pytest.mark.parametrize(
    "text", ["", "api", "/api/", "//", "/a//b", "/..", "/a/../b", "/.", "/a?", "/a#", "/%61", "/a\n", "/a\\b"]
)
def test_what_is_no_prefix(text: str) -> None:
    with pytest.raises(ValueError, match=r"^is "):
        check_prefix(text)


# the page


def test_the_documents_tables_are_those_of_the_models() -> None:
    spec = importlib.util.spec_from_file_location("option_tables", ROOT / "scripts" / "option_tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.page() == module.PAGE.read_text(encoding="utf-8"), "run scripts/option_tables.py"
