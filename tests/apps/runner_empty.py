"""A module that is no runner: it has no run_asgi and no run_wsgi."""
