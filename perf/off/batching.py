"""Answers leave one by one, however calm the worker has been."""

from __future__ import annotations

from perf.off import replace
from subpool.worker import worker

replace(worker, "CALM", float("inf"))
