"""The types of the server's options: what a value must be, and how what is wrong with it is said.

A check gets what passed pydantic's own, and raises `ValueError` with the end of a sentence that begins with the option.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, WithJsonSchema, WrapValidator

from ..config import check_bus, check_name, check_node, check_range
from ..state.key import check_namespace
from ..state.options import EVICTION, parse
from .addresses import check_peer, check_prefix, check_root_path, parse_bind


def _app(value: str) -> str:
    try:
        check_name("app", value)
    except ValueError as error:
        raise ValueError(str(error).removeprefix("app ")) from None
    return value


def _file(value: str) -> str:
    if not os.path.isfile(value):
        raise ValueError(f"is {value!r}, and there is no such file")
    return value


def _folder(value: str) -> str:
    if not os.path.isdir(value):
        raise ValueError(f"is {value!r}, and there is no such directory")
    return value


def _glob(value: str) -> str:
    if not value:
        raise ValueError("is empty; it must be a glob such as '*.html'")
    return value


def _venv(value: str) -> str:
    if not os.path.isfile(os.path.join(value, "pyvenv.cfg")):
        raise ValueError(f"is {value!r}, which holds no pyvenv.cfg")
    return value


def _mode(value: str) -> str:
    if len(value) not in (3, 4) or not set(value) <= set("01234567"):
        raise ValueError(f"is {value!r}; it must be an octal file mode, as '660'")
    return value


def _header(value: str) -> str:
    if not value.isascii() or not value.isprintable() or value != value.strip():
        raise ValueError(f"is {value!r}; it must be printable ASCII")
    return value


def check_distinct(values: list[str]) -> list[str]:
    if not values:
        raise ValueError("is empty; it must name at least one")
    again = sorted({value for value in values if values.count(value) > 1 and not value.endswith(":0")})
    if again:
        raise ValueError(f"names {again[0]!r} twice")
    return values


def check_control_socket(value: str) -> str:
    if value not in ("auto", "none"):
        parse_bind(f"unix:{value}")
    return value


def check_listener(value: str) -> str:
    if parse_bind(value).kind == "fd":
        raise ValueError(f"is {value!r}; it must be HOST:PORT or unix:PATH")
    return value


def _bus(value: str) -> str:
    try:
        check_bus("bus", value)
    except ValueError as error:
        raise ValueError(str(error).removeprefix("bus ")) from None
    return value


def _node(value: str) -> str:
    try:
        check_node("node", value)
    except ValueError as error:
        raise ValueError(str(error).removeprefix("node ")) from None
    return value


def _function(value: str) -> str:
    name, equals, spec = value.partition("=")
    try:
        if not equals or not name:
            raise ValueError("function no NAME=module:object")
        check_name("function", spec)
    except ValueError:
        raise ValueError(f"is {value!r}; it must be NAME=module:object") from None
    return value


def _listed(value: Any) -> Any:
    """A mapping of names as the list of texts that the command line has."""
    if not isinstance(value, Mapping):
        return value
    return [f"{name}={spec}" if isinstance(spec, str) else spec for name, spec in value.items()]


_FUNCTIONS: Final = {"anyOf": [
    {"type": "object", "additionalProperties": {"type": "string"}}, {"type": "array", "items": {"type": "string"}}
]}  # fmt: skip


def _number_as_text(value: Any) -> Any:
    """YAML reads 660 and 1.2 as numbers."""
    return str(value) if type(value) in (int, float) else value


Count = Annotated[int, Field(gt=0)]


def _workers(value: Any, number: Callable[[Any], int]) -> int | dict[str, int]:
    """A number, or the least and the most: a mapping, or as text "2-8"."""
    if isinstance(value, str) and (found := re.fullmatch(r"(\d+)-(\d+)", value)):
        value = {"min": int(found[1]), "max": int(found[2])}
    if not isinstance(value, Mapping):
        return number(value)
    try:
        check_range(value)
    except (TypeError, ValueError) as error:
        raise ValueError(str(error).removeprefix("workers ")) from None
    return dict(value)


_RANGE: Final = {"anyOf": [
    {"type": "integer", "exclusiveMinimum": 0},
    {"type": "string", "pattern": "^[0-9]+-[0-9]+$"},
    {"type": "object", "properties": {"min": {"type": "integer", "minimum": 1}, "max": {"type": "integer"}},
     "required": ["min", "max"], "additionalProperties": False},
]}  # fmt: skip
Workers = Annotated[
    int,
    Field(gt=0),
    WrapValidator(_workers),
    PlainSerializer(lambda value: value),  # else a range, which is no number, is warned of
    WithJsonSchema(_RANGE),
]


def _state(value: Any, handler: Callable[[Any], str]) -> str:
    """A URL, or a mapping of what it is made of; always a URL then."""
    try:
        return parse(value).text
    except (TypeError, ValueError) as error:
        raise ValueError(str(error).removeprefix("state ")) from None


def _namespace(value: str) -> str:
    try:
        check_namespace(value)
    except ValueError as error:
        raise ValueError(str(error).removeprefix("state_namespace ")) from None
    return value


_STATE: Final = {"anyOf": [
    {"type": "string", "pattern": "^(memory:|sqlite:///|rediss?://|unix://)"},
    {"type": "object", "additionalProperties": False, "properties": {
        "url": {"type": "string"},
        "max_entries": {"type": "integer", "minimum": 1},
        "max_bytes": {"type": "integer", "minimum": 1},
        "eviction": {"enum": list(EVICTION)},
    }},
]}  # fmt: skip
State = Annotated[str, WrapValidator(_state), WithJsonSchema(_STATE)]
Namespace = Annotated[str, AfterValidator(_namespace)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Text = Annotated[str, BeforeValidator(lambda value: os.fspath(value) if isinstance(value, os.PathLike) else value)]
AppName = Annotated[str, AfterValidator(_app)]
File = Annotated[Text, AfterValidator(_file)]
Folder = Annotated[Text, AfterValidator(_folder)]
Glob = Annotated[Text, AfterValidator(_glob)]
Venv = Annotated[Text, AfterValidator(_venv)]
Bind = Annotated[str, AfterValidator(lambda value: parse_bind(value) and value)]
Functions = Annotated[
    list[Annotated[str, AfterValidator(_function)]], BeforeValidator(_listed), WithJsonSchema(_FUNCTIONS)
]
Bus = Annotated[str, AfterValidator(_bus)]
Node = Annotated[str, AfterValidator(_node)]
Peer = Annotated[str, AfterValidator(check_peer)]
Prefix = Annotated[str, AfterValidator(check_prefix)]
RootPath = Annotated[str, AfterValidator(check_root_path)]
HeaderValue = Annotated[str, AfterValidator(_header)]
Mode = Annotated[
    str,
    BeforeValidator(_number_as_text),
    AfterValidator(_mode),
    WithJsonSchema({"type": ["string", "integer"], "pattern": "^[0-7]{3,4}$"}),
]
TLSVersion = Annotated[
    Literal["1.2", "1.3"], BeforeValidator(_number_as_text), WithJsonSchema({"enum": ["1.2", "1.3", 1.2, 1.3]})
]
Isolation = Literal["auto", "subinterpreter", "thread", "process"]
Interface = Literal["auto", "asgi", "wsgi"]
Lifespan = Literal["auto", "on", "off"]
Protocol = Literal["h2", "http/1.1"]


def _hook(value: str) -> str:
    try:
        check_name("it", value)
    except ValueError:
        raise ValueError(f"is {value!r}; it must be 'module:function'") from None
    if value.endswith("()"):
        raise ValueError(f"is {value!r}; it must be 'module:function', without '()'")
    return value


def joined(value: Any) -> Any:
    """What the command line and the environment give: a mapping for each hook."""
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        return value
    out: dict[str, list[Any]] = {}
    for kind, name in (item for one in value for item in one.items()):
        out.setdefault(kind, []).append(name)
    return out


HookNames = Annotated[
    list[Annotated[str, AfterValidator(_hook)]],
    BeforeValidator(lambda value: [value] if isinstance(value, str) else value),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
