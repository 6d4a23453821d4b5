"""The functions that the host has, by name, and where each of them runs.

Plain ones run in the helper process, which imports them by "module:name"; so an object must be one that can be imported
there. `async def` functions, and those registered `inline`, run on the host's loop.
"""

from __future__ import annotations

import inspect
import re
import sys
from typing import Any, Final

from ..config import check_name
from ..errors import UnknownFunction
from ..worker.importer import load_object

_NAME: Final = re.compile(r"[^\W\d][\w-]*(\.[^\W\d][\w-]*)*")


class Function:
    """One entry. `spec`: "module:name" for the helper, or None; `object`: what runs on the host's loop, or None."""

    __slots__ = ("name", "object", "spec")

    def __init__(self, name: str, spec: str | None, found: Any) -> None:
        self.name = name
        self.spec = spec
        self.object = found

    def __repr__(self) -> str:
        return f"<Function {self.name!r} {'in the helper' if self.object is None else 'on the loop'}>"

    def bring_home(self) -> Any:
        """Import it here: the helper says that it is async. `AppLoadError` if that cannot be."""
        if self.object is None and self.spec is not None:
            self.object = load_object(self.spec)
        return self.object


class Registry:
    """Names are those of Python, dotted perhaps, with "-" too."""

    def __init__(self) -> None:
        self._functions: dict[str, Function] = {}

    def __repr__(self) -> str:
        return f"<Registry: {', '.join(self.names()) or 'empty'}>"

    def __len__(self) -> int:
        return len(self._functions)

    def names(self) -> list[str]:
        return sorted(self._functions)

    def add(self, name: str, function: Any, inline: bool = False) -> Function:
        """Register a function, or a class, an object or "module:name". `TypeError`/`ValueError` if it cannot be."""
        if not isinstance(name, str):
            raise TypeError(f"the name of a function is a str, not {name!r}")
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name of a function: letters, digits, '_' and '-', dotted perhaps")
        if name in self._functions:
            raise ValueError(f"a function {name!r} is registered already")
        if isinstance(function, str):
            check_name(f"function {name!r}", function)
            entry = Function(name, function, _made(load_object(function)) if inline else None)
        elif not callable(function) and not inline:
            raise TypeError(f"function {name!r} is {function!r}, which cannot be called")
        elif inline or inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            entry = Function(name, None, _made(function))
        else:
            entry = Function(name, spec_of(name, function), None)
        self._functions[name] = entry
        return entry

    def find(self, name: str) -> tuple[Function, str | None]:
        """The function of that name, and the method of it, if one is meant. `UnknownFunction` names those there are."""
        found = self._functions.get(name)
        if found is not None:
            return found, None
        base, _, method = name.rpartition(".")
        found = self._functions.get(base)
        if found is None or not method or method.startswith("_"):
            known = ", ".join(self.names()) or "none"
            raise UnknownFunction(f"the host has no function {name!r}; registered: {known}")
        return found, method


def _made(found: Any) -> Any:
    """Classes are made once."""
    return found() if isinstance(found, type) else found


def spec_of(name: str, function: Any) -> str:
    """ "module:name" of a function or class. `TypeError` says why the helper could not import it."""
    module = getattr(function, "__module__", None)
    qualname = getattr(function, "__qualname__", None)
    start = f"function {name!r} is {function!r}, and the helper process imports what it runs:"
    advice = "; put it into a module, or register it with inline=True, to run on the host's loop"
    if not isinstance(module, str) or not isinstance(qualname, str):
        raise TypeError(f"{start} this has no name there{advice}")
    if "<" in qualname:
        kind = "a lambda" if qualname.endswith("<lambda>") else "made inside a function"
        raise TypeError(f"{start} this is {kind}{advice}")
    if module == "__main__":
        raise TypeError(f"{start} this is of the program itself, not of a module{advice}")
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    if found is not function:
        raise TypeError(f"{start} {module}:{qualname} is something else{advice}")
    return f"{module}:{qualname}"
