"""One suite that every store passes: in memory, in an SQLite file, in a real Redis."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis_kit import RedisServer, redis_server
from state_kit import STORES, Fixture, make_store

from subpool.state import MISSING

FEW = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
PARTS = st.text(max_size=6) | st.binary(max_size=6) | st.integers() | st.text("\0\x01:*?[]\\", max_size=4)
KEYS = PARTS | st.lists(PARTS, max_size=3).map(tuple)
SCALARS = (
    *(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.text(max_size=20), st.binary(max_size=20)),
    st.floats(allow_nan=False),
)
VALUES = st.recursive(
    st.one_of(*SCALARS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(params=STORES)
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Fixture]:
    """An empty store, and the time that it goes by."""
    url = request.getfixturevalue("redis").url if request.param == "redis" else ""
    fixture = make_store(request.param, tmp_path, url)
    if fixture.kind == "redis":
        fixture.store._redis.flushall()
    yield fixture
    fixture.store.close()


@pytest.fixture
def space(made: Fixture) -> Any:
    return made.space


def same(one: Any, other: Any) -> bool:
    """Equal, and of the same types throughout: True is not 1."""
    if type(one) is not type(other):
        return False
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    return bool(one == other)


def test_get_set_delete(space: Any) -> None:
    assert space.get("a") is None
    assert space.get("a", 5) == 5
    space.set("a", "one")
    assert space.get("a", 5) == "one"
    space.set("a", None)
    assert space.get("a", 5) is None, "None is a value"
    assert space.delete("a") is True
    assert space.delete("a") is False
    assert space.get("a", 5) == 5


@FEW
@given(key=KEYS, value=VALUES)
def test_values_come_back(space: Any, key: Any, value: Any) -> None:
    space.set(key, value)
    found = space.get(key)
    assert same(found, value)
    assert same(space.get_multi([key])[key], value)
    assert space.compare_and_set(key, found, 1)


@FEW
@given(keys=st.lists(KEYS, max_size=6))
def test_no_two_keys_meet(space: Any, keys: list[Any]) -> None:
    space.clear()
    values = {(type(key), key): number for number, key in enumerate(keys)}  # 1 == 1.0, b"" != "": types count
    for (_, key), number in values.items():
        space.set(key, number)
    for (_, key), number in values.items():
        assert space.get(key) == number
    assert sorted(map(repr, space.keys())) == sorted(repr(key) for _, key in values)
    assert space.clear() == len(values)


@pytest.mark.parametrize(
    "key",
    ["", "\0", "a\nb", "a:b", "subpool:other\0sa", "*", "[a-z]", "\\", "\ud800", "ü" * 1000, "k" * 2**20, b"",
     b"\xff\xff", b"\0s", 0, -1, 10**400, (), ("",), ("a", b"a", 1), (("a",), "b"), (("a", "b"),), ("a\0", "b"),
     ("a", "\0b")],
    ids=lambda key: f"{key!r:.30}",
)  # fmt: skip
def test_odd_keys(space: Any, key: Any) -> None:
    space.set(key, "here")
    assert space.get(key) == "here"
    found = space.keys()
    assert found == [key]
    assert type(found[0]) is type(key)
    if type(key) is not str or len(key) < 2**20:
        assert space.incr((key, "count")) == 1
    assert space.delete(key)


def test_prefixes(made: Fixture) -> None:
    space = made.space
    keys = ["a", "a:1", "a:2", "a*", "b", b"a:1", b"\xff", b"\xff\xff", 1, ("a",), ("a", 1), ("a:1",), ("a", "b", "c")]
    space.set_multi(dict.fromkeys(keys, 1))
    assert space.keys("a") == ["a", "a*", "a:1", "a:2"]
    assert space.keys("a:") == ["a:1", "a:2"]
    assert space.keys("a*") == ["a*"]
    assert space.keys(b"a") == [b"a:1"]
    assert space.keys(b"\xff") == [b"\xff", b"\xff\xff"]
    assert space.keys(("a",)) == [("a",), ("a", 1), ("a", "b", "c")]
    assert len(space.keys()) == len(space.keys(())) + len(space.keys("")) + len(space.keys(b"")) + 1 == len(keys)
    assert space.clear("a:") == 2
    assert space.keys("a") == ["a", "a*"]
    with pytest.raises(TypeError, match="1 is no prefix"):
        space.keys(1)
    assert space.clear() == len(keys) - 2


def test_namespaces_are_apart(made: Fixture) -> None:
    names = ["a", "ab", "a b", "a:b", "a/v1", "*", "sa"]
    spaces = [made.other(name) for name in names]
    for number, space in enumerate(spaces):
        space.set("b", number)
        space.incr(("b",), number)
    assert [space.get("b") for space in spaces] == list(range(len(names)))
    assert spaces[0].clear() == 2
    assert [len(space.keys()) for space in spaces] == [0] + [2] * (len(names) - 1)
    assert made.other("*").keys("") == ["b"]


def test_counters(space: Any) -> None:
    assert space.incr("a") == 1
    assert space.incr("a", 10) == 11
    assert space.decr("a", 12) == -1
    assert space.incr("a", 0) == -1
    assert same(space.get("a"), -1)
    space.set("b", 2**62)
    assert space.incr("b", 2**62 - 1) == 2**63 - 1
    for wrong in (lambda: space.incr("b"), lambda: space.decr("c", 2**64), lambda: space.incr("c", -(2**63) - 1)):
        with pytest.raises(OverflowError):
            wrong()
    assert space.get("b") == 2**63 - 1
    for value in ("1", 1.0, True, None, b"1", [1]):
        space.set("d", value)
        with pytest.raises(TypeError, match=f"state 'd': it is {type(value).__name__}"):
            space.incr("d")
        assert same(space.get("d"), value)
    for delta in (1.0, True, "1", None):
        with pytest.raises(TypeError, match="delta is"):
            space.incr("a", delta)
    space.set("e", 2**63)
    with pytest.raises((OverflowError, TypeError), match="state 'e'"):
        space.incr("e")


def test_many(space: Any) -> None:
    space.set_multi({f"k{number}": number for number in range(1200)})
    found = space.get_multi([f"k{number}" for number in range(0, 1300, 1)])
    assert list(found.items())[:2] == [("k0", 0), ("k1", 1)]
    assert [found[f"k{number}"] for number in range(1200)] == list(range(1200))
    assert [found[f"k{number}"] for number in range(1200, 1300)] == [None] * 100
    assert space.get_multi([]) == {}
    space.set_multi({})
    with pytest.raises(TypeError, match=r"state \('b', 2\)"):
        space.set_multi({"a": "new", ("b", 2): object()})
    assert space.get("a") is None, "all or none"
    assert space.clear() == 1200


def test_compare_and_set(space: Any) -> None:
    swap = space.compare_and_set
    assert not swap("a", 1, 2)
    assert swap("a", None, 1), "None is what `get` says of what is missing"
    assert not swap("a", None, 2)
    assert not swap("a", MISSING, 2)
    assert not swap("a", 1.0, 2), "types count"
    assert not swap("a", True, 2)
    assert swap("a", 1, None)
    assert not swap("a", MISSING, 3), "there is an entry: None"
    assert swap("a", None, [1, {"b": 2}])
    assert swap("a", [1, {"b": 2}], b"x")
    assert not swap("a", "x", 1)
    assert swap("a", b"x", True)
    assert not swap("a", 1, 2)
    assert swap("a", True, "end")
    assert space.get("a") == "end"
    assert swap("b", MISSING, 1)
    assert space.get("b") == 1


def test_time_to_live(made: Fixture) -> None:
    space = made.space
    space.set("a", 1, ttl=10)
    space.set("b", 1)
    space.set_multi({"c": 1, ("d",): 2}, ttl=0.5)
    made.pass_time(0.4)
    assert space.get_multi(["a", "b", "c", ("d",)]) == {"a": 1, "b": 1, "c": 1, ("d",): 2}
    made.pass_time(0.2)
    assert space.keys() == ["a", "b"]
    assert space.get_multi(["a", "c"]) == {"a": 1, "c": None}
    assert space.get("c", "gone") == "gone"
    assert space.delete("c") is False
    assert space.incr("a", 4) == 5, "the time to live stays"
    made.pass_time(9.5)
    assert space.get("a") is None
    assert space.incr("a") == 1
    made.pass_time(1e6)
    assert space.get("a") == 1, "what had expired counts anew, for ever"
    space.set("b", 2, ttl=5)
    space.set("b", 3)
    made.pass_time(10)
    assert space.get("b") == 3, "set without a time is for ever"
    assert space.compare_and_set("b", 3, 4, ttl=5)
    made.pass_time(4.9)
    assert space.compare_and_set("b", 4, 5, ttl=5)
    made.pass_time(4.9)
    assert space.get("b") == 5
    made.pass_time(0.2)
    assert not space.compare_and_set("b", 5, 6)
    assert space.compare_and_set("b", MISSING, 6)
    assert space.get("b") == 6


@pytest.mark.parametrize("ttl", [0, -1, float("nan"), float("inf"), True, "1"])
def test_wrong_times_to_live(space: Any, ttl: Any) -> None:
    for call in (lambda: space.set("a", 1, ttl), lambda: space.set_multi({"a": 1}, ttl),
                 lambda: space.compare_and_set("a", None, 1, ttl)):  # fmt: skip
        with pytest.raises((ValueError, TypeError), match="ttl is"):
            call()
    assert space.keys() == []


@pytest.mark.parametrize(
    "key",
    [None, True, 1.0, [], ("a", None), ("a", True), "k" * (2**20 + 1), (((((((((1,),),),),),),),),)],
    ids=lambda key: f"{key!r:.20}",
)
def test_what_is_no_key(space: Any, key: Any) -> None:
    calls = (space.get, space.delete, space.incr, lambda key: space.set(key, 1), lambda key: space.get_multi([key]))
    for call in calls:
        with pytest.raises((TypeError, ValueError), match="key") as caught:
            call(key)
        assert len(str(caught.value)) < 250
    assert space.keys() == []


def loop() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def deep(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (2**64, ValueError, "int beyond 64 bit"),
        (-(2**63) - 1, ValueError, "int beyond 64 bit"),
        ([2**64], ValueError, "int beyond 64 bit"),
        (float("nan"), ValueError, "NaN"),
        (loop(), ValueError, "too deep, or holds itself"),
        (deep(100_000), ValueError, "too deep, or holds itself"),
        ("\ud800", ValueError, "no UTF-8"),
        (["\ud800"], ValueError, "no UTF-8"),
        (object(), TypeError, "object"),
        ({"a": {1}}, TypeError, "set"),
        (b"x" * (8 * 2**20 + 1), ValueError, "8388608 are the limit"),
        ("ü" * (4 * 2**20 + 1), ValueError, "8388608 are the limit"),
        (["x" * 2**20] * 9, ValueError, "8388608 are the limit"),
    ],
    ids=range(13),
)
def test_what_is_no_value(space: Any, value: Any, kind: type[Exception], text: str) -> None:
    space.set("a", "before")
    for call in (lambda: space.set("a", value), lambda: space.compare_and_set("a", "before", value),
                 lambda: space.set_multi({"b": 1, "a": value})):  # fmt: skip
        with pytest.raises(kind, match=text) as caught:
            call()
        assert "state 'a': " in str(caught.value)
    assert space.get("a") == "before"
    assert space.keys() == ["a"]


def test_large_values(space: Any) -> None:
    for value in (b"x" * 8 * 2**20, "y" * 2**20, list(range(10_000)), deep(500)):
        space.set("a", value)
        assert space.get("a") == value


def test_exact_under_threads(space: Any) -> None:
    def count() -> None:
        for _ in range(250):
            space.incr("n")

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert space.get("n") == 2000


def test_compare_and_set_is_exact(space: Any) -> None:
    def add() -> None:
        for _ in range(50):
            while True:
                old = space.get("list", [])
                if space.compare_and_set("list", old or None, [*old, threading.get_ident()]):
                    break

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(space.get("list")) == 200
