"""Where a configuration comes from: defaults, over them a YAML file, the environment, the command line.

All that is wrong is found in one go, and each problem says where it is:

    subpool.yaml:7: mounts[1].interface: is 'asgy'; it must be one of auto, asgi, wsgi; did you mean 'asgi'?
    SUBPOOL_WORKERS: is 'many'; it must be a whole number
    --timeout: is 0.0; it must be more than 0

In the environment a list is separated by commas, and an empty variable counts as not set. An unknown SUBPOOL_ variable
is a problem too, but for those that Kubernetes sets for a service of that name.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from ..errors import ConfigError
from .config import Location, MountConfig, MountHooks, ServerConfig, ServerHooks
from .options import PREFIX, Option, did_you_mean, from_text, options
from .yamlfile import YAMLFile

_NOT_OURS: Final = re.compile(PREFIX + r"(CONFIG$|SERVICE_|PORT$|PORT_)")
_NOUNS: Final = {
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "text": "text",
    "choice": "text",
    "mount": "a mapping",
    "hook": "a mapping, NAME: module:function",
}


class Sources:
    """`values`: what was given, the strongest source wins; `origins`: the source of each, as messages name it."""

    def __init__(
        self,
        file: str | None = None,
        environ: Mapping[str, str] | None = None,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        self.values: dict[str, Any] = {}
        self.origins: dict[str, str] = {}
        self.problems: list[str] = []  # of the other sources
        self._in_file: list[tuple[int, str]] = []  # lines (0: none) and texts
        self._options = options()
        self.path = file
        self._file: YAMLFile | None = None
        if file is not None:
            self._add_file(file)
        self._add_environment(environ or {})
        for name, given in (arguments or {}).items():
            option = self._options[name]
            self._add(option, "APP" if name == "app" else option.flag, given)

    def _add_file(self, file: str) -> None:
        try:
            self._file = YAMLFile(file)
        except (OSError, ValueError) as error:
            self._in_file.append((0, f"{getattr(error, 'strerror', None) or error}"))
            return
        self._in_file += self._file.problems
        self.values.update(self._file.values)
        self.origins.update(dict.fromkeys(self._file.values, file))

    def _add_environment(self, environ: Mapping[str, str]) -> None:
        known = {option.variable: option for option in self._options.values()}
        for variable, text in sorted(environ.items()):
            if not variable.startswith(PREFIX) or _NOT_OURS.match(variable):
                continue
            option = known.get(variable)
            if option is None:
                near = did_you_mean(variable.removeprefix(PREFIX), self._options)
                self.problems.append(f"{variable}: there is no such option{near}")
            elif text:
                self._add(option, variable, [one.strip() for one in text.split(",")] if option.many else text)

    def _add(self, option: Option, origin: str, given: Any) -> None:
        if isinstance(given, str):
            given = from_text(option, given)
        elif isinstance(given, Sequence):
            given = [from_text(option, one) for one in given]
        self.values[option.name] = given
        self.origins[option.name] = origin

    def origin(self, location: Location) -> str:
        """Where the value at `location` came from: "default", FILE:LINE, a variable or an option."""
        origin = self.origins.get(str(location[0]), "default") if location else self.path or "default"
        return f"{origin}:{self._file.line(location)}" if self._file is not None and origin == self.path else origin

    def config(self) -> ServerConfig:
        """The configuration. `ConfigError` with all that is wrong."""
        config = None
        in_file, others = list(self._in_file), list(self.problems)
        try:
            config = ServerConfig.model_validate(self.values)
        except ValidationError as error:
            for one in error.errors(include_url=False):
                location = one["loc"]
                origin = self.origins.get(str(location[0])) if location else self.path
                if origin is not None and origin == self.path and self._file is not None:
                    in_file.append((self._file.line(location), f"{dotted(location)}: {self._say(one)}"))
                elif origin is not None:
                    inner = [part for part in location[1:] if isinstance(part, str)]
                    others.append(": ".join([origin, *inner, self._say(one)]))
                elif not (in_file and not self.values):  # what a file leaves out that could not be read is no news
                    others.append(f"{dotted(location)}: {self._say(one)}")
        if in_file or others or config is None:
            told = [f"{self.path}{f':{line}' if line else ''}: {what}" for line, what in sorted(in_file)]
            raise ConfigError([*told, *others])
        return config

    def tell(self, location: Location, what: str) -> str:
        """A line about the value at `location`, found wrong behind `config`."""
        in_file = self.origins.get(str(location[0])) == self.path
        return f"{self.origin(location)}: {dotted(location if in_file else location[1:])}: {what}"

    def _say(self, error: Mapping[str, Any]) -> str:
        """What is wrong, in the words of this project. `error`: one of pydantic's `errors()`."""
        location, kind, given = error["loc"], error["type"], error["input"]
        known = options(_model_at(location))
        option = known.get(_last_name(location))
        limits = error.get("ctx", {})
        shown = "not shown" if option is not None and option.secret else _show(given)
        if kind == "extra_forbidden":
            return f"there is no such option{did_you_mean(location[-1], known)}"
        if kind == "missing":
            return "is missing"
        if kind == "greater_than":
            return f"is {shown}; it must be more than {limits['gt']:g}"
        if kind == "finite_number":
            return f"is {shown}; it must be finite"
        if option is not None:
            if kind == "literal_error":
                near = did_you_mean(given, option.choices)
                return f"is {shown}; it must be one of {', '.join(option.choices)}{near}"
            if kind == "list_type":
                return f"is {shown}; it must be a list"
            if option.kind == "hook" and self.origins.get("hooks") != self.path and location[0] == "hooks":
                return f"is {shown}; it must be NAME=MODULE:FUNCTION"
            if option.kind == "mount" and self.origins.get("mounts") != self.path:
                return f"is {shown}; it must be PREFIX=APP"
            if kind.endswith(("_type", "_parsing", "_from_float", "_parsing_size")):
                return f"is {shown}; it must be {_NOUNS[option.kind]}"
        return str(error["msg"])


def load_config(
    file: str | None = None, environ: Mapping[str, str] | None = None, arguments: Mapping[str, Any] | None = None
) -> ServerConfig:
    """A configuration of `file` (YAML), `environ` and `arguments` (texts, lists of texts or bools by option).

    `ConfigError` with all that is wrong in any of them.
    """
    return Sources(file, environ, arguments).config()


def _model_at(location: Location) -> type[BaseModel]:
    """The model that the last name of a location belongs to."""
    if "hooks" in location[:-1]:
        return MountHooks if location[0] == "mounts" else ServerHooks
    return MountConfig if location[:1] == ("mounts",) and len(location) > 2 else ServerConfig


def _last_name(location: Location) -> str:
    return next((part for part in reversed(location) if isinstance(part, str)), "")


def dotted(location: Location) -> str:
    """("mounts", 1, "prefix") as mounts[1].prefix."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return "".join(parts).removeprefix(".")


def _show(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (dict, list)):
        return "a mapping" if isinstance(value, dict) else "a list"
    return reprlib.Repr(maxstring=60, maxother=60).repr(value)
