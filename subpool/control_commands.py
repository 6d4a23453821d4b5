"""`subpool status`, `reload`, `scale`, `recycle`, `stop`: commands to a running server, through its control socket."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import click

from .remote import Remote, the_server

STATUS_TIME: Final = 10.0  # seconds until a server must have told its status
INTERVAL: Final = 1.0  # seconds between two looks of --watch
_CLEAR: Final = "\x1b[H\x1b[2J"


def makers() -> dict[str, Callable[[], click.Command]]:
    """What makes each command."""
    return {
        "status": status_command,
        "reload": reload_command,
        "scale": scale_command,
        "recycle": recycle_command,
        "stop": stop_command,
    }


def _command(name: str, callback: Callable[..., Any], text: str, *params: click.Parameter) -> click.Command:
    where = click.Option(["--socket"], metavar="PATH", envvar="SUBPOOL_CONTROL_SOCKET",
                         help="The server's control socket, where it has one of its own or several run")  # fmt: skip
    return click.Command(name, params=[*params, where], callback=callback, help=text)


def _connect(path: str | None) -> Remote:
    return the_server(None if path in ("auto", "none") else path)  # the variable is the server's option too


def status_command() -> click.Command:
    """`subpool status`."""
    return _command(
        "status", _status, "Print how a running server is: its addresses, pools and workers.",
        click.Option(["--json", "as_json"], is_flag=True, help="Print JSON"),
        click.Option(["--watch"], is_flag=True, help="Again every second, until the server or you end it"),
    )  # fmt: skip


def _status(as_json: bool, watch: bool, socket: str | None) -> None:
    from .status_table import table

    with _connect(socket) as remote:
        while True:
            status = remote.ask("status", STATUS_TIME)
            text = json.dumps(status, indent=None if watch else 2) if as_json else table(status)
            live = watch and not as_json
            click.echo(f"{_CLEAR if live and sys.stdout.isatty() else ''}{text}{chr(10) if live else ''}")
            if not watch:
                return
            sys.stdout.flush()
            time.sleep(INTERVAL)


def reload_command() -> click.Command:
    """`subpool reload`."""
    return _command(
        "reload", _reload, "Let fresh workers import the apps anew and take over. Code that does not import leaves "
        "the old workers in place: status 1.",
    )  # fmt: skip


def _reload(socket: str | None) -> None:
    with _connect(socket) as remote:
        remote.ask("reload")
    click.echo("reloaded")


def scale_command() -> click.Command:
    """`subpool scale N`."""
    return _command(
        "scale", _scale, "Have N workers in each pool.",
        click.Argument(["workers"], type=click.IntRange(min=1), metavar="N"),
    )  # fmt: skip


def _scale(workers: int, socket: str | None) -> None:
    with _connect(socket) as remote:
        remote.ask("scale", workers=workers)
    click.echo(f"workers: {workers}")


def recycle_command() -> click.Command:
    """`subpool recycle ID`."""
    return _command(
        "recycle", _recycle, "Replace worker ID, in each pool that has one, by a fresh one, which is ready before "
        "the old one goes.",
        click.Argument(["worker"], type=int, metavar="ID"),
    )  # fmt: skip


def _recycle(worker: int, socket: str | None) -> None:
    with _connect(socket) as remote:
        remote.ask("recycle", worker=worker)
    click.echo(f"recycled worker {worker}")


def stop_command() -> click.Command:
    """`subpool stop`."""
    return _command(
        "stop", _stop, "Drain and end a server: it listens no more, what is under way may finish within its "
        "graceful_timeout. Returns when it has ended.",
    )  # fmt: skip


def _stop(socket: str | None) -> None:
    with _connect(socket) as remote:
        answer = remote.ask("stop")
        limit = float(answer["limit"])
        remote.wait_for_end(limit)
    click.echo("stopped")
