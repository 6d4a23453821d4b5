"""Where a server's logs go: what is logged, and warnings, to a file or stderr; the access log to a file or stdout."""

from __future__ import annotations

import logging
import sys
import warnings
from logging.handlers import WatchedFileHandler
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from .config import ServerConfig

log = logging.getLogger("subpool")

FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def set_up_logging(config: ServerConfig) -> None:
    """As `config` says. `OSError` if a file cannot be opened."""
    handler = logging.StreamHandler(sys.stderr) if config.log_file is None else _file(config.log_file)
    logging.basicConfig(level=config.log_level.upper(), format=FORMAT, handlers=[handler])
    if config.access_log != "off":
        access = logging.getLogger("subpool.access")
        access.setLevel(logging.INFO)
        access.propagate = False
        to_file = config.access_log_file is not None
        access.addHandler(_file(config.access_log_file or "") if to_file else logging.StreamHandler(sys.stdout))
    show = warnings.showwarning

    def showwarning(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if str(message).startswith("subpool "):  # ours: where in our code it arose says nothing
            log.warning("%s", message)
        else:
            show(message, category, filename, lineno, file, line)

    warnings.showwarning = showwarning


def _file(path: str) -> WatchedFileHandler:
    return WatchedFileHandler(path, encoding="utf-8")


def reopen() -> None:
    """Open the files anew that were moved away. (A record does that too: this is for a server with nothing to log.)"""
    for logger in (logging.getLogger(), logging.getLogger("subpool.access")):
        for handler in logger.handlers:
            if isinstance(handler, WatchedFileHandler):
                handler.acquire()
                try:
                    handler.reopenIfNeeded()
                except OSError as error:
                    log.error("a log file cannot be opened: %s", error)
                finally:
                    handler.release()
    log.info("log files opened again")
