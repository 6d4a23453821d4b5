"""Loads on a server, each a program of its own with an end: wrk, h2load, and a WebSocket client (`perf.ws_load`)."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from perf import ROOT
from perf.peers import Serving, cpu_seconds

SCRIPT: Final = str(Path(__file__).with_name("wrk.lua"))
FAILED: Final = 0.001  # of the requests; more, and there is no figure
LATENCIES: Final = ("p50", "p90", "p99", "p99.9")


async def output(command: list[str], seconds: float) -> str:
    """What a program prints that runs for about so long. It is killed when it takes much longer, or when we are
    ended."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=ROOT, env={**os.environ, "PYTHONPATH": ROOT}
    )
    try:
        async with asyncio.timeout(seconds + 20):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    text = said.decode(errors="replace")
    if process.returncode:
        raise RuntimeError(f"{command[0]} ended with {process.returncode}: {text.strip()[-200:]}")
    return text


async def wrk(
    server: Serving, path: str, seconds: float, *, connections: int = 64, send: tuple[str, ...] = ("plain",)
) -> dict[str, Any]:
    """What wrk found, as `wrk.lua` tells it. wrk runs whole seconds, one at least."""
    whole = max(1, round(seconds))
    command = ["wrk", "-t1", f"-c{connections}", f"-d{whole}s", "--timeout", "10s", "-s", SCRIPT, server.url + path]
    text = await output([*command, "--", *send], whole)
    found: dict[str, Any] = json.loads(text[text.rindex("\n{") :])
    for name in LATENCIES:
        found[name] /= 1e6
    return found


async def h2load(
    server: Serving, path: str, seconds: float, *, connections: int = 8, streams: int = 32
) -> dict[str, Any]:
    """What h2load found. It runs whole seconds, and knows no percentiles."""
    whole = max(1, round(seconds))
    command = ["h2load", f"-c{connections}", f"-m{streams}", "-t1", f"-D{whole}", server.url + path]
    text = await output(command, whole)
    if "Application protocol: h2" not in text:
        raise RuntimeError("the server does not speak h2 here")
    found = re.search(r"(\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", text)
    if found is None:
        raise RuntimeError(f"h2load: {text.strip()[-200:]}")
    done, good = int(found[1]), int(found[2])
    return {"requests": good, "seconds": float(whole), "failed": done - good}


async def websockets(server: Serving, path: str, seconds: float, *, connections: int = 64) -> dict[str, Any]:
    """Echoes of 64 bytes, one after another on each connection."""
    command = [sys.executable, "-m", "perf.ws_load", str(server.port), path, str(max(0.3, seconds)), str(connections)]
    found: dict[str, Any] = json.loads((await output(command, seconds)).strip().splitlines()[-1])
    return found


def costs(found: dict[str, Any], cpu: float, latencies: tuple[str, ...]) -> dict[str, float]:
    """Of one request: seconds by the clock, seconds of CPU, latencies."""
    count = found["requests"]
    if not count or found["failed"] > FAILED * count:
        raise RuntimeError(f"{found['failed']} of {count + found['failed']} requests failed")
    return {
        "time": found["seconds"] / count,
        "cpu": cpu / count,
        **{name: found[name] for name in latencies if name in found},
    }


async def measured(server: Serving, load: Any, latencies: tuple[str, ...] = ("p50", "p99")) -> dict[str, float]:
    """What `load()` found, and the CPU that the server used meanwhile."""
    before = cpu_seconds(server.pid)
    found = await load()
    if not server.alive():
        raise RuntimeError(f"the server ended under load: {server.words()}")
    return costs(found, cpu_seconds(server.pid) - before, latencies)
