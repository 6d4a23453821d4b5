"""The shared state behind the server: a namespace for each mount, one store for all of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from conftest import KINDS

pytest.importorskip("httptools")
pytest.importorskip("pydantic")

from http_kit import get, serving
from ws_client import frame, upgrade

from subpool import ConfigError
from subpool.http.settings import settings
from subpool.http.sources import Sources, load_config

ASGI, WSGI = "state_app:app", "state_app:wsgi"


def count(site: Any, path: str) -> int:
    """What the mount at `path` has counted, with this request."""
    return int(site.ask(get(path, "Connection: close")).body)


@pytest.mark.parametrize("isolation", KINDS)
def test_each_mount_has_its_own(isolation: str) -> None:
    mounts = [
        {"prefix": "/", "app": ASGI},
        {"prefix": "/again", "app": ASGI},
        {"prefix": "/wsgi", "app": WSGI},
        {"prefix": "/threads", "app": WSGI, "threads": 2},
        {"prefix": "/threads/more", "app": WSGI, "threads": 2},
        {"prefix": "/one", "app": ASGI, "state_namespace": "common"},
        {"prefix": "/two", "app": WSGI, "threads": 2, "state_namespace": "common"},
    ]
    with serving(isolation=isolation, mounts=mounts) as site:
        assert len(site.server.pools) == 2
        for number in (1, 2):
            for path in ("/", "/again", "/wsgi", "/threads", "/threads/more"):
                assert count(site, path) == number, path
        assert [count(site, path) for path in ("/one", "/two", "/one")] == [1, 2, 3]
        site.talk(upgrade("/again") + frame(8, b"\x03\xe8"))
        assert count(site, "/again") == 4
        assert count(site, "/") == 3
        place = site.server.pools[0]._setup["state"]["place"]
        assert {pool._setup["state"]["place"] for pool in site.server.pools} == {place}
        assert os.path.isdir(place)
    assert not os.path.exists(place)


def test_one_for_all_mounts() -> None:
    mounts = [{"prefix": "/a", "app": ASGI}, {"prefix": "/b", "app": WSGI, "isolation": "thread"}]
    with serving(mounts=mounts, state_namespace="site") as site:
        assert [count(site, path) for path in ("/a", "/b", "/a", "/b")] == [1, 2, 3, 4]


def test_what_is_on_disk_is_there_after_a_restart(tmp_path: Path) -> None:
    for number in (1, 2):
        with serving(mounts=[{"prefix": "/a", "app": ASGI}], state=f"sqlite:///{tmp_path}/site.db") as site:
            assert count(site, "/a") == number
            assert site.server.pools[0].state.name == "state_app:app/a"


@pytest.mark.parametrize("hooks", [False, True])
def test_repeated_requests_find_their_mount(hooks: bool) -> None:
    options: dict[str, Any] = {"hooks": {"on_request": "state_app:pass_on"}} if hooks else {}
    mounts = [{"prefix": "/", "app": ASGI}, {"prefix": "/wsgi", "app": WSGI}]
    with serving(mounts=mounts, **options) as site, site.peer() as peer:
        for number in range(1, 5):
            for path in ("/", "/wsgi"):
                assert int(peer.ask(get(path)).body) == number


def test_http2_finds_its_mount() -> None:
    httpx = pytest.importorskip("httpx")
    pytest.importorskip("h2")
    mounts = [{"prefix": "/", "app": ASGI}, {"prefix": "/wsgi", "app": WSGI}]
    with serving(mounts=mounts, http_version=["h2", "http/1.1"]) as site:
        with httpx.Client(http1=False, http2=True) as client:
            assert [client.get(site.url + path).text for path in ("/", "/wsgi", "/")] == ["1", "1", "2"]


# options


def test_the_section_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "subpool.yaml"
    file.write_text("app: a:b\nstate:\n  url: sqlite:///tmp/x.db\n  max_entries: 5\n  eviction: lru\n")
    assert load_config(str(file)).state == "sqlite:///tmp/x.db?max_entries=5&eviction=lru"
    file.write_text("app: a:b\nstate: {max_bytes: 100000}\n")
    assert load_config(str(file)).state == "memory:?max_bytes=100000"
    given = load_config(str(file), {"SUBPOOL_STATE": "redis://host/1", "SUBPOOL_STATE_NAMESPACE": "x"})
    assert (given.state, given.state_namespace) == ("redis://host/1", "x")


def test_what_is_wrong_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "subpool.yaml"
    file.write_text(
        "app: a:b\nstate:\n  url: redis://u:s3cret@host\n  max_bytes: 5\n"
        'mounts: [{prefix: /a, app: "a:b", state_namespace: ""}]\n'
    )
    with pytest.raises(ConfigError) as caught:
        load_config(str(file), {"SUBPOOL_STATE_NAMESPACE": "a\tb"})
    first, second, third = caught.value.problems
    assert first.startswith(f"{file}:2: state: has bounds, but those of Redis are its own")
    assert second.startswith(f"{file}:5: mounts[0].state_namespace: is ''; it must be 1 to 500")
    assert third.startswith("SUBPOOL_STATE_NAMESPACE: is 'a\\tb'; it must be")
    assert "s3cret" not in str(caught.value)


def test_a_password_is_not_shown(tmp_path: Path) -> None:
    found = settings(Sources(None, {"SUBPOOL_STATE": "redis://u:s3cret@host/0"}, {"app": "a:b"}))
    (shown,) = (one for one in found if one.name == "state")
    assert (shown.value, shown.text) == ("redis://u:***@host/0",) * 2
