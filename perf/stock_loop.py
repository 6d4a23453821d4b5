"""To be preloaded by workers that are compared: they wait on asyncio's own selector."""

import asyncio

from subpool.worker import worker

worker._new_loop = asyncio.new_event_loop
