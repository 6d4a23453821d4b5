"""The command `subpool`: what becomes of its errors. The commands themselves are in `commands`.

What went wrong is one message on stderr, `subpool: error: ...`, never a traceback of ours; an app that raised while it
was loaded shows its own above it. Status 1, and 2 where the command line itself was wrong.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

from .errors import AppLoadError, ConfigError, SubpoolError

EXTRA: Final = ("click", "h2", "httptools", "pydantic", "pydantic_core", "wsproto", "yaml")
INTERRUPTED: Final = 130  # as a shell says that SIGINT ended something


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, `arguments` or the process's own; its exit status."""
    try:
        import click

        from .commands import command
    except ModuleNotFoundError as error:
        return _missing(error)
    try:
        status = command().main(arguments, prog_name="subpool", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        sys.stderr.write(f"{error.format_message()}\n")
        return 2
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx is not None else "subpool"
        return tell(f"{error.format_message()} (try '{where} --help')", 2)
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except (SubpoolError, OSError, ModuleNotFoundError) as error:
        return report(error)
    return status if isinstance(status, int) else 0


def report(error: SubpoolError | OSError | ModuleNotFoundError) -> int:
    """Say what went wrong; the status. A bug of ours is raised again."""
    if isinstance(error, ModuleNotFoundError):
        return _missing(error)
    if isinstance(error, ConfigError):
        if len(error.problems) == 1:
            return tell(error.problems[0])
        return tell("\n".join([f"{len(error.problems)} problems in the configuration", *error.problems]))
    if isinstance(error, AppLoadError):
        sys.stderr.write(error.remote_traceback)
        return tell(error.message)
    if isinstance(error, SubpoolError):
        return tell(str(error) or type(error).__name__)
    where = f": {error.filename}" if error.filename is not None else ""
    return tell(f"{error.strerror}{where}" if error.strerror else str(error) or type(error).__name__)


def tell(message: str, status: int = 1) -> int:
    """Say it on stderr, as all that goes wrong; the status."""
    sys.stderr.write(f"subpool: error: {message}\n")
    return status


def _missing(error: ModuleNotFoundError) -> int:
    name = (error.name or "").partition(".")[0]
    if name not in EXTRA:
        raise error
    return tell(f"{name} is not installed: pip install 'subpool[server]'")
