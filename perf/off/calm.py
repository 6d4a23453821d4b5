"""The other side of `perf.off.batching`: the worker counts as calm from its first call on, not after 20,000."""

from __future__ import annotations

from perf.off import replace
from subpool.worker import worker

replace(worker, "CALM", 0)
