"""An app that fails in every way that tests of faults ask for; and a journal of what it has begun.

A line of the file FAULTS_JOURNAL is "NUMBER PID TOKEN": request /id/NUMBER was begun by that copy of the app.
"""

import asyncio
import os
import re
import threading
import time

TOKEN = os.urandom(6).hex()  # of this copy of the app
JOURNAL = os.environ.get("FAULTS_JOURNAL")
FILE = os.open(JOURNAL, os.O_WRONLY | os.O_APPEND | os.O_CREAT) if JOURNAL else None
WAYS = {}


def way(function):
    """A way to fail, by the name of its path. Some never come back; none of them lasts longer than its server."""
    WAYS[f"/{function.__name__}"] = function
    return function


@way
def spin():
    while True:
        pass


@way
def deaf():
    """Swallow whatever is raised here."""
    for _ in range(1000):  # it may strike between the lines of the inner layer
        try:
            _deaf()
        except BaseException:
            continue


def _deaf():
    while True:
        try:
            while True:
                pass
        except BaseException:
            continue


@way
def sleep():
    time.sleep(60)


@way
def lock():
    one = threading.Lock()
    one.acquire()
    one.acquire()


@way
def gil():
    """A C call of minutes that never gives up the GIL."""
    re.match("(x+x+)+y", "x" * 34)


@way
def leave():
    """An ordinary thread stays behind."""
    threading.Thread(target=time.sleep, args=(60,), name="left-behind").start()


@way
def end():
    raise SystemExit(3)


@way
def abort():
    os.abort()


def note(path):
    if FILE is not None:
        os.write(FILE, f"{path.rpartition('/')[2]} {os.getpid()} {TOKEN}\n".encode())


async def app(scope, receive, send):
    """/id/NUMBER?SECONDS answers after so long, which it waits; a path in `WAYS` fails; all else answers at once."""
    path = scope["path"]
    if path.startswith("/id/"):
        note(path)
    if scope["query_string"]:
        await asyncio.sleep(float(scope["query_string"]))
    if path in WAYS:
        WAYS[path]()
    body = f"{os.getpid()} {TOKEN}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


def wsgi(environ, start_response):
    """The same, but for the wait."""
    path = environ["PATH_INFO"]
    if path.startswith("/id/"):
        note(path)
    if path in WAYS:
        WAYS[path]()
    body = f"{os.getpid()} {TOKEN}".encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
