"""`subpool config check`, `show` and `schema`: what a configuration is worth, before anything is started.

Findings and values are what these commands are asked for: they go to stdout, a line each.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import click

from .commands import GroupedCommand, GroupedOption, source_params, sources
from .errors import ConfigError


def makers() -> dict[str, Callable[[], click.Command]]:
    """What makes each command."""
    return {"check": check_command, "show": show_command, "schema": schema_command}


def check_command() -> click.Command:
    """`subpool config check`."""
    return click.Command(
        "check",
        params=[click.Argument(["file"]), click.Argument(["app"], required=False)],
        callback=_check,
        help="Say all that is wrong with FILE, a YAML file of options: a line each, FILE:LINE: OPTION: what. Status 1 "
        "if there is anything. Name the APP where the file leaves it to the command line.",
    )


def _check(file: str, app: str | None) -> int:
    from .http.sources import Sources

    found = Sources(file, None, {} if app is None else {"app": app})
    try:
        found.config()
    except ConfigError as error:
        for problem in error.problems:
            missing = problem.startswith("app: ")  # an option that is nowhere has no origin
            click.echo(f"{found.origin(())}: {problem}" if missing else problem)
        return 1
    click.echo(f"{file}: ok")
    return 0


def show_command() -> click.Command:
    """`subpool config show`, with the options of `serve`."""
    as_json = GroupedOption(["--json", "as_json"], is_flag=True, help="Print JSON")
    return GroupedCommand(
        "show",
        context_settings={"max_content_width": 120},
        params=[as_json, *source_params()],
        callback=_show,
        help="Print every option as `subpool serve` would have it with the same arguments, and where its value came "
        "from: the default, FILE:LINE, a variable or an option of the command line.",
    )


def _show(as_json: bool, config: str | None, **given: Any) -> None:
    from .http.settings import settings

    found = settings(sources(config, given))
    if as_json:
        shown = {
            one.name: {"value": one.value, "origin": one.origin, **({"inherited": True} if one.inherited else {})}
            for one in found
        }
        click.echo(json.dumps(shown, indent=2))
        return
    names, texts = max(len(one.name) for one in found), max(len(one.text) for one in found)
    for one in found:
        click.echo(f"{one.name:{names}}  {one.text:{texts}}  {one.origin}{', the server' if one.inherited else ''}")


def schema_command() -> click.Command:
    """`subpool config schema`."""
    return click.Command(
        "schema",
        callback=_schema,
        help="Print the JSON Schema of a YAML file of options, for editors that complete and check as one types.",
    )


def _schema() -> None:
    from .http.schema import json_schema

    click.echo(json.dumps(json_schema(), indent=2))
