"""Runners: how a worker calls an application, and the default handlers that custom runners call.

    from subpool.runners import default_asgi_handler, default_wsgi_handler

Both names load on first use (PEP 562), so that a worker which serves WSGI alone never loads the ASGI runner.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .asgi import run_asgi as default_asgi_handler
    from .wsgi import run_wsgi as default_wsgi_handler

__all__ = ["default_asgi_handler", "default_wsgi_handler"]


def __getattr__(name: str) -> object:
    """Load the handler `name` on its first use. Raises AttributeError for any other name."""
    handler: object
    if name == "default_wsgi_handler":
        from .wsgi import run_wsgi

        handler = run_wsgi
    elif name == "default_asgi_handler":
        from .asgi import run_asgi

        handler = run_asgi
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = handler
    return handler


def __dir__() -> list[str]:
    """The names this package offers, loaded or not."""
    return sorted({*globals(), *__all__})
