"""The guard's own lines in the log, in the form of `http.logs`, without the weight of `logging`."""

from __future__ import annotations

import sys
import time
from typing import Final

LEVELS: Final = ("debug", "info", "warning", "error", "critical")


class Diary:
    """`level`: the lowest that is written; `path`: a file, opened for each line, so that it may be moved; or stderr."""

    def __init__(self, level: str, path: str | None) -> None:
        self._lowest = LEVELS.index(level)
        self._path = path

    def debug(self, text: str) -> None:
        self._write("debug", text)

    def info(self, text: str) -> None:
        self._write("info", text)

    def warning(self, text: str) -> None:
        self._write("warning", text)

    def error(self, text: str) -> None:
        self._write("error", text)

    def _write(self, level: str, text: str) -> None:
        if LEVELS.index(level) < self._lowest:
            return
        now = time.time()
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
        line = f"{when},{int(now % 1 * 1000):03d} {level.upper()} subpool: {text}\n"
        try:
            if self._path is None:
                sys.stderr.write(line)
                sys.stderr.flush()
            else:
                with open(self._path, "a", encoding="utf-8") as file:
                    file.write(line)
        except OSError:
            pass  # a full disk, a terminal that has gone: no reason to stop guarding
