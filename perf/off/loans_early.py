"""Not off, but elsewhere: bodies are lent from 1 KB on."""

from __future__ import annotations

from perf.off import replace
from subpool.channels import frames

replace(frames, "LOAN_SIZE", 1024)
