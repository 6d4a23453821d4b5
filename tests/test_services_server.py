"""Functions and topics of a server: its configuration, its status, and a chat that spans its workers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import pytest
from conftest import APPS, DEADLINE, EXAMPLES, eventually, pool_options, websocket_scope

pytest.importorskip("click")
pytest.importorskip("pydantic")
pytest.importorskip("yaml")
pytest.importorskip("httptools")

from ops_kit import command, control_folder, serve

from subpool import ConfigError, Pool, Server, ServerConfig
from subpool.http.sources import load_config
from subpool.remote import Remote, live_servers
from subpool.status_table import table

YAML = """
mounts:
  - {prefix: /b, app: "services_app:app", workers: 2}
functions:
  add: host_functions:add
  iadd: host_functions:aadd
  where: "host_functions:where"
  awhere: host_functions:awhere
  model: host_functions:Model
"""


def test_the_server_has_functions(tmp_path: Path) -> None:
    """From YAML: its two pools have the same helper, started before them; `async def` ones run in the server."""
    (tmp_path / "subpool.yaml").write_text(YAML)
    with serve("--config", str(tmp_path / "subpool.yaml"), app="services_app:wsgi") as served:
        helper = {served.get(f"{prefix}?where")[1] for prefix in ("/call", "/b/call")}
        assert len(helper) == 1
        assert {served.get(f"{prefix}?awhere")[1] for prefix in ("/call", "/b/call")} == {str(served.pid)}
        (path,) = [path for path in live_servers() if str(served.pid) in path]
        with Remote(path) as remote:
            status = remote.ask("status")
        services = status["services"]
        assert (services["functions"], services["calls"] >= 4, services["failed"]) == (5, True, 0)
        assert [worker["state"] for worker in services["helper"]["workers"]] == ["ready"]
        assert "functions: 5" in table(status)
        assert "helper" in table(status)


@pytest.mark.anyio
async def test_a_server_in_a_program() -> None:
    """Its functions may be closures; topics are those of all its pools."""
    from http_kit import Peer, get

    mounts = [{"prefix": "/b", "app": "services_app:wsgi", "workers": 2}]
    options = {"bind": ["127.0.0.1:0"], "pythonpath": [APPS], "workers": 1, "control_socket": "none", "mounts": mounts}
    server = Server(ServerConfig(app="services_app:wsgi", **options))
    secret = object()
    server.register("secret", lambda: id(secret), inline=True)
    await server.start()
    try:
        assert len(server.pools) == 2
        async with server.pools[0].subscribe("own") as messages:
            with anyio.fail_after(DEADLINE):
                for path in ("/call?secret", "/b/call?secret"):
                    port = int(server.addresses[0].rpartition(":")[2])
                    with Peer(("127.0.0.1", port)) as peer:
                        reply = await anyio.to_thread.run_sync(peer.ask, get(path, "Connection: close"))
                    assert reply.body == repr(id(secret)).encode()
                assert server.pools[1].publish("own", 1) == 1
                assert await anext(messages) == 1
    finally:
        await server.stop(2.0)


def test_under_the_guard() -> None:
    with serve("--guard", "--function", "awhere=host_functions:awhere", app="services_app:wsgi") as served:
        assert served.get("/call?awhere")[0] == 200


def test_metrics() -> None:
    pytest.importorskip("prometheus_client")
    with serve(
        "--function", "awhere=host_functions:awhere", "--metrics-bind", "127.0.0.1:0", app="services_app:wsgi"
    ) as served:
        assert served.get("/call?awhere")[0] == 200
        shown = served.get("/metrics", served.metrics)[1]
    assert "subpool_function_calls_total 1.0" in shown
    assert "subpool_helper_restarts_total 0.0" in shown
    assert "subpool_subscribers 0.0" in shown


@pytest.mark.parametrize(
    ("function", "text"),
    [
        ("add=host_functions:nothing", "function 'add': 'host_functions' has no attribute 'nothing'"),
        ("add=nothing_here:add", "function 'add': cannot import 'nothing_here'"),
        ("add", "is 'add'; it must be NAME=module:object"),
        ("=a:b", "is '=a:b'; it must be NAME=module:object"),
        ("add=host functions", "must be NAME=module:object"),
    ],
)
def test_what_is_wrong_is_said_at_the_start(function: str, text: str) -> None:
    status, _, said = command("serve", "asgi_app:app", "--bind", "127.0.0.1:0", "--no-guard", "--pythonpath", APPS,
                              "--function", function)  # fmt: skip
    assert status == 1
    assert text in said


def test_the_options(tmp_path: Path) -> None:
    config = ServerConfig(app="a:a", functions={"add": "m:add"}, bus="redis://:hunter2@host/0")
    assert config.functions == ["add=m:add"]
    assert "hunter2" not in repr(config)
    assert load_config(None, {"SUBPOOL_FUNCTIONS": "a=m:a, b=m:b", "SUBPOOL_APP": "a:a"}).functions == [
        "a=m:a",
        "b=m:b",
    ]
    (tmp_path / "c.yaml").write_text("app: a:a\nfunctions:\n  add: 7\n")
    with pytest.raises(ConfigError, match=r"c\.yaml:2: functions"):
        load_config(str(tmp_path / "c.yaml"))
    with pytest.raises(ConfigError) as caught:
        load_config(None, {"SUBPOOL_BUS": "http://:hunter2@host", "SUBPOOL_APP": "a:a"})
    assert "is no URL of Redis" in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch) -> Any:
    with control_folder(monkeypatch):
        yield


# a chat over two workers


@pytest.mark.anyio
async def test_a_chat_that_spans_workers(isolation: str) -> None:
    """Four members with two workers: all hear all, in one order, none lost."""
    count = 150
    path = str(EXAMPLES / "guides")
    async with Pool("ws_rooms:app", **pool_options(isolation, pythonpath=[path])) as pool:
        heard: dict[int, list[str]] = {}
        workers = set()
        joined = [anyio.Event() for _ in range(4)]

        async def member(number: int) -> None:
            async with pool.websocket(websocket_scope("/lobby")) as socket:
                workers.add(str(await socket.receive())[-1])
                heard[number] = []
                joined[number].set()
                await joined[3].wait()

                async def talk() -> None:
                    for at in range(count):
                        await socket.send(f"{number} {at}")

                async with anyio.create_task_group() as group:
                    group.start_soon(talk)
                    while len(heard[number]) < 4 * count:
                        heard[number].append(str(await socket.receive()))

        with anyio.fail_after(DEADLINE):
            async with anyio.create_task_group() as group:
                for number in range(4):
                    group.start_soon(member, number)
                    await joined[number].wait()
        assert workers == {"1", "2"}
        assert heard[0] == heard[1] == heard[2] == heard[3]
        for number in range(4):
            assert [text for text in heard[0] if text.startswith(f"{number} ")] == [
                f"{number} {n}" for n in range(count)
            ]
        await eventually(lambda: pool.stats().services.subscribers == 0)


def test_a_chat_by_a_real_client() -> None:
    client = pytest.importorskip("websockets.sync.client")
    guides = EXAMPLES / "guides"
    with serve("--workers", "2", app="ws_rooms:app", path=guides) as served:
        url = "ws://{}:{}/lobby".format(*served.address)
        with client.connect(url) as one, client.connect(url) as other:
            assert {one.recv(DEADLINE)[-1], other.recv(DEADLINE)[-1]} == {"1", "2"}
            for number in range(50):
                (one if number % 2 else other).send(f"{number}")
                assert (one.recv(DEADLINE), other.recv(DEADLINE)) == (f"{number}", f"{number}")
        assert json.dumps(served.get("/")[0]) == "200"
