"""What `check` lets another process do: load an app, load its extension modules in sub-interpreters, start workers.

Extension modules may end the process that loads them, so each step is a process of its own. It writes its findings to a
file, a JSON object a line, at once: what was written before a crash counts.
"""

from __future__ import annotations

import importlib.machinery
import json
import marshal
import os
import sys
import time
import warnings
from pathlib import Path
from types import FrameType
from typing import IO, Any

from . import _interpreters
from .errors import SubpoolError, to_wire
from .worker.importer import extend_path, load_object

# Creating a module is where a refusal shows (PEP 684); running its body would need the package around it.
_TRY = """
import json, marshal, sys
given = marshal.loads(given)
sys.path[:] = given["path"]
from importlib.util import module_from_spec, spec_from_file_location
from subpool.worker.importer import refusal
found = {"module": given["module"], "refused": False, "said": ""}
try:
    keep = module_from_spec(spec_from_file_location(given["module"], given["file"]))
except BaseException as error:
    found["refused"] = refusal(error) is not None
    found["said"] = f"{type(error).__name__}: {error}"
with open(given["out"], "a", encoding="utf-8") as out:
    out.write(json.dumps(found) + "\\n")
"""


class Probe:
    """One step in this process. `setup`: "app", "isolation", "pythonpath", "venv", "modules"."""

    def __init__(self, out: IO[str], setup: dict[str, Any]) -> None:
        self.out = out
        self.setup = setup

    def tell(self, **found: Any) -> None:
        self.out.write(json.dumps(found) + "\n")
        self.out.flush()

    def load(self) -> None:
        """Import the app here; tell of each extension module, with the modules whose bodies were running."""
        loader: Any = importlib.machinery.ExtensionFileLoader
        create = loader.create_module

        def create_module(self_: Any, spec: Any) -> Any:
            self.tell(module=spec.name, file=spec.origin, chain=_running(sys._getframe(1)))
            return create(self_, spec)

        loader.create_module = create_module
        load_object(self.setup["app"])

    def extensions(self) -> None:
        """Load each of the extension modules in two sub-interpreters: some let only one have them."""
        two = [_interpreters.load().create() for _ in range(2)]
        for module, file in self.setup["modules"]:
            given = {"module": module, "file": file, "path": sys.path, "out": self.out.name}
            for interpreter in two:
                interpreter.prepare_main(given=marshal.dumps(given))
                interpreter.exec(_TRY)

    def start(self) -> None:
        """Open a pool of one worker, and beside it another: what the second one costs is what a worker costs."""
        from .pool import Pool

        told: list[str] = []
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *_: told.append(str(message))
        options = {name: self.setup[name] for name in ("app", "pythonpath", "venv")}
        options |= {"workers": 1, "lifespan": "off", "close_timeout": 5.0}
        with Pool.blocking(**options, isolation=self.setup["isolation"]) as first:
            self.tell(chosen=first.isolation, told=[text for text in told if text.startswith("subpool ")])
            before, began = private_memory(), time.perf_counter()
            with Pool.blocking(**options, isolation=first.isolation):
                seconds, after = time.perf_counter() - began, private_memory()
                size = after - before if before is not None and after is not None else None
                self.tell(seconds=seconds, size=size)


def _running(frame: FrameType | None) -> list[str]:
    """The modules whose bodies run in the frames from `frame` outwards, outermost first."""
    names: list[str] = []
    while frame is not None:
        if frame.f_code.co_name == "<module>":
            name = frame.f_globals.get("__name__", "?")
            if name != "__main__" and name not in names:
                names.append(name)
        frame = frame.f_back
    return names[::-1]


def private_memory() -> int | None:
    """Bytes that this process and its children share with no others; None where the system does not tell."""
    try:
        children = (path.read_text().split() for path in Path("/proc/self/task").glob("*/children"))
        pids = ["self", *(pid for some in children for pid in some)]
        texts = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in pids]
    except OSError:
        return None
    lines = [line.split() for text in texts for line in text.splitlines() if line.startswith("Private_")]
    return 1024 * sum(int(kib) for _, kib, _ in lines) if lines else None


def main() -> None:
    """`sys.argv`: the step, the file to write to, its setup as JSON. Leaves at once: what the app has left may wait."""
    step, path, setup = sys.argv[1:]
    with open(path, "a", encoding="utf-8") as out:
        probe = Probe(out, json.loads(setup))
        extend_path(probe.setup["pythonpath"], probe.setup["venv"])
        wire = None
        try:
            getattr(probe, step)()
        except SubpoolError as error:
            wire = to_wire(error)
        probe.tell(done=True, error=wire)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(0)
