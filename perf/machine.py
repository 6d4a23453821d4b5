"""Where a measurement was made: pyperf's facts about machine and interpreter, and those that matter to us."""

from __future__ import annotations

import datetime
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from typing import Any, Final

from perf import ROOT

PEERS: Final = ("granian", "uvicorn", "hypercorn", "gunicorn")
LIBRARIES: Final = ("subpool", *PEERS, "uvloop", "httptools", "anyio", "django", "flask")


def metadata(effort: str, isolation: str, workers: int) -> dict[str, Any]:
    """For every row of a run, in the names of pyperf where it has one."""
    from pyperf._collect_metadata import collect_metadata

    found: dict[str, Any] = {
        key: value for key, value in collect_metadata().items() if key not in ("mem_max_rss", "runnable_threads")
    }
    found["perf_effort"] = effort
    found["perf_isolation"] = isolation
    found["perf_workers"] = workers
    found["perf_revision"] = revision()
    found["perf_gil"] = "on" if getattr(sys, "_is_gil_enabled", lambda: True)() else "off"
    found["perf_build"] = " ".join(build()) or "plain"
    found["perf_versions"] = ", ".join(f"{name} {version}" for name in LIBRARIES if (version := installed(name)))
    found["perf_memory"] = f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
    found["perf_load"] = round(os.getloadavg()[0], 2)
    found["date"] = datetime.datetime.now().isoformat(sep=" ")
    del found["hostname"]
    return found


def build() -> list[str]:
    """Options of the interpreter's build that change what it costs."""
    arguments = sysconfig.get_config_var("CONFIG_ARGS") or ""
    wanted = ("--enable-optimizations", "--with-lto", "--disable-gil", "--enable-shared", "--enable-experimental-jit",
              "--with-tail-call-interp", "--with-pydebug", "--without-pymalloc", "--with-mimalloc")  # fmt: skip
    return [word.strip("'") for word in arguments.split() if word.strip("'").startswith(wanted)]


def revision() -> str:
    """What `git describe` says of the tree."""
    command = ["git", "-C", ROOT, "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() or "unknown"
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def installed(name: str) -> str | None:
    """The version of a distribution, None if it is not there."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def missing(*modules: str) -> str:
    """Why what needs these modules cannot run here, or ""."""
    gone = [name for name in modules if importlib.util.find_spec(name) is None]
    return f"not installed: {', '.join(gone)} (pip install 'subpool[perf]')" if gone else ""


def without(program: str, package: str) -> str:
    """Why what needs that program cannot run here, or ""."""
    return "" if shutil.which(program) else f"there is no {program} here (Debian: apt install {package})"


def line(about: Mapping[str, Any]) -> str:
    """The machine beside the figures."""
    version = str(about.get("python_version", "?")).split()[0]
    gil = " without GIL" if about.get("perf_gil") == "off" else ""
    cpu = about.get("cpu_model_name", "unknown CPU")
    return (
        f"CPython {version}{gil} ({about.get('perf_build', '?')}), {about.get('cpu_count', '?')} CPUs of {cpu}, "
        f"{about.get('perf_memory', '?')}, load {about.get('perf_load', '?')} before, "
        f"{about.get('perf_load_after', '?')} after; "
        f"{str(about.get('date', '?'))[:16]}, revision {about.get('perf_revision', '?')}, "
        f"{about.get('perf_effort', '?')}"
    )
