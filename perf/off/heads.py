"""`python -m perf.off.heads serve ...`: a server that parses header lines anew each time."""

from __future__ import annotations

import sys

from perf.off import replace
from subpool.http.front import Front

replace(Front, "remember", lambda self, block, headers: None)

if __name__ == "__main__":
    from subpool.cli import main

    sys.exit(main())
