"""What a request costs to pack and unpack: scope out, scope in, the answer; beside pickle and the generic path.

The generic path is what `pool.call` does with any arguments: marshalled by themselves, then inside a frame. All sides
carry the scope with 8 headers that `perf.scope` makes, and hand on what an app can use.
"""

from __future__ import annotations

import marshal
import pickle
from typing import Any

from perf import environ, scope
from perf.frame import Session, loop
from subpool.channels import frames as f
from subpool.channels.frames import decode, encode
from subpool.environ import check_environ, complete
from subpool.scope import Scopes, build_scope, pack


def out_frame(request: dict[str, Any]) -> bytes:
    return encode([(f.CALL_ASGI, 7, None, None, pack(request), b"")])


def out_generic(request: dict[str, Any]) -> bytes:
    return encode([(f.CALL_FUNCTION, 7, "perf:hello_call", marshal.dumps(((request, b""), {})))])


async def run(session: Session) -> None:
    request = scope()
    template = build_scope(request)
    framed, generic, pickled = out_frame(request), out_generic(request), pickle.dumps((request, b""), 5)
    scopes = Scopes(1, {})

    def scope_in() -> object:
        return scopes.build(decode(framed)[0][4])

    def generic_in() -> object:
        return marshal.loads(decode(generic)[0][3], allow_code=False)

    assert scope_in()["headers"] == request["headers"] == generic_in()[0][0]["headers"]  # type: ignore[index]
    await session.compare(
        "scope out",
        "A scope with 8 headers, checked and as bytes.",
        {
            "subpool": loop(lambda: out_frame(request)),
            "subpool, a template": loop(lambda: encode([(f.CALL_ASGI, 7, None, None, template.head, b"")])),
            "generic path": loop(lambda: out_generic(request)),
            "pickle": loop(lambda: pickle.dumps((request, b""), 5)),
        },
        note="The generic path and pickle check nothing.",
    )
    await session.compare(
        "scope in",
        "The same bytes as the scope that an app gets, all mutable parts its own.",
        {
            "subpool": loop(scope_in),
            "generic path": loop(generic_in),
            "pickle": loop(lambda: pickle.loads(pickled)),
        },
    )
    env = environ()
    plain, _ = check_environ(env)
    environ_bytes = encode([(f.CALL_WSGI, 7, None, None, plain, b"")])
    del env["wsgi.input"]
    environ_pickled = pickle.dumps((env, b""), 5)

    def environ_in() -> object:
        given = decode(environ_bytes)[0][4]
        return complete(given, stream=None, errors=None, multithread=False, worker=1)

    await session.compare(
        "environ in",
        "A WSGI environ as an app gets it; pickle's is without what the server adds.",
        {"subpool": loop(environ_in), "pickle": loop(lambda: pickle.loads(environ_pickled))},
    )
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"13")]
    for size, name in ((13, "13 B"), (1024, "1 KB"), (65536, "64 KB")):
        body = bytes(size)
        large = size >= f.LOAN_SIZE

        def ours(body: bytes = body, large: bool = large) -> object:
            frame = decode(encode([(f.REPLY, 7, 200, headers, f.LOAN if large else body)]))[0]
            return bytes(memoryview(body)) if large else frame[4]

        def theirs(body: bytes = body) -> object:
            return pickle.loads(pickle.dumps((200, headers, body), 5))

        def plainly(body: bytes = body) -> object:
            data = encode([(f.REPLY, 7, 0, None, marshal.dumps((200, headers, body)))])
            return marshal.loads(decode(data)[0][4], allow_code=False)

        await session.compare(
            f"answer {name}",
            f"Status, 2 headers and a body of {name}, out and in.",
            {"subpool": loop(ours), "generic path": loop(plainly), "pickle": loop(theirs)},
            note="The body is a loan: the reader's copy is counted, the queue is not." if large else "",
        )
