"""The apps of the guides that `subpool.compat` is for, under load from 4 workers behind the real server.

Each test has a short form, and one of minutes (`make soak`): counters are exact, no subscriber loses a message, one
model is in memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import pytest
from conftest import APPS, DEADLINE, EXAMPLES, free_threaded, pool_options

pytest.importorskip("click")
pytest.importorskip("pydantic")
pytest.importorskip("yaml")
pytest.importorskip("httptools")

import proc_kit
from ops_kit import Served, control_folder, serve
from redis_kit import redis_server

from subpool import NotIsolatable, Pool
from subpool.remote import Remote, live_servers

GUIDES = EXAMPLES / "guides"
LONG = 100_000
Figure = Callable[[str], None]
with_a_gil = pytest.mark.skipif(free_threaded(), reason="threads take the place of processes")


def forms(short: int) -> Any:
    """The suite's form of a test, and the long one."""
    soak = [pytest.mark.soak, pytest.mark.timeout(900)]
    return pytest.mark.parametrize("count", [short, pytest.param(LONG, marks=soak)], ids=["short", "long"])


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with control_folder(monkeypatch):
        yield


def get(path: str, body: Any = None) -> bytes:
    """A request; with a body, which goes as JSON, a POST."""
    if body is None:
        return f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    return head.encode() + data


class Client:
    """A connection that is kept. It knows responses with a Content-Length alone, and costs little."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._socket = socket.create_connection(address, timeout=DEADLINE)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, request: bytes) -> bytes:
        """The body of the answer, which is a 200."""
        self._socket.sendall(request)
        data, size = b"", -1
        while True:
            more = self._socket.recv(65536)
            assert more, data
            data += more
            head, found, body = data.partition(b"\r\n\r\n")
            if found:
                length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
                assert length, data
                size = int(length[1])
                if len(body) >= size:
                    assert head.startswith(b"HTTP/1.1 200 "), data
                    return body


def load(requests: Iterable[tuple[tuple[str, int], bytes]], clients: int = 8) -> list[bytes]:
    """Send them all, by so many clients at a time; the answers, in the requests' order."""
    left, lock = enumerate(requests), threading.Lock()
    answers: dict[int, bytes] = {}
    failed: list[BaseException] = []

    def client() -> None:
        with contextlib.ExitStack() as stack:
            peers: dict[tuple[str, int], Client] = {}
            try:
                while not failed:
                    with lock:
                        one = next(left, None)
                    if one is None:
                        return
                    number, (address, request) = one
                    if address not in peers:
                        peers[address] = stack.enter_context(Client(address))
                    answers[number] = peers[address].ask(request)
            except BaseException as error:
                failed.append(error)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return [answer for _, answer in sorted(answers.items())]


def status(served: Served) -> dict[str, Any]:
    (path,) = [path for path in live_servers() if str(served.pid) in path]
    with Remote(path) as remote:
        return dict(remote.ask("status"))


def all_worked(served: Served, isolation: str, workers: int = 4) -> None:
    """It has so many workers of that kind, and each of them has served."""
    (pool,) = status(served)["pools"]
    assert pool["isolation"] == isolation
    assert len(pool["workers"]) == workers
    assert all(worker["served"] for worker in pool["workers"]), pool["workers"]


def rate(count: int, begun: float) -> str:
    return f"{count / (time.monotonic() - begun):,.0f} a second"


# the apps


def test_their_names_load_on_first_use() -> None:
    """A worker that only counts does not load what calls and topics need."""
    from subpool import compat, functions, pubsub

    assert (compat.call, compat.cast, compat.publish) == (functions.call, functions.cast, pubsub.publish)
    assert all(hasattr(compat, name) for name in compat.__all__)
    assert not hasattr(compat, "nothing_of_that_name")
    code = "import sys, subpool.compat; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=DEADLINE, check=True)
    assert not {"subpool.functions", "subpool.pubsub"} & set(done.stdout.split())


@forms(2000)
def test_flask(count: int, figure: Figure) -> None:
    """Each view has a number of its own; what is cached is computed once, and again when its time is over."""
    pytest.importorskip("flask")
    with serve("--workers", "4", "--isolation", "subinterpreter", app="seed_flask:application") as served:
        begun = time.monotonic()
        answers = load((served.address, get("/")) for _ in range(count))
        figure(f"{count} increments from 4 workers, {rate(count, begun)}, exact")
        views = [int(answer.removeprefix(b"Page views: ")) for answer in answers]
        assert sorted(views) == list(range(1, count + 1))

        with Client(served.address) as client:
            assert json.loads(client.ask(get("/api/data?ttl=0.05")))["number"] == 1
            end = time.monotonic() + DEADLINE
            while json.loads(client.ask(get("/api/data")))["number"] == 1:
                assert time.monotonic() < end
        answers = load((served.address, get("/api/data")) for _ in range(100))
        expected = {"number": 2, "squares": [number * number for number in range(10)]}
        assert all(json.loads(answer) == expected for answer in answers)
        with Client(served.address) as client:
            stats = json.loads(client.ask(get("/api/stats")))
        assert stats == {"page_views": count, "computed": 2, "nobody_set_this": None}
        all_worked(served, "subinterpreter")


@with_a_gil
@forms(1000)
def test_fastapi(count: int, figure: Figure) -> None:
    """pydantic's core refuses sub-interpreters: 4 processes, one model each, and one answer of it for all."""
    pytest.importorskip("fastapi")
    with serve("--workers", "4", app="seed_fastapi:app") as served:
        begun = time.monotonic()
        answers = load((served.address, get("/")) for _ in range(count))
        figure(f"{count} increments from 4 processes, {rate(count, begun)}, exact")
        assert sorted(json.loads(answer)["views"] for answer in answers) == list(range(1, count + 1))

        items = load((served.address, get("/items/", {"name": f"item {number}"})) for number in range(60))
        made = {one["id"]: one for one in map(json.loads, items)}
        assert sorted(made) == list(range(1, 61))
        assert {one["name"] for one in made.values()} == {f"item {number}" for number in range(60)}
        found = load((served.address, get(f"/items/{number}")) for number in made)
        assert {one["id"]: one for one in map(json.loads, found)} == made

        texts = [f"text {'x' * number}" for number in range(1, 11)]
        answers = load((served.address, get(f"/predict?text={quote(texts[at % 10])}")) for at in range(100))
        told = [json.loads(answer) for answer in answers]
        assert Counter(one["result"]["letters"] for one in told) == {len(text): 10 for text in texts}
        assert {one["result"]["words"] for one in told} == {2}
        assert served.pid not in {one["pid"] for one in told}
        with Client(served.address) as client:
            stats = json.loads(client.ask(get("/stats")))
        assert (stats["models"], stats["predictions"]) == (4, 10)
        all_worked(served, "process")


async def chat(addresses: list[tuple[str, int]], rooms: int, each: int, ahead: int = 8) -> dict[str, list[list[Any]]]:
    """Members of rooms, one of each at each address; what each of a room has heard.

    A member says `each` messages, and is at most `ahead` ahead of what it has heard of itself.
    """
    websockets = pytest.importorskip("websockets")
    members = len(addresses)
    heard: dict[str, list[list[Any]]] = {f"room{number}": [] for number in range(rooms)}
    workers = set()
    joining, all_there = asyncio.Lock(), asyncio.Barrier(members * rooms)

    async def member(address: tuple[str, int], room: str, user: int) -> None:
        url = "ws://{}:{}/chat/{}".format(*address, room)
        async with contextlib.AsyncExitStack() as stack:
            async with joining:  # in turns: who comes while a worker waits for Redis is sent to another
                peer = await stack.enter_async_context(websockets.connect(url))
                workers.add((address, json.loads(await peer.recv())["worker"]))
            news: list[Any] = []
            heard[room].append(news)
            await all_there.wait()
            said = back = 0
            while len(news) < members * each:
                while said < each and said - back < ahead:
                    await peer.send(json.dumps({"user": user, "at": said}))
                    said += 1
                news.append(json.loads(await peer.recv()))
                back += news[-1]["user"] == user

    async with asyncio.TaskGroup() as group:
        for number in range(rooms):
            for user, address in enumerate(addresses):
                group.create_task(member(address, f"room{number}", user))
    assert len(workers) == 4
    return heard


def in_order(news: list[Any], members: int, each: int) -> None:
    """All that was said is there, once, in the order in which each said it, and nothing was lost."""
    assert not any(message["lost"] for message in news)
    for user in range(members):
        assert [message["at"] for message in news if message["user"] == user] == list(range(each))


@forms(1600)
def test_chat(count: int, figure: Figure) -> None:
    """8 members of 2 rooms, on 4 workers: all of a room hear all that is said in it, in one order."""
    pytest.importorskip("starlette")
    each = count // 32
    with serve("--workers", "4", "--isolation", "subinterpreter", app="seed_chat:app") as served:
        begun = time.monotonic()
        heard = asyncio.run(chat([served.address] * 4, 2, each))
        figure(f"{each * 32} messages heard by 8 members from 4 workers, {rate(each * 32, begun)}, none lost")
        for room, news in heard.items():
            in_order(news[0], 4, each)
            assert all(one == news[0] for one in news)
            assert sorted(message["number"] for message in news[0]) == list(range(1, 4 * each + 1))
            with Client(served.address) as client:
                end = time.monotonic() + DEADLINE
                while json.loads(client.ask(get(f"/room/{room}"))) != {
                    f"present:{room}": 0,
                    f"messages:{room}": 4 * each,
                }:
                    assert time.monotonic() < end


# a model of numpy on the host


@with_a_gil
@pytest.mark.anyio
async def test_numpy_refuses_sub_interpreters() -> None:
    """If it no longer does, the guides need no helper for it."""
    pytest.importorskip("numpy")
    with pytest.raises(NotIsolatable) as caught:
        async with Pool("seed_numpy:app", **pool_options("subinterpreter", interface="wsgi")):
            pass
    assert caught.value.module.startswith("numpy")


def family(pid: int) -> Iterator[int]:
    yield pid
    for child in proc_kit.children(pid):
        yield from family(child)


@with_a_gil
@forms(500)
@pytest.mark.parametrize("app", ["seed_ml:application", pytest.param("ml_search:app", marks=pytest.mark.soak)])
def test_a_model_on_the_host(app: str, count: int, figure: Figure) -> None:
    """Made once, in one process, and the only one that has numpy; its answers are right."""
    pytest.importorskip("flask")
    pytest.importorskip("numpy")
    texts = [f"{word} {number}" for word in ("green tee", "black coffe", "cold juice") for number in range(50)]
    code = f"import json, ml_model; m = ml_model.Model(); print(json.dumps([m.search(text) for text in {texts!r}]))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=GUIDES, stdout=subprocess.PIPE, timeout=DEADLINE, check=True
    )
    right = json.loads(done.stdout)
    function = "model=ml_model:Model"
    options = ("--workers", "4", "--isolation", "subinterpreter", "--pythonpath", APPS, "--function", function)
    with serve(*options, app=app, path=GUIDES) as served:
        begun = time.monotonic()
        abouts = Counter(load((served.address, get("/model")) for _ in range(count)))
        figure(f"{count} calls of one model from 4 workers, {rate(count, begun)}")
        assert len(abouts) == 1
        about = json.loads(next(iter(abouts)))
        asked = [text for text in texts for _ in range(4)]  # the same one from several clients at a time
        answers = load((served.address, get(f"/search?text={quote(text)}")) for text in asked)
        for answer, titles in zip(answers, (one for one in right for _ in range(4)), strict=True):
            assert [[one["title"], one["likeness"]] for one in json.loads(answer)] == titles
        assert (about["number"], about["shape"]) == (1, [7, 512])
        services = status(served)["services"]
        assert services["failed"] == 0
        assert services["calls"] == count + len(texts)  # each text once, whichever workers wanted it
        all_worked(served, "subinterpreter")
        if sys.platform == "linux":
            having = [pid for pid in family(served.pid) if "/numpy/" in Path(f"/proc/{pid}/maps").read_text()]
            assert having == [about["pid"]]
            assert about["pid"] != served.pid


def p99(client: Client, seconds: float) -> tuple[float, int]:
    """Seconds, of so many hellos one after another."""
    took, end = [], time.monotonic() + seconds
    while (begun := time.monotonic()) < end:
        assert client.ask(get("/hello")) == b"'hello'"
        took.append(time.monotonic() - begun)
    return statistics.quantiles(took, n=100)[98], len(took)


@pytest.mark.parametrize(
    "rounds", [1, pytest.param(15, marks=[pytest.mark.soak, pytest.mark.timeout(300)])], ids=["short", "long"]
)
def test_a_function_that_computes_holds_up_nobody(rounds: int, figure: Figure) -> None:
    """Two seconds of pure Python on the host: hello is answered meanwhile, by the other workers."""
    with serve("--workers", "4", "--function", "burns=host_functions:burns", app="services_app:wsgi") as served:
        ratios, before, during = [], [], []
        with Client(served.address) as client:
            p99(client, 0.3)
            for _ in range(rounds):
                free, _ = p99(client, 0.7)
                burning = threading.Thread(target=load, args=([(served.address, get("/call?burns"))], 1))
                burning.start()
                busy, answered = p99(client, 1.2)
                assert burning.is_alive()
                burning.join()
                assert answered > 50
                before.append(free * 1e3)
                during.append(busy * 1e3)
                ratios.append(busy / free)
        free, busy, ratio = map(statistics.median, (before, during, ratios))
        figure(f"p99 of hello {busy:.2f} ms while a function computes, {free:.2f} before: {ratio:.2f} x, of {rounds}")
        assert busy < 500


# two machines


@forms(960)
def test_two_servers_with_one_redis(count: int, figure: Figure, tmp_path: Path) -> None:
    """They share counters and topics."""
    pytest.importorskip("msgpack")
    pytest.importorskip("starlette")
    with redis_server(tmp_path) as redis:
        options = ("--workers", "2", "--state", redis.url, "--bus", redis.url)
        with serve(*options, app="seed_chat:app") as one, serve(*options, app="seed_chat:app") as other:
            begun = time.monotonic()
            answers = load(((one, other)[at % 2].address, get("/")) for at in range(count))
            figure(f"{count} increments from 2 servers over Redis, {rate(count, begun)}, exact")
            assert sorted(map(int, answers)) == list(range(1, count + 1))

            each = count // 32
            begun = time.monotonic()
            heard = asyncio.run(chat([one.address, other.address] * 2, 2, each))
            figure(f"{each * 32} messages heard by 8 members of 2 servers, {rate(each * 32, begun)}, none lost")
            for news in heard.values():
                for mine in news:
                    in_order(mine, 4, each)
                    assert sorted(message["number"] for message in mine) == list(range(1, 4 * each + 1))
