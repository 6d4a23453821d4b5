#!/usr/bin/env python3
"""The tables of options in docs/server.md, made from the models. Run it after a change to subpool/http/config.py.

Needs the extra `server`. What stands between the two marks of the page is replaced; `--check` only tells, by its
status, whether that would change anything.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from subpool.commands import default_text
from subpool.http.config import GROUPS, MountConfig
from subpool.http.options import Option, options

PAGE = Path(__file__).resolve().parent.parent / "docs" / "server.md"
BEGIN, END = "<!-- options: made by scripts/option_tables.py -->\n", "<!-- end of options -->\n"


def tables() -> str:
    """A table for each group, and one for mounts."""
    every = list(options().values())
    parts = []
    for group, title in GROUPS.items():
        rows = [row(option) for option in every if option.group == group]
        parts.append(f"### {title}\n\n| option | value | default | meaning |\n|---|---|---|---|\n{''.join(rows)}")
    mount = "".join(
        f"| `{option.name}` | {value(option)} | {escaped(option.text)} |\n" for option in options(MountConfig).values()
    )
    parts.append(
        "### Mounts\n\nThe keys of each item of `mounts`. `prefix` and `app` must be there; what is left out is as in "
        f"the server's options.\n\n| key | value | meaning |\n|---|---|---|\n{mount}"
    )
    return "\n".join(parts)


def row(option: Option) -> str:
    """One line of a table."""
    flag = "`APP`" if option.name == "app" else f"`{option.flag}`"
    if option.kind == "boolean":
        flag += f", `--no-{option.flag[2:]}`"
    default = ""
    if option.kind == "boolean":
        default = f"`{str(option.default).lower()}`"
    elif option.default not in (None, [], ""):
        default = f"`{default_text(option)}`"
    name = f"`{option.name}`<br>{flag}"
    return f"| {name} | {value(option)} | {default} | {escaped(option.text)} |\n"


def value(option: Option) -> str:
    """What an option takes."""
    if option.kind == "boolean":
        text = "true, false"
    elif option.kind == "choice":
        text = ", ".join(f"`{choice}`" for choice in option.choices)
    else:
        if option.kind == "hook":
            return "mapping of text, or of lists of text"
        text = {"mount": "mappings", "number": "seconds", "integer": "whole number", "text": "text"}[option.kind]
    return f"list of {text}" if option.many else text


def escaped(text: str) -> str:
    """Text that Markdown leaves as it is."""
    return text.replace("|", "\\|").replace("*", "\\*")


def page() -> str:
    """The whole page, with the tables as they must be."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n{tables()}\n{END}{after}"


def main() -> int:
    """Write the page, or with `--check` compare it."""
    text = page()
    if sys.argv[1:] == ["--check"]:
        return int(text != PAGE.read_text(encoding="utf-8"))
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
