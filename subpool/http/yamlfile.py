"""A YAML file as plain data that knows the line of every value.

The safe loader's nodes are turned into data here, because only nodes know their lines. Scalars are read by YAML 1.2's
rules, not 1.1's, so that `off`, `on` and `no` are text, 0660 is no octal number and 1:30 no base-60 one. Tags of
objects, keys that come twice and values that contain themselves are refused. Anchors, aliases and merges (`<<`) work; a
value that many aliases name is made once.

A problem tells nothing of a value: a password that begins with `*`, `&` or `!` is an alias, an anchor or a tag to YAML.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import yaml

_TAG: Final = "tag:yaml.org,2002:"
_REFUSED: Final = object()
_QUOTED: Final = re.compile(r"'(?!<)[^']{2,}'|\"[^\"]{2,}\"")  # of the file; what PyYAML calls a token is '<...>'
_RESOLVERS: Final = (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
     list("-+.0123456789")),
    ("merge", r"<<", ["<"]),
)  # fmt: skip


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = {}  # noqa: RUF012  PyYAML's own way: a table in the class


for _name, _pattern, _first in _RESOLVERS:
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(f"(?:{_pattern})$"), _first)


class YAMLFile:
    """`values`: the file's mapping; `problems`: what is wrong with it as YAML, each a line (0: none) and a text.

    `OSError` if it cannot be read.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.problems: list[tuple[int, str]] = []
        self.values: dict[str, Any] = {}
        self._made: dict[int, Any] = {}
        self._root: yaml.Node | None = None
        data = Path(path).read_bytes()
        try:
            self._root = yaml.compose(data, _Loader)
            values = self._make(self._root) if self._root is not None else None
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            told = _QUOTED.sub("", str(error.problem or error.context))
            self.problems.append((mark.line + 1 if mark else 1, " ".join(told.split())))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            self.problems.append((0, f"this is no YAML: {' '.join(str(error).split())}"))
        except RecursionError:
            self.problems.append((0, "its values are nested too deeply"))
        else:
            if isinstance(values, dict):
                self.values = values
            elif values is not None and values is not _REFUSED:
                self.problems.append((self.line(()), "must be a mapping, option: value"))

    def line(self, location: Sequence[int | str]) -> int:
        """The line, from 1, of the value at `location`: of its key, where it has one; of the nearest that is there."""
        node, line = self._root, 1
        if node is not None:
            line = node.start_mark.line + 1
        for part in location:
            if isinstance(node, yaml.MappingNode):
                pair = self._find(node, str(part), set())
            elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
                pair = node.value[part], node.value[part]
            else:
                break
            if pair is None:
                break
            line, node = pair[0].start_mark.line + 1, pair[1]
        return line

    def _find(self, node: yaml.MappingNode, name: str, seen: set[int]) -> tuple[yaml.Node, yaml.Node] | None:
        seen.add(id(node))
        merged = None
        for key, value in node.value:
            if key.tag == _TAG + "merge":
                for one in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    if merged is None and isinstance(one, yaml.MappingNode) and id(one) not in seen:
                        merged = self._find(one, name, seen)
            elif isinstance(key, yaml.ScalarNode) and key.value == name:
                return key, value
        return merged

    def _refuse(self, node: yaml.Node, what: str) -> Any:
        self.problems.append((node.start_mark.line + 1, what))
        return _REFUSED

    def _make(self, node: yaml.Node) -> Any:
        if id(node) in self._made:
            made = self._made[id(node)]
            return self._refuse(node, "this value contains itself") if made is ... else made
        self._made[id(node)] = ...
        if isinstance(node, yaml.ScalarNode):
            made = self._scalar(node)
        elif isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            made = self._mapping(node)
        elif isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            made = [one for one in map(self._make, node.value) if one is not _REFUSED]
        else:
            made = self._refuse(node, "its tag is not known here")
        self._made[id(node)] = made
        return made

    def _mapping(self, node: yaml.MappingNode) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key, value in node.value:
            if key.tag == _TAG + "merge":
                for one in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    made = self._make(one)
                    if isinstance(made, dict):
                        merged = {**made, **merged}
                    elif made is not _REFUSED:
                        self._refuse(one, "'<<' merges mappings, and this is none")
            elif not isinstance(key, yaml.ScalarNode):
                self._refuse(key, "a key must be text")
            elif key.value in lines:
                self._refuse(key, f"{key.value}: is there twice; the first is in line {lines[key.value]}")
            else:
                lines[key.value] = key.start_mark.line + 1
                made = self._make(value)
                if made is not _REFUSED:
                    own[key.value] = made
        return {**merged, **own}

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        kind, text = node.tag.removeprefix(_TAG), node.value
        try:
            if kind == "str":
                return text
            if kind == "null":
                return None
            if kind == "bool":
                return {"true": True, "false": False}[text.lower()]
            if kind == "int":
                return int(text)
            if kind == "float":
                return float(text.replace(".inf", "inf").replace(".nan", "nan") if text[-1:].isalpha() else text)
        except (ValueError, KeyError):
            return self._refuse(node, f"this is no {kind}")
        if kind == "merge":
            return text
        return self._refuse(node, "its tag is not known here")
