"""Workers wait on asyncio's own selector, whose time limits are whole milliseconds."""

from __future__ import annotations

import asyncio

from perf.off import replace
from subpool.worker import life

replace(life, "_new_loop", asyncio.new_event_loop)
