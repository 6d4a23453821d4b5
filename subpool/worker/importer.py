"""Finding an app by its name, and telling why it cannot be had.

Names are those of uvicorn and gunicorn: "module:callable", dotted attributes ("module:api.app"), factories
("module:make()").
"""

from __future__ import annotations

import importlib
import inspect  # asyncio has it loaded already
import re
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any

from ..errors import AppError, AppLoadError, NotIsolatable, RunnerError, SubpoolError, UnknownFunction

_REFUSALS = (
    (ImportError, re.compile(r"module (\S+) does not support loading in subinterpreters")),
    (
        ImportError,
        re.compile(r"Interpreter change detected|subinterpreters are not supported|sub-?interpreters"),
    ),
    (RuntimeError, re.compile(r"daemon threads are (?:disabled|not supported|not allowed)")),
    (RuntimeError, re.compile(r"(?:thread|fork|exec) (?:is )?not supported for isolated subinterpreters")),
    (RuntimeError, re.compile(r"fork not supported")),
    (ValueError, re.compile(r"signal only works in main thread of the main interpreter")),
)


def load_object(name: str) -> Any:
    """What `name` says. `AppLoadError` with the cause if there is no such thing, or `NotIsolatable`."""
    module_name, _, attributes = name.partition(":")
    called = attributes.endswith("()")
    path = attributes.removesuffix("()")
    if not module_name or not path:
        raise AppLoadError(f"{name!r} is no app name: write 'module:callable' (or 'module:factory()')")
    try:
        found: Any = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise load_failure(f"cannot import {module_name!r}", error, f"(for {name!r})") from error
    for attribute in path.split("."):
        try:
            found = getattr(found, attribute)
        except AttributeError:
            names = (
                ", ".join(sorted(n for n in vars(found) if not n.startswith("_"))[:12])
                if hasattr(found, "__dict__")
                else ""
            )
            hint = f"; it has {names}" if names else ""
            raise AppLoadError(f"{module_name!r} has no attribute {path!r} (for {name!r}){hint}") from None
    if called:
        try:
            found = found()
        except (Exception, SystemExit) as error:
            raise load_failure(f"the factory {name!r} failed", error) from error
    if not callable(found):
        raise AppLoadError(f"{name!r} is {type(found).__name__}, which is not callable")
    return found


def method_of(found: Any, name: str, method: str | None) -> Any:
    """What is to be called of a registered object. `UnknownFunction` if it is not there."""
    function = found if method is None else getattr(found, method, None)
    if callable(function):
        return function
    public = [one for one in dir(type(found)) if not one.startswith("_") and callable(getattr(found, one, None))]
    what = "cannot be called itself" if method is None else f"has no method {method!r}"
    raise UnknownFunction(f"{name!r} {what}; its methods: {', '.join(public) or 'none'}")


def load_runner(module_name: str, function: str) -> Callable[..., Any]:
    """`function` of the runner module. `RunnerError` names the module if there is none."""
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise RunnerError(f"there is no runner module {module_name!r}") from None
        raise RunnerError(f"runner module {module_name!r} cannot be imported: {error}") from error
    except Exception as error:
        raise RunnerError(
            f"runner module {module_name!r} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    found = getattr(module, function, None)
    if not callable(found):
        raise RunnerError(f"runner module {module_name!r} has no function {function!r}")
    return found  # type: ignore[no-any-return]


def interface_of(app: Any) -> str:
    """ "asgi" if calling `app` gives a coroutine, else "wsgi" (uvicorn's rule)."""
    if isinstance(app, type):
        return "asgi" if hasattr(app, "__await__") else "wsgi"
    call = getattr(app, "__call__", None)  # noqa: B004  the method itself is looked at, not whether there is one
    return "asgi" if inspect.iscoroutinefunction(app) or inspect.iscoroutinefunction(call) else "wsgi"


def load_failure(what: str, error: BaseException, where: str = "") -> SubpoolError:
    """`error`, met while loading, as `NotIsolatable` or `AppLoadError` with its traceback."""
    refused = refusal(error)
    if refused is not None:
        return refused
    suffix = f" {where}" if where else ""
    return AppLoadError(f"{what}{suffix}: {type(error).__name__}: {error}", traceback_text(error))


def refusal(error: BaseException | None) -> NotIsolatable | None:
    """`error` as `NotIsolatable` if it, or what caused it, is a refusal of isolated interpreters; else None."""
    seen: set[int] = set()
    top = error
    pending = [error]
    while pending:
        error = pending.pop()
        if error is None or id(error) in seen:
            continue
        seen.add(id(error))
        for kind, pattern in _REFUSALS:
            if isinstance(error, kind) and (match := pattern.search(str(error))):
                module = match[1] if match.lastindex else ""
                chain = _chain(error.__traceback__)
                through = f", imported through {' > '.join(chain)}" if chain else ""
                cause = f"extension module {module}" if module else f"{type(error).__name__}: {error}"
                return NotIsolatable(
                    f'refused in an isolated sub-interpreter: {cause}{through}; run it with isolation="process"',
                    traceback_text(top) if top else "",
                    module,
                    chain,
                )
        pending += [error.__cause__, error.__context__]
        if isinstance(error, BaseExceptionGroup):
            pending += error.exceptions
    return None


def _chain(traceback: TracebackType | None) -> tuple[str, ...]:
    """The modules whose bodies were running, outermost first."""
    chain: list[str] = []
    while traceback is not None:
        frame = traceback.tb_frame
        if frame.f_code.co_name == "<module>":
            name = frame.f_globals.get("__name__", "?")
            if not chain or chain[-1] != name:
                chain.append(name)
        traceback = traceback.tb_next
    return tuple(chain)


_OWN = tuple(part for part in (__file__.rsplit("worker", 1)[0], "<frozen importlib") if part)


def traceback_text(error: BaseException) -> str:
    """The traceback of `error` as text, from the first frame that is not ours."""
    import traceback

    start = error.__traceback__
    at = start
    while at is not None and at.tb_frame.f_code.co_filename.startswith(_OWN):
        at = at.tb_next
    return "".join(traceback.format_exception(type(error), error, at or start))


def as_app_error(error: BaseException) -> SubpoolError:
    """What the caller is told of `error`, which the app raised."""
    if isinstance(error, SubpoolError) and not isinstance(error, OSError):
        return error
    refused = refusal(error) if isinstance(error, (ImportError, RuntimeError, ValueError)) else None
    if refused is not None:
        return refused
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return AppError(name, _text(error), traceback_text(error))


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as second:
        return f"<str() of it raised {type(second).__name__}>"


def extend_path(entries: list[str], venv: str | None) -> None:
    """Put `entries` first on `sys.path`, and the packages of `venv` (a directory) behind the rest."""
    for entry in reversed(entries):
        if entry not in sys.path:
            sys.path.insert(0, entry)
    if venv:
        import site

        version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
        site.addsitedir(f"{venv}/lib/{version}{getattr(sys, 'abiflags', '')}/site-packages")
        site.addsitedir(f"{venv}/lib/{version}/site-packages")
