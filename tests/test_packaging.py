"""The distribution holds all packages, and runners/ as subpool.runners alone (see pyproject.toml)."""

from __future__ import annotations

import importlib.util
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_every_package_is_listed() -> None:
    found = {"subpool.runners"}
    for init in (ROOT / "subpool").rglob("__init__.py"):
        found.add(".".join(init.parent.relative_to(ROOT).parts))
    assert set(SETTINGS["tool"]["setuptools"]["packages"]) == found


def test_runners_are_installed_under_subpool() -> None:
    spec = importlib.util.find_spec("subpool.runners")
    assert spec is not None
    assert spec.origin is not None
    assert Path(spec.origin) == ROOT / "runners" / "__init__.py"


def test_typed() -> None:
    for folder in ("subpool", "runners"):
        assert (ROOT / folder / "py.typed").is_file()
