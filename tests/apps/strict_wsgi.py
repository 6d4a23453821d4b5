"""The WSGI app behind the standard library's validator."""

from wsgiref.validate import validator


def plain(environ, start_response):
    """Answers as strictly as the validator wants it."""
    length = int(environ.get("CONTENT_LENGTH") or 0)
    body = environ["wsgi.input"].read(length)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body) + 7))])
    return [b"strict ", body]


def written(environ, start_response):
    """The same with write()."""
    start_response("200 OK", [("Content-Type", "text/plain")])(b"strict ")
    return [b"writing"]


app = validator(plain)
writer = validator(written)
