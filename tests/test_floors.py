"""The floors hold: a lower floor never imports a higher one, and a worker loads nothing of the host's."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = [
    {"errors", "types", "_interpreters"},
    {"config", "stats", "scope", "environ", "wsgi_io", "unix_sockets", "wire", "wire2", "channels", "here", "state",
     "plain", "timed_loop", "aio", "hooks", "request", "watch"},
    {"worker", "importer", "interrupt", "runners", "functions", "pubsub", "compat"},
    {"isolation"},
    {"router", "restarts", "renewal", "elastic", "hostloop", "hostcall", "clock", "link", "overdue", "hearing",
     "member", "crew", "succession", "spares", "upkeep", "engine", "exchanges", "services", "open_pool", "pool",
     "hooked_pool", "worker_hooks", "blocking", "control", "reception", "asgi"},
    {"http"},
    {"cli", "commands", "guard", "config_commands", "control_commands", "remote", "status_table", "check", "probe",
     "__main__"},
]  # fmt: skip
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}
PARTS = sorted(
    [*(ROOT / "subpool").rglob("*.py"), *(ROOT / "runners").rglob("*.py")],
    key=lambda path: path.relative_to(ROOT).parts,
)


def part_of(path: Path) -> str:
    """The part of the package a file belongs to: 'channels', 'pool', 'runners', ..."""
    top, *rest = path.relative_to(ROOT).parts
    return "runners" if top == "runners" else rest[0].removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """The parts of subpool that a file imports, with their lines; what only type checkers read counts too."""
    package = ["subpool", *path.relative_to(ROOT / "subpool").parts[:-1]] if path.is_relative_to(
        ROOT / "subpool"
    ) else ["subpool", "runners"]  # fmt: skip
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *filter(None, [node.module])])
            names = [f"{origin}.{alias.name}" for alias in node.names] if origin == "subpool" else [origin]
        else:
            continue
        for name in names:
            if name.startswith("subpool."):
                yield node.lineno, name.split(".")[1]


@pytest.mark.parametrize("path", PARTS, ids=[str(path.relative_to(ROOT)) for path in PARTS])
def test_no_floor_imports_a_higher_one(path: Path) -> None:
    part = part_of(path)
    if part == "__init__":
        pytest.skip("the facade names everything, and loads it on demand")
    assert part in FLOOR, f"{part} has no floor yet: put it into FLOORS"
    for line, other in imports(path):
        if other == part or other.startswith("__"):
            continue
        allowed = 1 if part == "runners" else FLOOR[part]
        if other == "runners" and part == "worker":
            continue  # the worker loads its default runners by name
        assert FLOOR.get(other, 99) <= allowed, f"{path.name}:{line} imports {other}"


def test_a_worker_loads_nothing_of_the_hosts_side() -> None:
    """In a fresh process: the standard library and floors 0 to 2, nothing else."""
    code = "import subpool.worker, sys; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=25, check=False)
    assert done.returncode == 0, done.stderr
    loaded = done.stdout.split()
    host = {name for number in (3, 4, 5, 6) for name in FLOORS[number]}
    ours = {name.split(".")[1] for name in loaded if name.startswith("subpool.")}
    assert not ours & host
    bare = subprocess.run([sys.executable, "-c", "import sys; print('\\n'.join(sys.modules))"],
                          capture_output=True, text=True, timeout=25, check=True).stdout.split()  # fmt: skip
    foreign = {name.partition(".")[0] for name in loaded} - {name.partition(".")[0] for name in bare}
    assert foreign - sys.stdlib_module_names - {"subpool"} <= {"_virtualenv"}


def test_the_facade_is_lazy() -> None:
    code = "import subpool, sys; assert 'subpool.pool' not in sys.modules and 'anyio' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], timeout=25, check=True)


def test_the_facade_offers_what_it_names() -> None:
    import subpool

    assert sorted(subpool.__all__) == sorted(set(subpool.__all__))
    for name in subpool.__all__:
        assert getattr(subpool, name) is not None
    assert set(subpool.__all__) <= set(dir(subpool))
    with pytest.raises(AttributeError):
        _ = subpool.nothing_of_that_name
