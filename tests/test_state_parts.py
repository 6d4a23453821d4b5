"""Parts of the shared state, each by itself: its options, its folder, the writers' turn, bounds, what Redis loses."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import DEADLINE
from redis_kit import RedisServer, redis_server
from state_kit import Clock, make_store

from subpool import StateError, StateFull, StateUnavailable
from subpool.config import PoolOptions
from subpool.state import aio, place
from subpool.state.options import masked, parse
from subpool.state.space import Space
from subpool.state.sqlite import SQLiteStore
from subpool.state.turn import Turn, Waited

# options


def test_urls() -> None:
    assert parse("memory:").setup(7)["place"].endswith(".pool.7")
    assert parse("memory:site").setup(7)["place"] == parse("memory:site").setup(8)["place"]
    assert parse("memory:").shared("x").url == "memory:x"
    assert parse("sqlite:///var/lib/a.db").setup(1)["path"] == "/var/lib/a.db"
    assert parse("sqlite:////var/lib/a.db").setup(1)["path"] == "/var/lib/a.db"
    given = parse("memory:?max_entries=10&max_bytes=2000&eviction=lru")
    assert (given.max_entries, given.max_bytes, given.eviction) == (10, 2000, "lru")
    assert parse(given.text) == given == parse({"max_entries": 10, "max_bytes": 2000, "eviction": "lru"})
    assert parse("redis://host/1?socket_timeout=3").url == "redis://host/1?socket_timeout=3"


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("", "must be memory:"),
        ("mysql://host", "must be memory:"),
        ("memory:a/b", "memory:NAME"),
        ("sqlite://", "sqlite:///PATH"),
        ("memory:?size=1", "no option 'size'"),
        ("memory:?max_entries=-1", "max_entries of state is '-1'"),
        ("memory:?max_entries=0", "max_entries of state is 0"),
        ("memory:?eviction=fifo", "'fifo'; it must be one of error, lru"),
        ("redis://h/0?max_entries=5", "maxmemory"),
        ("sqlite:///a.db?eviction=lru", "neither max_entries nor max_bytes"),
        ({"url": 1}, "url of state is int"),
        ({"uri": "memory:"}, "no option 'uri'"),
        ({"max_bytes": 1.5}, "max_bytes of state is 1.5"),
        (5, "state is int"),
    ],
)
def test_wrong_options(given: Any, text: str) -> None:
    with pytest.raises((TypeError, ValueError), match=text):
        PoolOptions(app="a:b", state=given)


def test_passwords_are_not_shown() -> None:
    for url in ("redis://u:s3cret@host/0", "redis://:s3cret@host", "rediss://host?password=s3cret&db=1",
                "redis://u:s3/cr@et@host", "redis://host?ssl_password=s3cret"):  # fmt: skip
        assert "s3cret" not in masked(url)
        assert "host" in masked(url)
        assert "s3cret" not in repr(PoolOptions(app="a:b", state=url))
    with pytest.raises(ValueError, match="must be memory") as caught:
        parse("postgres://u:s3cret@host")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "a\0b", "a\nb", "x" * 501, 5])
def test_wrong_namespaces(name: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="state_namespace is"):
        PoolOptions(app="a:b", state_namespace=name)


def test_outside_of_workers_and_pools_it_says_so() -> None:
    """In a process of its own: here a worker that another test made deaf may live on."""
    done = subprocess.run([sys.executable, "-c", "from subpool import state; state.get('a')"],
                          check=False, capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 1
    assert "RuntimeError: this works in a worker of subpool, or where a pool is open" in done.stderr


# the folder of a store in memory


def test_a_dead_processs_folder_is_swept(tmp_path: Path) -> None:
    code = "import sys; from subpool.state import place; place.folder = lambda: sys.argv[1]; print(place.of('x'))"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    left = Path(done.stdout.strip())
    left.mkdir(0o700)
    (left / "state.db").write_bytes(b"x")
    others = [tmp_path / "subpool-state-other", tmp_path / left.name.replace("-state-0-", "-state-12345-", 1)]
    own = Path(str(left).replace(left.name, Path(place.of("y")).name))
    for path in {*others, own} - {left}:
        path.mkdir()
    assert place.sweep(str(tmp_path)) == [str(left)]
    assert own.is_dir()
    assert others[0].is_dir()


def test_a_pid_that_is_used_again_is_another_process(tmp_path: Path) -> None:
    name = Path(place.of("x")).name
    _, space, pid, start = name.removeprefix("subpool-state-").split("-")[:4]
    if start == "0":
        pytest.skip("this system does not tell when a process began")
    older = tmp_path / name.replace(f"-{pid}-{start}-", f"-{pid}-{int(start) - 1}-")
    elsewhere = tmp_path / name.replace(f"-{space}-{pid}-", f"-{int(space) + 1}-{2**22 + 1}-")
    for path in (older, elsewhere, tmp_path / name):
        path.mkdir(0o700)
    assert place.sweep(str(tmp_path)) == [str(older)]
    assert elsewhere.is_dir(), "a process of another PID namespace may live"


def test_a_folder_of_others_is_refused(tmp_path: Path) -> None:
    os.mkdir(tmp_path / "open", 0o755)
    os.chmod(tmp_path / "open", 0o755)
    (tmp_path / "file").touch()
    os.symlink(tmp_path, tmp_path / "link")
    for name in ("open", "file", "link"):
        with pytest.raises(StateError, match="no folder of this user alone"):
            place.make(str(tmp_path / name))


def test_pools_that_share_a_folder(tmp_path: Path) -> None:
    path = str(tmp_path / "shared")
    place.make(path)
    place.hold(path)
    place.hold(path)
    assert not place.release(path)
    assert os.path.isdir(path)
    assert place.release(path)
    assert not os.path.exists(path)


def test_without_a_tmpfs_it_is_the_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "TMPFS", str(tmp_path / "none"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert place.of("x").startswith(f"{tmp_path}/subpool-state-")
    monkeypatch.setenv("TMPDIR", "")
    assert place.folder() == "/tmp"


# the turn


def test_a_killed_holder_holds_nobody_up(tmp_path: Path) -> None:
    path = str(tmp_path / "turn")
    code = (
        "import sys, time; from subpool.state.turn import Turn; turn = Turn(sys.argv[1]); turn.take(1.0)\n"
        "print('mine', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"mine\n"
        turn = Turn(path)
        with pytest.raises(Waited, match=r"0\.01 s; nothing was changed"):
            turn.take(0.01)
        os.kill(holder.pid, signal.SIGKILL)
        turn.take(DEADLINE)
        turn.give()
        turn.give()
        turn.close()


def test_brief_writes_do_not_wait(tmp_path: Path) -> None:
    made = make_store("memory", tmp_path)
    made.space.incr("a")
    other = Turn(str(tmp_path / "state" / "state.db-turn"))
    other.take(1.0)
    with pytest.raises(Waited), made.store.brief():
        made.space.incr("a")
    assert made.space.get("a") == 1
    threading.Timer(0.05, other.give).start()
    assert made.space.incr("a") == 2
    other.close()
    made.store.close()


def test_async_writes_leave_the_loop_to_wait(tmp_path: Path) -> None:
    made = make_store("memory", tmp_path)
    made.space.incr("a")
    other = Turn(str(tmp_path / "state" / "state.db-turn"))

    async def main() -> None:
        other.take(1.0)
        task = asyncio.ensure_future(aio.call(made.store, made.space.incr, "a"))
        for _ in range(5):
            await asyncio.sleep(0.001)  # the loop goes on
        assert not task.done()
        assert made.space.get("a") == 1
        other.give()
        assert await task == 2
        assert await aio.call(made.store, made.space.incr, "a") == 3

    asyncio.run(main())
    other.close()
    made.store.close()


# bounds


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_full(kind: str, tmp_path: Path) -> None:
    made = make_store(kind, tmp_path, max_entries=3, max_bytes=5000)
    space = made.space
    space.set_multi({"a": 1, "b": 2})
    space.set("c", 3, ttl=10)
    for call in (lambda: space.set("d", 4), lambda: space.incr("d"), lambda: space.compare_and_set("d", None, 1)):
        with pytest.raises(StateFull, match=r"state 'd': the state is full: max_entries=3, max_bytes=5000"):
            call()
    with pytest.raises(StateFull, match="full"):
        space.set_multi({"a": 5, "d": 4})
    assert space.get_multi(["a", "d"]) == {"a": 1, "d": None}
    space.set("a", 10)
    assert space.incr("a") == 11, "what is there can change"
    with pytest.raises(StateFull, match="state 'a'"):
        space.set("a", "x" * 5000)
    assert space.get("a") == 11
    made.pass_time(10)
    space.set("d", 4)
    assert space.keys() == ["a", "b", "d"], "what has expired makes room"
    space.set("a", "x" * 4500)
    with pytest.raises(StateFull, match="max_bytes=5000"):
        space.set("b", "x" * 500)
    space.set("a", "")
    space.set("b", "x" * 500)
    made.store.close()


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_least_recently_used_goes_first(kind: str, tmp_path: Path) -> None:
    made = make_store(kind, tmp_path, max_entries=3, max_bytes=2000, lru=True)
    space = made.space
    for key in ("a", "b", "c"):
        space.set(key, 1)
    space.get("a")
    space.set("d", 1)
    assert space.keys() == ["a", "c", "d"]
    space.incr("c")
    space.get_multi(["a"])
    space.set("e", 1)
    assert space.keys() == ["a", "c", "e"]
    space.set("f", "x" * 1850)
    assert space.keys() == ["f"]
    with pytest.raises(StateFull, match="more than the state may hold"):
        space.set("g", "x" * 2000)
    space.set_multi({"h": 1, "i": 2})
    for number in range(100):
        space.set(number, number)
    assert space.keys() == [97, 98, 99]
    made.store.close()


def test_expired_entries_are_swept_by_who_writes(tmp_path: Path) -> None:
    made = make_store("memory", tmp_path)
    space = made.space
    space.set_multi({number: number for number in range(450)}, ttl=5)
    space.set("stays", 1, ttl=500)

    def rows() -> int:
        found = made.store._own().execute("SELECT count(*), (SELECT entries FROM totals) FROM entries").fetchone()
        assert found[0] == found[1]
        return int(found[0])

    assert rows() == 451
    made.pass_time(6)
    space.set("n", 1)
    assert rows() == 252, "200 at a time"
    space.set("n", 2)
    space.set("n", 3)
    assert rows() == 2
    made.store.close()


# an SQLite file


def test_a_file_stays(tmp_path: Path) -> None:
    path = str(tmp_path / "site.db")
    clock = Clock()
    for number in range(3):
        store = SQLiteStore(path, durable=True, clock=clock)
        space = Space(store, "a")
        assert space.incr("starts") == number + 1
        assert space.get("list") == (None if number == 0 else [1, "x"])
        space.set("list", [1, "x"])
        store.close()
        assert Space(store, "a").get("starts") == number + 1, "it opens again"
        store.close()


def test_a_file_of_another_program(tmp_path: Path) -> None:
    import sqlite3

    path = tmp_path / "other.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (a)")
    connection.commit()
    connection.close()
    with pytest.raises(StateError, match="the database of another program"):
        Space(SQLiteStore(str(path), durable=True), "a").get("a")
    text = tmp_path / "text.db"
    text.write_bytes(b"this is no database, it is only text" * 100)
    with pytest.raises(StateError, match="not a database"):
        Space(SQLiteStore(str(text), durable=True), "a").set("a", 1)
    with pytest.raises(StateError, match="cannot be had"):
        Space(SQLiteStore(str(tmp_path / "none" / "a.db"), durable=True), "a").set("a", 1)


def test_a_forked_child_opens_its_own(tmp_path: Path) -> None:
    """In a process of its own: fork and threads of a test run do not go together."""
    code = """
import os, sys
from subpool.state.space import Space
from subpool.state.sqlite import SQLiteStore
space = Space(SQLiteStore(sys.argv[1], durable=True), "a")
space.incr("n")
if (pid := os.fork()) == 0:
    space.incr("n")
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
assert space.incr("n") == 3
space.store.close()
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code, str(tmp_path / "a.db")], check=True, timeout=25)


def test_threads_close_what_they_opened(tmp_path: Path) -> None:
    made = make_store("memory", tmp_path)
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for _ in range(10):
        thread = threading.Thread(target=made.space.incr, args=("n",))
        thread.start()
        thread.join()
    assert made.space.get("n") == 10
    if before:
        assert len(os.listdir("/proc/self/fd")) <= before + 6
    made.store.close()


# Redis


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as server:
        yield server


def test_redis_dies_and_comes_back(redis: RedisServer, tmp_path: Path) -> None:
    space = make_store("redis", tmp_path, redis.url).space
    assert space.incr("n") == 1
    redis.kill()
    for call in (lambda: space.incr("n"), lambda: space.get("n"), space.keys, lambda: space.set("a", 1)):
        began = time.monotonic()
        with pytest.raises(StateUnavailable, match="does not answer"):
            call()
        assert time.monotonic() - began < DEADLINE
    redis.start()
    assert space.incr("n") == 1, "it kept nothing on disk"
    assert space.incr("n") == 2, "and nothing was sent twice"
    space.store.close()


def test_redis_that_hangs(redis: RedisServer, tmp_path: Path) -> None:
    space = make_store("redis", tmp_path, f"{redis.url}?socket_timeout=0.2").space
    space.incr("n")
    redis.suspend(signal.SIGSTOP)
    try:
        with pytest.raises(StateUnavailable, match="whether a change was made is unknown"):
            space.incr("n")
    finally:
        redis.suspend(signal.SIGCONT)
    deadline = time.monotonic() + DEADLINE
    while (found := space.get("n")) not in (1, 2):
        assert time.monotonic() < deadline, found
    assert space.incr("n") == found + 1
    space.store.close()


def test_a_redis_that_is_full(redis: RedisServer, tmp_path: Path) -> None:
    space = make_store("redis", tmp_path, redis.url).space
    space.store._redis.config_set("maxmemory", "1mb")
    with pytest.raises(StateFull, match=r"state 'a': .* is full"):
        space.set("a", "x" * 2**20)
    space.store.close()


def test_what_others_wrote_into_redis(redis: RedisServer, tmp_path: Path) -> None:
    made = make_store("redis", tmp_path, redis.url)
    client = made.store._redis
    client.set(b"subpool:tests\0sa", b"17")
    assert made.space.incr("a") == 18
    assert client.get(b"subpool:tests\0sa") == b"18", "others can read what is counted"
    client.set(b"subpool:tests\0sb", b"hello")
    with pytest.raises(StateError, match="which subpool has not written"):
        made.space.get("b")
    client.rpush(b"subpool:tests\0sc", b"x")
    for call in (made.space.get, made.space.incr):
        with pytest.raises(StateError, match="WRONGTYPE"):
            call("c")
    made.store.close()


def test_redis_without_its_library(tmp_path: Path) -> None:
    code = """
import sys
sys.modules["redis"] = None
from subpool.state import spaces
from subpool.state.options import parse
try:
    spaces.of({"pool": 1, "state": {"namespace": "a", **parse("redis://127.0.0.1:1/0").setup(1)}})
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=25)
    assert "pip install 'subpool[redis]'" in done.stdout
