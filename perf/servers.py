"""Requests a second of subpool's server beside granian, uvicorn and gunicorn, at equal workers.

    python -m perf.servers [--app hello|wsgi] [--path /hello] [--workers 2] [--rounds 5] [--seconds 3] [--only NAMES]

The load is wrk, one thread, 64 connections. Servers run side by side and take their turn in every round; a ratio is
the median of the ratios within the rounds. Beside the requests stand the microseconds of CPU that a server spent on one
(user and system, all its processes, from /proc): on a small machine that tells more than the clock. A peer that is not
installed is left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from statistics import median
from typing import Final, NamedTuple

from perf import ROOT, about

WSGI: Final = frozenset({"wsgi"})


class Turn(NamedTuple):
    """One server's turn under load."""

    requests: float  # a second
    cpu: float  # microseconds a request
    p99: str
    failed: bool


def command(name: str, app: str, port: int, workers: int, wsgi: bool) -> list[str]:
    """How to start that server."""
    python = sys.executable
    address = f"127.0.0.1:{port}"
    if name == "subpool":
        return [python, "-m", "subpool", "serve", app, "--bind", address, "--workers", str(workers), "--log-level",
                "warning", "--lifespan", "off"]  # fmt: skip
    if name == "granian":
        return [python, "-m", "granian", "--interface", "wsgi" if wsgi else "asginl", "--workers", str(workers),
                "--port", str(port), "--no-ws", "--log-level", "warning", app]  # fmt: skip
    if name == "uvicorn":
        return [python, "-m", "uvicorn", "--workers", str(workers), "--port", str(port), "--loop", "uvloop", "--http",
                "httptools", "--no-access-log", "--log-level", "warning", "--lifespan", "off", app]  # fmt: skip
    return [python, "-m", "gunicorn", "-k", "gthread", "--threads", "8", "-w", str(workers), "-b", address, app]


def processes(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{task}/children") as file:
                found += [child for text in file.read().split() for child in processes(int(text))]
        except OSError:
            continue
    return found


def cpu_seconds(pid: int) -> float:
    """Seconds of CPU that the process and all below it have used."""
    ticks = 0
    for one in processes(pid):
        with open(f"/proc/{one}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def pss(pid: int) -> float:
    """MiB of memory, what is shared divided among those who share it."""
    total = 0
    for one in processes(pid):
        with open(f"/proc/{one}/smaps_rollup") as file:
            total += sum(int(line.split()[1]) for line in file if line.startswith("Pss:"))
    return total / 1024


def load(port: int, path: str, seconds: int, pid: int, clients: int = 64) -> Turn:
    """wrk for some seconds."""
    before = cpu_seconds(pid)
    done = subprocess.run(
        ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--latency", f"http://127.0.0.1:{port}{path}"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    used = cpu_seconds(pid) - before
    count = int(re.search(r"(\d+) requests in", done)[1])  # type: ignore[index]
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", done)[1])  # type: ignore[index]
    p99 = re.search(r"99%\s+(\S+)", done)[1]  # type: ignore[index]
    return Turn(rate, used / count * 1e6, p99, "Non-2xx" in done or "Socket errors" in done)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def answers(port: int, seconds: float = 20.0) -> bool:
    """Whether someone listens there, waiting for it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return True
    return False


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m perf.servers", description=__doc__.splitlines()[0])
    parser.add_argument("--app", default="hello", help="an app of perf/__init__.py: hello, app, wsgi")
    parser.add_argument("--path", default="/hello")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--only", default="subpool,granian,uvicorn,gunicorn")
    args = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("perf.servers needs wrk (Debian: apt install wrk)")
    wsgi = args.app in WSGI
    names = [name for name in args.only.split(",") if importlib.util.find_spec(name)]
    names.remove("uvicorn" if wsgi else "gunicorn") if ("uvicorn" if wsgi else "gunicorn") in names else None
    environment = {**os.environ, "PYTHONPATH": ROOT}
    environment.pop("PYTHONUNBUFFERED", None)
    running: dict[str, tuple[subprocess.Popen[bytes], int]] = {}
    found: dict[str, list[Turn]] = {name: [] for name in names}
    print(f"{about()}; {args.app}, {args.workers} workers, 64 connections")
    try:
        for name in names:
            port = free_port()
            line = command(name, f"perf:{args.app}", port, args.workers, wsgi)
            running[name] = subprocess.Popen(line, env=environment, stdout=subprocess.DEVNULL), port
            if not answers(port):
                sys.exit(f"{name} did not start: {' '.join(line)}")
        for turn in range(args.rounds + 1):
            for name, (process, port) in running.items():
                result = load(port, args.path, args.seconds if turn else 1, process.pid)
                if turn:
                    found[name].append(result)
        for name, turns in found.items():
            memory = pss(running[name][0].pid)
            p99 = sorted(turn.p99 for turn in turns)[len(turns) // 2]
            failed = "   FAILED REQUESTS" if any(turn.failed for turn in turns) else ""
            print(f"  {name:9} {median(t.requests for t in turns):9,.0f}/s   {median(t.cpu for t in turns):6.1f} us CPU"
                  f"   p99 {p99:>8}   PSS {memory:6.1f} MiB{failed}")  # fmt: skip
        for name in names:
            if name != "subpool" and "subpool" in found:
                pairs = list(zip(found["subpool"], found[name], strict=True))
                each = sorted(ours.requests / theirs.requests for ours, theirs in pairs)
                print(f"  subpool : {name} = {median(each):.2f}   ({each[0]:.2f} to {each[-1]:.2f})"
                      f"   per CPU {median(theirs.cpu / ours.cpu for ours, theirs in pairs):.2f}")  # fmt: skip
    finally:
        for process, _ in running.values():
            process.terminate()
        for process, _ in running.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


if __name__ == "__main__":
    main()
