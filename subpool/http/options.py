"""The options as the models define them, in the shape that command line, environment and documentation need."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel

from .config import MountConfig, MountHooks, ServerConfig, ServerHooks

PREFIX: Final = "SUBPOOL_"


class Option(NamedTuple):
    """One option. `kind`: "text", "integer", "number", "boolean", "choice", "mount", "hook"; `many`: a list of them."""

    name: str
    group: str
    text: str
    default: Any  # Ellipsis: must be given
    kind: str
    many: bool
    nullable: bool
    choices: tuple[str, ...]
    secret: bool
    flag: str

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return PREFIX + self.name.upper()


_KINDS: Final = {
    str: "text", int: "integer", float: "number", bool: "boolean", MountConfig: "mount", MountHooks: "hook",
    ServerHooks: "hook",
}  # fmt: skip


def options(model: type[BaseModel] = ServerConfig) -> dict[str, Option]:
    """The options of `model` by name, in its order."""
    found = {}
    for name, field in model.model_fields.items():
        base, many, nullable = _shape(field.annotation)
        choices = get_args(base) if get_origin(base) is Literal else ()
        extra: Any = field.json_schema_extra
        found[name] = Option(
            name=name,
            group=extra["group"],
            text=field.description or "",
            default=... if field.is_required() else field.default,
            kind="choice" if choices else _KINDS[base],
            many=many or base in (MountHooks, ServerHooks),
            nullable=nullable,
            choices=choices,
            secret=extra.get("secret", False),
            flag="--" + extra.get("option", name).replace("_", "-"),
        )
    return found


def _shape(annotation: Any) -> tuple[Any, bool, bool]:
    """The innermost type of an annotation, whether a list of it is meant, and whether None may stand instead."""
    many = nullable = False
    while (origin := get_origin(annotation)) not in (None, Literal):
        parts = get_args(annotation)
        if origin is Annotated:
            annotation = parts[0]
        elif origin in (Union, types.UnionType):
            (annotation,) = (part for part in parts if part is not type(None))
            nullable = True
        else:
            assert origin is list, annotation
            many = True
            annotation = parts[0]
    return annotation, many, nullable


def from_text(option: Option, text: str) -> Any:
    """What `text` says, as one value of `option`. What says nothing of the kind stays text: the model refuses it."""
    if option.nullable and text.lower() == "none":
        return None
    try:
        if option.kind == "integer":
            return int(text)
        if option.kind == "number":
            return float(text)
    except ValueError:
        return text
    if option.kind == "boolean":
        return {"true": True, "yes": True, "on": True, "1": True,
                "false": False, "no": False, "off": False, "0": False}.get(text.lower(), text)  # fmt: skip
    if option.kind == "mount" and "=" in text:
        prefix, _, app = text.partition("=")
        return {"prefix": prefix, "app": app}
    if option.kind == "hook" and "=" in text:
        name, _, function = text.partition("=")
        return {name: function}
    return text


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """ "; did you mean 'workers'?", or "" where nothing is near."""
    near = difflib.get_close_matches(str(name).lower().replace("-", "_"), list(known), 1)
    return f"; did you mean {near[0]!r}?" if near else ""
