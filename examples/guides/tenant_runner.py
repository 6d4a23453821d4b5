"""A custom runner, for ASGI and for WSGI: finds out whose request it is, tells the app, and marks the answer.

The worker imports it by its name; see custom_runners.py.

python examples/guides/custom_runners.py
"""

from __future__ import annotations

from typing import Any

from subpool.runners import default_asgi_handler, default_wsgi_handler


async def run_asgi(app: Any, scope: dict[str, Any], body: bytes) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Stands between the worker and an ASGI app."""
    name = tenant(dict(scope["headers"]).get(b"host", b"").decode("latin-1"))
    scope["state"]["tenant"] = name
    status, headers, body = await default_asgi_handler(app, scope, body)
    return status, [*headers, (b"x-tenant", name.encode())], body


def run_wsgi(app: Any, environ: dict[str, Any]) -> tuple[str, list[tuple[str, str]], bytes]:
    """The same for a WSGI app."""
    name = environ["example.tenant"] = tenant(environ.get("HTTP_HOST", ""))
    status, headers, body = default_wsgi_handler(app, environ)
    return status, [*headers, ("X-Tenant", name)], body


def tenant(host: str) -> str:
    """The first part of the host's name; "nobody" where it has but one."""
    name, dot, _ = host.partition(".")
    return name if dot and name.isalnum() else "nobody"
