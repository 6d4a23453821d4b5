"""Logging in a worker goes to the host's logging, with the worker's id as `record.worker`."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

_local = threading.local()
_installed = False


class HostHandler(logging.Handler):
    """Sends each record to the host as plain data."""

    def __init__(self, post: Callable[[tuple[Any, ...]], None]) -> None:
        super().__init__()
        self._post = post

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
            trace = None
            if record.exc_info:
                trace = logging.Formatter().formatException(record.exc_info)
            elif record.exc_text:
                trace = record.exc_text
            self._post(
                (record.name, record.levelno, text, record.pathname, record.lineno, record.funcName, trace,
                 record.created, record.threadName)
            )  # fmt: skip
        except Exception:
            self.handleError(record)


def replay(data: tuple[Any, ...], worker: int) -> None:
    """On the host: hand the record that a worker's `HostHandler` took apart to this process's logging."""
    name, level, text, path, line, function, trace, created, thread = data
    logger = logging.getLogger(name)
    if not logger.isEnabledFor(level):
        return
    record = logger.makeRecord(name, level, path, line, text, (), None, function)
    record.exc_text = trace
    record.created = created
    record.threadName = thread
    record.worker = worker
    logger.handle(record)


def mark_thread(worker: int) -> None:
    """For workers that share the host's interpreter: records made on this thread carry the worker's id."""
    global _installed
    _local.worker = worker
    if not _installed:
        _installed = True
        inner = logging.getLogRecordFactory()

        def factory(*args: Any, **kwargs: Any) -> logging.LogRecord:
            record = inner(*args, **kwargs)
            worker = getattr(_local, "worker", None)
            if worker is not None:
                record.worker = worker
            return record

        logging.setLogRecordFactory(factory)
