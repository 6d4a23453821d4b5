"""Runners that answer without the app, and one that fails."""


async def run_asgi(app, scope, body):
    if scope["path"] == "/fail":
        raise LookupError("the runner failed")
    if scope["path"] == "/wrong":
        return "not a triple"
    return 299, [(b"x-len", b"%d" % len(body))], b"no app"


def run_wsgi(app, environ):
    if environ["PATH_INFO"] == "/fail":
        raise LookupError("the runner failed")
    if environ["PATH_INFO"] == "/wrong":
        return "not a triple"
    return "299 Own", [("X-Own", "yes")], b"no app"
