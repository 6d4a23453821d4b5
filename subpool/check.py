"""`subpool check`: what an app can run in, what its extension modules say to sub-interpreters, what a worker costs.

Nothing of the app is loaded in this process: see `probe`. What an app imports later than at its start is not seen.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from . import config
from .errors import AppLoadError, NotIsolatable, SubpoolError, from_wire

LIMIT: Final = 120.0  # seconds that one step may take
_BOOT: Final = "import sys; sys.path[:] = eval(sys.argv.pop(1)); from subpool.probe import main; main()"


@dataclass(frozen=True, slots=True, kw_only=True)
class Extension:
    """An extension module that the app loads.

    `fits`: whether sub-interpreters may have it, None where it cannot be told; `reason`: what it said.
    `chain`: the modules that led to it, outermost first; `standard`: it belongs to the standard library.
    """

    module: str
    file: str
    chain: tuple[str, ...]
    standard: bool
    fits: bool | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was found. `ok`: workers of the isolation that was asked for, `isolation`, can run the app.

    `chosen`: the kind that they are, "" where none starts; `why`: why "auto" did not choose another one. `error` and
    `traceback`: what hinders it. `megabytes` (of 10**6 bytes that nothing else shares; None: the system does not
    tell) and `start_seconds`: of one more worker, without the app's lifespan.
    """

    app: str
    python: str
    isolation: str
    ok: bool
    chosen: str = ""
    why: str = ""
    error: str = ""
    traceback: str = ""
    megabytes: float | None = None
    start_seconds: float | None = None
    extensions: tuple[Extension, ...] = ()

    def json(self) -> str:
        """As a JSON object."""
        return json.dumps(dataclasses.asdict(self), indent=2)


class Crashed(SubpoolError):
    """A step ended its process, or did not end in time."""


def check(app: str, isolation: str = "auto", pythonpath: Sequence[str] = (), venv: str | None = None) -> Report:
    """Look at `app`, "module:callable". `TypeError` or `ValueError` for options that a pool would refuse."""
    options = config.make(app, {"isolation": isolation, "pythonpath": pythonpath, "venv": venv})
    setup = options.setup(0, 0, "", 0)
    setup = {name: setup[name] for name in ("app", "pythonpath", "venv")}
    report = Report(app=app, python=platform.python_version(), isolation=isolation, ok=False)
    loaded, error = _step("load", setup)
    extensions = _extensions([found for found in loaded if "module" in found], setup)
    if error is not None:
        what = f"the app ends the process that imports it: {error}" if isinstance(error, Crashed) else str(error)
        return _failed(report, what, error, extensions)
    started, error = _step("start", {**setup, "isolation": isolation})
    extensions = _blame(extensions, error)
    facts = {name: value for found in started for name, value in found.items()}
    if error is not None or "seconds" not in facts:
        return _failed(report, str(error), error, extensions)
    size = facts["size"]
    return dataclasses.replace(
        report,
        ok=True,
        chosen=facts["chosen"],
        why=" ".join(text.partition(": ")[2] for text in facts["told"]),
        megabytes=None if size is None else round(max(size, 0) / 1e6, 1),
        start_seconds=round(facts["seconds"], 3),
        extensions=tuple(extensions),
    )


def _failed(report: Report, what: str, error: SubpoolError | None, extensions: list[Extension]) -> Report:
    traceback = error.remote_traceback if isinstance(error, AppLoadError) else ""
    return dataclasses.replace(report, error=what, traceback=traceback, extensions=tuple(extensions))


def _step(name: str, setup: dict[str, Any]) -> tuple[list[dict[str, Any]], SubpoolError | None]:
    """Run a step of `probe` in a process of its own: what it found, and what ended it."""
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory(prefix="subpool-check-") as folder:
        found_path, said_path = Path(folder, "found"), Path(folder, "said")
        command = [sys.executable, *flags, "-c", _BOOT, repr(sys.path), name, str(found_path), json.dumps(setup)]
        trouble = ""
        with open(said_path, "wb") as said:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
            try:
                status = process.wait(LIMIT)
            except subprocess.TimeoutExpired:
                trouble = f"not done after {LIMIT:g} s"
            except BaseException:
                process.kill()
                raise
            if trouble:
                process.kill()
                process.wait()
            elif status:
                trouble = f"signal {-status}" if status < 0 else f"status {status}"
        lines = found_path.read_text(encoding="utf-8").splitlines() if found_path.exists() else []
        found = [json.loads(line) for line in lines if line.endswith("}")]
        if found and "done" in found[-1]:
            wire = found[-1]["error"]
            return found[:-1], None if wire is None else _error(wire)
        last = said_path.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        return found, Crashed(": ".join([trouble or "no result", *last]))


def _error(wire: list[Any]) -> SubpoolError:
    return from_wire(tuple(tuple(part) if isinstance(part, list) else part for part in wire))


def _extensions(loaded: list[dict[str, Any]], setup: dict[str, Any]) -> list[Extension]:
    """The extension modules that were loaded, each tried in sub-interpreters."""
    known = {
        one["module"]: Extension(
            module=one["module"],
            file=os.path.abspath(one["file"]),
            chain=tuple(one["chain"]),
            standard=one["module"].partition(".")[0] in sys.stdlib_module_names,
        )
        for one in loaded
    }
    left = list(known)
    while left:
        found, crash = _step("extensions", {**setup, "modules": [(name, known[name].file) for name in left]})
        for one in found:
            extension = known[one["module"]]
            fits = False if one["refused"] else None if one["said"] else extension.fits is not False
            known[extension.module] = dataclasses.replace(extension, fits=fits, reason=one["said"] or extension.reason)
        times = [one["module"] for one in found]
        left = [name for name in left if times.count(name) < 2]
        if left:
            reason = f"loading it in a sub-interpreter ends the process: {crash}"
            known[left[0]] = dataclasses.replace(known[left[0]], fits=False, reason=reason)
            del left[0]
    return list(known.values())


def _blame(extensions: list[Extension], error: SubpoolError | None) -> list[Extension]:
    """What refused when the app was started is named by that refusal."""
    if not isinstance(error, NotIsolatable):
        return extensions
    return [
        dataclasses.replace(one, fits=False, reason=one.reason or error.message) if one.module == error.module else one
        for one in extensions
    ]


def table(report: Report) -> str:
    """A report for people."""
    lines = [f"{report.app} on Python {report.python}", ""]
    words = {True: "fit", False: "refuses", None: "cannot be told"}
    shown = [one for one in report.extensions if not one.standard or one.fits is not True]
    rows = [("extension module", "sub-interpreters", "imported through")]
    for one in shown:
        word = "refuses, not needed" if one.fits is False and report.chosen == "subinterpreter" else words[one.fits]
        rows.append((one.module, word, " > ".join(one.chain)))
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    if shown:
        lines += [f"{name:{widths[0]}}  {word:{widths[1]}}  {chain}".rstrip() for name, word, chain in rows]
    rest = len(report.extensions) - len(shown)
    if rest:
        lines.append(f"{'and ' if shown else ''}extension modules of the standard library: {rest}, all fit")
    elif not shown:
        lines.append("no extension modules")
    lines.append("")
    if not report.ok:
        return "\n".join([*lines, f"isolation {report.isolation} cannot run it: {report.error}"])
    by = " (chosen by auto)" if report.isolation == "auto" else ""
    why = report.why
    if any(one.module in why for one in shown):
        why = why.partition(", imported through")[0]  # that is in the table
    lines.append(f"isolation: {report.chosen}{by}{': ' + why if why else ''}")
    size = "not measured on this system" if report.megabytes is None else f"{report.megabytes:.1f} MB"
    return "\n".join([*lines, f"a worker: {size}, started in {report.start_seconds:.2f} s"])
