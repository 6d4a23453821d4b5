"""Which mount a path belongs to."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("httptools")
pytest.importorskip("pydantic")

from subpool.http.config import ServerConfig
from subpool.http.front import Front, Mount

PARTS = st.sampled_from(["a", "b", "ab", "a b", "%2F", "\xe9", ""])
PREFIXES = st.lists(PARTS.filter(bool), max_size=3).map(lambda parts: "".join(f"/{part}" for part in parts))
PATHS = st.lists(PARTS, max_size=5).map(lambda parts: "/" + "/".join(parts)) | st.sampled_from(["*", ""])


def front(prefixes: list[str]) -> Front:
    loop = asyncio.new_event_loop()
    try:
        made = Front(ServerConfig(app="a:b"), loop)
    finally:
        loop.close()
    pool: Any = None
    made.set_mounts([Mount(prefix, pool, None, None, None) for prefix in prefixes])
    return made


@given(st.lists(PREFIXES, unique=True, max_size=6), PATHS)
def test_the_longest_prefix_that_ends_at_a_slash(prefixes: list[str], path: str) -> None:
    fit = [prefix for prefix in prefixes if not prefix or path == prefix or path.startswith(prefix + "/")]
    found = front(prefixes).route(path)
    assert (found and found.prefix) == (max(fit, key=len) if fit else None)


def test_a_path_of_slashes_costs_no_more_than_the_prefixes() -> None:
    """Only as much of it is looked at as the longest prefix has."""
    looked: list[str] = []

    class Prefixes(dict[str, Any]):
        def get(self, key: str, default: Any = None) -> Any:
            looked.append(key)
            return super().get(key, default)

    made = front(["/api"])
    made._prefixes = Prefixes(made._prefixes)
    assert made.route("/" * 8000) is None
    assert len(looked) <= 5
