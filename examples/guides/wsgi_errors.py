"""A WSGI app that turns what goes wrong into answers: the client's mistakes to 400, its own to 500.

subpool serve wsgi_errors:application --pythonpath examples/guides
curl 'http://127.0.0.1:8000/divide?a=7&b=2'
curl -i 'http://127.0.0.1:8000/divide?a=7&b=zero'
curl -i http://127.0.0.1:8000/bug
curl -i http://127.0.0.1:8000/late
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable, Iterator
from urllib.parse import parse_qs
from wsgiref.types import StartResponse, WSGIEnvironment

TEXT = [("Content-Type", "text/plain; charset=utf-8")]


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """The application: the work is in `answer`."""
    try:
        if environ["PATH_INFO"] == "/late":
            return late(start_response)
        body = answer(environ["PATH_INFO"], environ["QUERY_STRING"])
        start_response("200 OK", TEXT)
    except LookupError as error:
        start_response("404 Not Found", TEXT, sys.exc_info())
        body = f"no such thing: {error}\n"
    except (ValueError, ZeroDivisionError) as error:
        start_response("400 Bad Request", TEXT, sys.exc_info())
        body = f"{error}\n"
    except Exception:
        traceback.print_exc(file=environ["wsgi.errors"])  # for us; the client is not told
        start_response("500 Internal Server Error", TEXT, sys.exc_info())
        body = "something broke here\n"
    return [body.encode()]


def answer(path: str, query: str) -> str:
    """The answer's text, or an exception."""
    if path == "/bug":
        raise TypeError("a bug in the app")
    if path != "/divide":
        raise LookupError(path)
    given = {name: values[-1] for name, values in parse_qs(query).items()}
    if missing := {"a", "b"} - given.keys():
        raise ValueError(f"please give {' and '.join(sorted(missing))}")
    return f"{float(given['a']) / float(given['b'])}\n"


def late(start_response: StartResponse) -> Iterator[bytes]:
    """Fails when part of the body has left: too late for a 500. The server cuts the connection."""
    start_response("200 OK", TEXT)
    yield b"the first half\n"
    raise TypeError("a bug in the middle")
