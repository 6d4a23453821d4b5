#!/usr/bin/env python3
"""What one more worker costs in memory, by isolation kind and application. Linux only (/proc).

Run it with an environment that has the `test` extra: `.venv/bin/python scripts/measure_memory.py`.
For each case a fresh process opens a pool of 1 worker, another one a pool of 5; the difference of their
memory, by 4, is what a worker costs. Memory is what no other process shares (Private_Clean plus
Private_Dirty), of the process and its children.
The table that it prints is Markdown.
"""

from __future__ import annotations

import platform
import subprocess
import sys

FEW, MANY, RUNS = 1, 5, 3
KINDS = ("subinterpreter", "thread", "process")
APPS = {
    "bare ASGI": "async def app(scope, receive, send): pass",
    "Starlette": "from starlette.applications import Starlette\napp = Starlette()",
    "Flask": "from flask import Flask\napp = Flask(__name__)",
    "Django": "from django.conf import settings\nsettings.configure(ALLOWED_HOSTS=['*'])\n"
    "from django.core.wsgi import get_wsgi_application\napp = get_wsgi_application()",
}
PROGRAM = """
import os, pathlib, sys, tempfile, warnings
from subpool import Pool

def private(pid):
    lines = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))

with tempfile.TemporaryDirectory() as folder:
    pathlib.Path(folder, "measured.py").write_text(sys.argv[3])
    with Pool.blocking("measured:app", workers=int(sys.argv[1]), isolation=sys.argv[2], lifespan="off",
                       pythonpath=[folder]):
        children = pathlib.Path(f"/proc/self/task").glob("*/children")
        pids = {os.getpid(), *(int(pid) for file in children for pid in file.read_text().split())}
        print(sum(private(pid) for pid in pids))
"""


def kib(workers: int, kind: str, source: str) -> int:
    """Private memory in KiB of a pool of `workers`, and of the process that holds it."""
    command = [sys.executable, "-c", PROGRAM, str(workers), kind, source]
    return int(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=120).stdout)


def cost(kind: str, source: str) -> float:
    """MiB of one more worker: the median of some runs."""
    found = sorted(kib(MANY, kind, source) - kib(FEW, kind, source) for _ in range(RUNS))
    return found[RUNS // 2] / (MANY - FEW) / 1024


def main() -> None:
    """Measure everything, print the table."""
    machine = f"{platform.system()} {platform.machine()}"
    print(f"CPython {platform.python_version()}, {machine}: MiB for one more worker\n")
    print("| application | " + " | ".join(KINDS) + " |")
    print("|---" * (len(KINDS) + 1) + "|")
    for name, source in APPS.items():
        print(f"| {name} | " + " | ".join(f"{cost(kind, source):.1f}" for kind in KINDS) + " |", flush=True)


if __name__ == "__main__":
    main()
