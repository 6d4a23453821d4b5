"""`subpool check`: what an app can run in. Real processes, real extension modules."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import APPS, free_threaded

from subpool import check as subpool_check
from subpool.check import Report, check, table

pytest.importorskip("click")
needs_gil = pytest.mark.skipif(free_threaded(), reason="there 'auto' means threads, which take any app")


def run(*arguments: str) -> tuple[int, str, str]:
    done = subprocess.run([sys.executable, "-W", "error", "-m", "subpool", "check", *arguments], cwd=APPS,
                          capture_output=True, text=True, timeout=28, check=False)  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def look(app: str, isolation: str = "auto") -> Report:
    return check(app, isolation, [APPS])


def named(report: Report, module: str) -> Any:
    (found,) = [one for one in report.extensions if one.module == module]
    return found


@needs_gil
def test_an_app_that_fits() -> None:
    status, out, err = run("asgi_app:app", "--json")
    assert (status, err) == (0, "")
    report = json.loads(out)
    assert (report["ok"], report["chosen"], report["isolation"]) == (True, "subinterpreter", "auto")
    assert all(one["fits"] for one in report["extensions"])
    assert 0 < report["start_seconds"] < 60
    if Path("/proc/self/smaps_rollup").exists():
        assert 1 < report["megabytes"] < 200


@needs_gil
def test_a_refusing_module_and_its_chain() -> None:
    pytest.importorskip("pydantic_core")
    status, out, err = run("native_app:app")
    assert (status, err) == (0, "")
    (row,) = [line for line in out.splitlines() if line.startswith("pydantic_core._pydantic_core")]
    assert "refuses" in row
    assert row.endswith("native_app > native_layer > pydantic_core")
    assert "isolation: process (chosen by auto): refused" in out
    assert "a worker: " in out


@needs_gil
def test_the_isolation_asked_for_cannot_run_it() -> None:
    pytest.importorskip("pydantic_core")
    status, out, err = run("native_app:app", "--isolation", "subinterpreter")
    assert status == 1
    assert "isolation subinterpreter cannot run it: refused" in out
    assert "native_layer.py" in err
    assert run("native_app:app", "--isolation", "process")[0] == 0


@needs_gil
def test_all_that_refuse_are_named_not_only_the_first() -> None:
    pytest.importorskip("pydantic_core")
    pytest.importorskip("yaml._yaml")
    report = look("two_natives:app")
    assert (report.ok, report.chosen) == (True, "process")
    for module in ("pydantic_core._pydantic_core", "yaml._yaml"):
        found = named(report, module)
        assert found.fits is False
        assert not found.standard
        assert found.chain[0] == "two_natives"
        assert module in found.reason


@needs_gil
def test_what_the_app_does_without() -> None:
    pytest.importorskip("pydantic_core")
    report = look("without_native:app")
    assert (report.ok, report.chosen) == (True, "subinterpreter")
    assert named(report, "pydantic_core._pydantic_core").fits is False
    assert "refuses, not needed" in table(report)


def test_an_app_that_cannot_be_imported() -> None:
    status, out, err = run("broken_import:app", "--json")
    assert status == 1
    report = json.loads(out)
    assert "module_that_is_nowhere" in report["error"]
    assert "broken_import.py" in report["traceback"]
    assert err == ""
    status, out, err = run("broken_import:app")
    assert status == 1
    assert "isolation auto cannot run it: cannot import 'broken_import'" in out
    assert "broken_import.py" in err


def test_an_import_that_ends_the_process() -> None:
    status, out, err = run("crashing_import:app")
    assert (status, err) == (1, "")
    assert "the app ends the process that imports it: signal 6" in out


def test_an_extension_module_that_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the one after the last that was tried; the others are tried without it."""
    calls: list[list[str]] = []

    def step(name: str, setup: dict[str, Any]) -> tuple[list[dict[str, Any]], Any]:
        names = [module for module, _ in setup["modules"]]
        calls.append(names)
        good = names[: names.index("bad")] if "bad" in names else names
        found = [{"module": module, "refused": module == "no", "said": "no" * (module == "no")} for module in good * 2]
        return found, subpool_check.Crashed("signal 11") if "bad" in names else None

    monkeypatch.setattr(subpool_check, "_step", step)
    loaded = [{"module": module, "file": "/x.so", "chain": ["app"]} for module in ("a", "bad", "no", "_ssl")]
    found = subpool_check._extensions(loaded, {})
    assert calls == [["a", "bad", "no", "_ssl"], ["no", "_ssl"]]
    assert [(one.module, one.fits) for one in found] == [("a", True), ("bad", False), ("no", False), ("_ssl", True)]
    assert "signal 11" in found[1].reason
    assert [one.standard for one in found] == [False, False, False, True]


def test_a_step_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    tmp_path.joinpath("waiting.py").write_text(f"open({str(fifo)!r}).read()\n")
    monkeypatch.setattr(subpool_check, "LIMIT", 1.0)
    report = check("waiting:app", "auto", [str(tmp_path)])
    assert not report.ok
    assert "not done after 1 s" in report.error


@needs_gil
def test_what_is_refused_without_an_import() -> None:
    report = look("daemon_app:app")
    assert (report.ok, report.chosen) == (True, "process")
    assert "daemon" in report.why
    report = look("daemon_app:app", "subinterpreter")
    assert not report.ok
    assert "daemon" in report.error


def test_wrong_options() -> None:
    with pytest.raises(ValueError, match="app is 'nothing'"):
        check("nothing")
    with pytest.raises(ValueError, match="isolation is 'none'"):
        check("asgi_app:app", "none")


def test_nothing_of_the_app_is_loaded_here() -> None:
    before = set(sys.modules)
    look("without_native:app", "thread")
    assert "without_native" not in set(sys.modules) - before
