"""A custom WSGI runner."""

from subpool.runners import default_wsgi_handler


def run_wsgi(app, environ):
    environ["custom.key"] = "value"
    status, headers, body = default_wsgi_handler(app, environ)
    return status, [*headers, ("X-Runner", "yes")], b"<" + body + b">"
