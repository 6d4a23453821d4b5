"""A host in a process of its own: `python far_host.py REDIS NODE [MARK]`. It says "ready" and ends with its stdin.

`in_worker` runs a function of `services_app` in a worker of it; `back` calls a function of another host there.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import host_functions as h

from subpool import Pool


async def main(url: str, node: str, mark: str = "") -> None:
    here = os.path.dirname(os.path.abspath(__file__))
    options = {"workers": 1, "isolation": "thread", "lifespan": "off", "pythonpath": [here], "close_timeout": 5.0}
    async with Pool("services_app:wsgi", bus=url, state=url, state_namespace="shared", node=node, **options) as pool:

        async def in_worker(function: str, *args: Any, **kwargs: Any) -> Any:
            return await pool.call(f"services_app:{function}", *args, **kwargs)

        async def back(node: str, name: str, *args: Any) -> Any:
            return await pool.call("services_app:aask", name, *args, node=node)

        for name in ("add", "size", "fails", "dies", "no_data", "count", "endless", "breaks", "blocks", "spins"):
            pool.register(name, getattr(h, name))
        for name in ("aadd", "awhere", "afails", "waits", "awaits", "acount", "aendless"):
            pool.register(name, getattr(h, name))
        pool.register("iadd", h.add, inline=True)
        pool.register("mark", lambda: mark, inline=True)
        pool.register("repeat", lambda what, times: what * times, inline=True)
        pool.register("large_items", lambda size: iter([b"x" * size]), inline=True)
        pool.register("in_worker", in_worker)
        pool.register("back", back)
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)


asyncio.run(main(*sys.argv[1:]))
