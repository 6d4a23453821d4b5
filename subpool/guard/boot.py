"""How a program of this package is started: a fresh interpreter with this one's flags and `sys.path`."""

from __future__ import annotations

import subprocess
import sys
from typing import Final

_BOOT: Final = """
import sys
sys.path[:] = eval(sys.argv.pop(2))
from subpool.guard.{} import main
sys.exit(main(sys.argv[2:]))
"""


def command(module: str, title: str, *arguments: object) -> list[str]:
    """The command line that calls `main` of `module` with `arguments`; lists of processes show `title`."""
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    path = repr(list(sys.path))
    return [sys.executable, *flags, "-c", _BOOT.format(module), title, path, *map(str, arguments)]
