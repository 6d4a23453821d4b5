"""The commands, made with click. The options of `serve` are those of the configuration's models.

Every value is passed on as the text that was given: the models judge it, together with the file and the environment.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from .errors import ConfigError, SubpoolError
from .http.logs import set_up_logging
from .http.loops import loop_factory

if TYPE_CHECKING:
    from .http.config import ServerConfig
    from .http.options import Option
    from .http.sources import Sources

log = logging.getLogger("subpool")

METAVARS = {
    "text": "TEXT", "integer": "N", "number": "SECONDS", "mount": "PREFIX=APP", "hook": "NAME=MODULE:FUNCTION",
}  # fmt: skip


class Commands(click.Group):
    """Makes a command when it is asked for: `check` needs none of the server's libraries."""

    makers: dict[str, Callable[[], click.Command]]

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self.makers)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        maker = self.makers.get(cmd_name)
        return maker() if maker is not None else None


class GroupedOption(click.Option):
    """An option with the heading that help lists it under."""

    heading = "Server"


class GroupedCommand(click.Command):
    """A command whose help lists its options by heading."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        headings: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None and isinstance(param, click.Option):
                headings.setdefault(getattr(param, "heading", "Other"), []).append(record)
        for heading, records in headings.items():
            with formatter.section(heading):
                formatter.write_dl(records)


def command() -> click.Group:
    """The command `subpool`."""
    from . import __version__, control_commands

    group = Commands(help="A pool of isolated Python interpreters for ASGI and WSGI apps.")
    group.makers = {"serve": serve_command, "check": check_command, "config": config_command}
    group.makers |= control_commands.makers()
    return click.version_option(__version__, prog_name="subpool", message="%(prog)s %(version)s")(group)


# serve


def serve_command() -> click.Command:
    """`subpool serve`, with an option for every field of `ServerConfig`."""
    return GroupedCommand(
        "serve",
        context_settings={"max_content_width": 120},
        params=source_params(),
        callback=_serve,
        help="Serve APP, module:callable, over HTTP/1.1, HTTP/2 and WebSocket.",
        epilog="Every option is also an environment variable, as SUBPOOL_MAX_BODY for --max-body; a list is separated "
        "by commas there. The command line wins over the environment, which wins over the file. Where an option may "
        "be without a value, that is none, as in --timeout none.",
    )


def source_params() -> list[click.Parameter]:
    """APP, `--config` and an option for every field of `ServerConfig`."""
    from .http.config import GROUPS
    from .http.options import options

    params: list[click.Parameter] = [click.Argument(["app"], required=False, metavar="[APP]")]
    file = GroupedOption(
        ["--config", "-c"], metavar="FILE", envvar="SUBPOOL_CONFIG", help="YAML file with these options, by their names"
    )
    params.append(file)
    params += [_option(option, GROUPS[option.group]) for option in options().values() if option.name != "app"]
    return params


def sources(config: str | None, given: Mapping[str, Any]) -> Sources:
    """The sources that a command with `source_params` was given."""
    from .http.sources import Sources

    arguments = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in given.items()
        if value is not None and value != ()
    }
    return Sources(config, os.environ, arguments)


def _option(option: Option, heading: str) -> click.Option:
    text = option.text + (f"; default {default_text(option)}" if option.default not in (None, [], "") else "")
    names = [option.flag, option.name]
    if option.kind == "boolean":
        made = GroupedOption([f"{option.flag}/--no-{option.flag[2:]}", option.name], default=None, help=text)
    else:
        metavar = METAVARS.get(option.kind) or "|".join(option.choices)
        made = GroupedOption(names, multiple=option.many, metavar=metavar, help=text)
    made.heading = heading
    return made


def default_text(option: Option) -> str:
    """An option's default as one would write it."""
    if isinstance(option.default, list):
        return ", ".join(option.default)
    if isinstance(option.default, bool):
        return "on" if option.default else "off"
    return f"{option.default:g}" if isinstance(option.default, float) else str(option.default)


def _serve(config: str | None, **given: Any) -> int:
    from .guard.handover import become_guard, inherited

    before = inherited(os.environ)
    found = sources(config, given)
    loaded = with_current_directory(found.config())
    _check_hooks(loaded, found)
    if loaded.guard:
        become_guard(loaded, before)
    if before is not None:
        raise ConfigError(["guard: is off, but a guard asks this server to take its place"])
    return run(loaded)


def _check_hooks(config: ServerConfig, found: Sources) -> None:
    """Hooks are imported here too: only here is it known in which line they are named. `ConfigError`: what is wrong."""
    if config.hooks is None and all(mount.hooks is None for mount in config.mounts):
        return
    from .http.hook_names import problems

    wrong = problems(config)
    if wrong:
        raise ConfigError([found.tell(place, what) for place, what in wrong])


def with_current_directory(config: ServerConfig) -> ServerConfig:
    """The configuration with the current directory on the apps' paths, behind what was given."""
    here = os.getcwd()
    mounts = [
        mount if mount.pythonpath is None else mount.model_copy(update={"pythonpath": [*mount.pythonpath, here]})
        for mount in config.mounts
    ]
    return config.model_copy(update={"pythonpath": [*config.pythonpath, here], "mounts": mounts})


def run(config: ServerConfig) -> int:
    """Serve in this process until a signal ends it; the status. Raises what a server raises that cannot start."""
    from .http.server import Server

    set_up_logging(config)
    server = Server(config)
    try:
        with asyncio.Runner(loop_factory=loop_factory(config.loop)) as runner:
            return runner.run(server.serve())
    except (SubpoolError, OSError):
        log.debug("the server ends because of an error", exc_info=True)
        raise


# config


def config_command() -> click.Group:
    """`subpool config`."""
    from . import config_commands

    group = Commands("config", help="Judge, show and describe the configuration. Nothing is started.")
    group.makers = config_commands.makers()
    return group


# check


def check_command() -> click.Command:
    """`subpool check`."""
    from .config import ISOLATION

    return click.Command(
        "check",
        params=[
            click.Argument(["app"]),
            click.Option(["--json", "as_json"], is_flag=True, help="Print JSON"),
            click.Option(["--isolation"], type=click.Choice(ISOLATION), default="auto", help="What a worker would be"),
            click.Option(["--pythonpath"], multiple=True, metavar="FOLDER", help="Put before sys.path in the workers"),
            click.Option(["--venv"], metavar="FOLDER", help="Virtual environment whose packages the workers use"),
        ],
        callback=_check,
        help="Say what APP, module:callable, can run in: which of its extension modules refuse sub-interpreters, which "
        "isolation 'auto' would choose, and what a worker weighs. Status 1 if the isolation cannot run it.",
    )


def _check(app: str, as_json: bool, isolation: str, pythonpath: tuple[str, ...], venv: str | None) -> int:
    from .check import check, table

    try:
        report = check(app, isolation, [*pythonpath, os.getcwd()], venv)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if as_json:
        click.echo(report.json())
    else:
        if report.traceback:
            click.echo(report.traceback.rstrip(), err=True)
        click.echo(table(report))
    return 0 if report.ok else 1
