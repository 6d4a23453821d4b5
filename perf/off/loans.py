"""Large bodies travel inside their frames, copied."""

from __future__ import annotations

from perf.off import replace
from subpool.channels import frames

replace(frames, "LOAN_SIZE", 2**62)
