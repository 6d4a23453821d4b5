"""What Linux tells of a process that runs: its memory, processor time, descriptors and threads."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

MB = 1 << 20


def rss(pid: int) -> int:
    """Bytes of memory that it holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def cpu(pid: int) -> float:
    """Seconds of processor time that it has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def descriptors(pid: int) -> list[str]:
    """What its descriptors are: "socket:[1234]", or a path."""
    folder, links = f"/proc/{pid}/fd", []
    for name in os.listdir(folder):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            links.append(os.readlink(f"{folder}/{name}"))
    return links


def sockets(pid: int) -> int:
    """How many sockets it has open."""
    return sum(link.startswith("socket:") for link in descriptors(pid))


def threads(pid: int) -> int:
    """How many threads it has."""
    return len(os.listdir(f"/proc/{pid}/task"))


def children(pid: int) -> list[int]:
    """The processes that it has started and that are there."""
    return [int(one) for task in os.listdir(f"/proc/{pid}/task")
            for one in Path(f"/proc/{pid}/task/{task}/children").read_text().split()]  # fmt: skip
