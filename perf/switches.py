"""Optimisations one by one, on and off: the claims of erlang_python's guide line by line, then our own.

Its guide "Web Framework Integration" names ten, with the gain of each. Where we do the same, it is switched off;
where we do not, it is built here as far as it goes in Python, and set beside what we do. A switch is a patch of this
benchmark (`perf.off`), never an option of the product. Workers are patched through `preload`, the host while a turn
lasts. A gain is read as "x % more requests in the same time".
"""

from __future__ import annotations

import contextlib
import marshal
from collections.abc import Callable
from typing import Any, Final

import runners.asgi
from perf import KIB, MIB, scope
from perf.calls import direct_asgi, pool_of
from perf.frame import Session, Turn, awaited, loop, patched_turn
from perf.load import wrk
from perf.off import Forgetful
from perf.peers import Peer
from perf.servers import compare, serving
from subpool import link, wire
from subpool import scope as scopes
from subpool.channels import exchange
from subpool.channels import frames as f
from subpool.channels.frames import decode, encode
from subpool.worker.http import split

LINES: Final = b"".join(b"%s: %s\r\n" % (name.title(), value) for name, value in scope()["headers"]) + b"\r\n"
ON, OFF = "on", "off"


async def run(session: Session) -> None:
    await scope_pieces(session)
    await answer_pieces(session)
    await whole_calls(session)
    await bodies(session)
    await header_blocks(session)


async def scope_pieces(session: Session) -> None:
    """Interned keys, scope templates, names of headers, lazy headers."""
    request = scope()
    pairs = list(request.items())
    encoded = [(key.encode(), value) for key, value in pairs]

    def read(made: dict[str, Any]) -> object:
        return (made["type"], made["method"], made["path"], made["headers"], made["query_string"], made["client"])

    await session.compare(
        "interned keys",
        "A scope made of its fields, six of which the app reads: keys that are there, or made anew from bytes.",
        {
            ON: loop(lambda: read(dict(pairs))),
            OFF: loop(lambda: read({key.decode(): value for key, value in encoded})),
        },
    )
    built = scopes.Scopes(1, {})
    forgetting = scopes.Scopes(1, {})
    forgetting._templates = Forgetful()  # type: ignore[assignment]

    def way(made: scopes.Scopes) -> Callable[[], object]:
        return lambda: made.build(decode(encode([(f.CALL_ASGI, 1, None, None, scopes.pack(request), b"")]))[0][4])

    await session.compare(
        "scope templates",
        "A scope packed, framed and built again: the static part from a template, or anew on both sides.",
        {ON: loop(way(built)), OFF: patched_turn(loop(way(forgetting)), (scopes, "_blobs", Forgetful()))},
    )
    names = {name.title(): name for name, _ in request["headers"]}
    rows = [line.partition(b":") for line in LINES.rstrip().split(b"\r\n")]
    await session.compare(
        "common header names",
        "The names of 8 headers in lower case: looked up in a table of names, or made anew.",
        {
            ON: loop(lambda: [(names.get(name) or name.lower(), value.strip()) for name, _, value in rows]),
            OFF: loop(lambda: [(name.lower(), value.strip()) for name, _, value in rows]),
        },
        note="We have no such table: whole blocks of lines are remembered instead, see “header blocks”.",
    )
    await session.compare(
        "lazy headers",
        "An app that never looks at its 8 headers: not split at all (the most that laziness gains), or at once.",
        {ON: loop(lambda: (built.build(scopes.pack(request)), LINES)),
         OFF: loop(lambda: (built.build(scopes.pack(request)), split(LINES)))},
        note="ASGI wants a list of pairs, so we split at once; blocks that are known are not split again.",
    )  # fmt: skip


async def answer_pieces(session: Session) -> None:
    """Pooled responses, extraction, statuses."""
    spare: list[runners.asgi.Buffered] = []
    plain = runners.asgi.Buffered

    def pooled(method: str, body: bytes) -> runners.asgi.Buffered:
        if not spare:
            spare.append(plain(method, body))
        found = spare[0]
        found.__init__(method, body)  # type: ignore[misc]
        found.state = exchange.START
        return found

    direct = direct_asgi()
    await session.compare(
        "response pooling",
        "Hello through the default runner: its exchange taken from a pool, or made anew (which is what we do).",
        {ON: patched_turn(direct, (runners.asgi, "Buffered", pooled)), OFF: direct},
    )
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"13")]

    def messages() -> list[dict[str, Any]]:
        return [{"type": "http.response.start", "status": 200, "headers": headers},
                {"type": "http.response.body", "body": b"Hello, World!"}]  # fmt: skip

    def extracted() -> object:
        start, end = messages()
        return decode(encode([(f.REPLY, 1, start["status"], start["headers"], end["body"])]))[0]

    def generic() -> object:
        start, end = marshal.loads(decode(encode([(f.REPLY, 1, 0, None, marshal.dumps(messages()))]))[0][4])
        return start["status"], start["headers"], end["body"]

    await session.compare(
        "direct response extraction",
        "An answer out and in: as status, headers and body, or as the app's messages, taken apart by the host.",
        {ON: loop(extracted), OFF: loop(generic)},
    )

    def head() -> object:
        block = wire.block(headers)
        block.made_of = None
        return wire.whole(wire.KEEP_ALIVE, True, b"", wire.status_line(200), block, 13)

    turn = loop(head)
    await session.compare(
        "cached statuses",
        "The head of an HTTP/1.1 answer: its status line remembered, or made anew.",
        {ON: turn, OFF: patched_turn(turn, (wire, "_lines", Forgetful()))},
    )
    await session.compare(
        "answer header blocks",
        "The same: headers that were seen before known with their bytes, or checked and serialised anew.",
        {ON: turn, OFF: patched_turn(turn, (wire, "_blocks", Forgetful()), (exchange, "_checked", Forgetful()))},
    )


async def whole_calls(session: Session) -> None:
    """What is switched in workers: 64 calls of hello in flight."""
    request = scope()
    never, always = (link, "CALM", float("inf")), (link, "CALM", 0)
    async with contextlib.AsyncExitStack() as stack:

        async def calls(*preload: str) -> Turn:
            pool = await stack.enter_async_context(pool_of(session, "hello", preload=list(preload)))
            return awaited(lambda: pool.run_asgi(request))

        pool = await stack.enter_async_context(pool_of(session, "hello"))
        await session.compare(
            "direct path",
            "Hello: run_asgi, or pool.call of the same runner.",
            {
                ON: awaited(lambda: pool.run_asgi(request)),
                OFF: awaited(lambda: pool.call("perf:hello_run", request, b"")),
            },
            seconds=0.4,
        )
        plain = await calls()
        await session.compare(
            "batching",
            "Hello: up to 4 calls and 8 answers an item, or one each.",
            {
                ON: patched_turn(await calls("perf.off.calm"), always),
                OFF: patched_turn(await calls("perf.off.batching"), never),
            },
            seconds=0.4,
            note="A worker of ours begins to batch after 20,000 calls without a long one; here at once.",
        )
        await session.compare(
            "eager tasks",
            "Hello: the app begins where the call is read, or in the next turn of the worker's loop.",
            {ON: plain, OFF: await calls("perf.off.eager")},
            seconds=0.4,
            note="A task that is not over when it was made is told to the host: off costs that frame too.",
        )
        await session.compare(
            "scope templates, whole calls",
            "Hello: scopes from templates, or made anew on both sides.",
            {ON: plain, OFF: patched_turn(await calls("perf.off.templates"), (scopes, "_blobs", Forgetful()))},
            seconds=0.4,
        )


async def bodies(session: Session) -> None:
    """From which size on a body is lent instead of copied."""
    patches = {"from 16 KB": 16 * KIB, "from 1 KB": KIB, "never": 2**62}
    modules = {"from 16 KB": (), "from 1 KB": ("perf.off.loans_early",), "never": ("perf.off.loans",)}
    async with contextlib.AsyncExitStack() as stack:
        pools = {
            name: await stack.enter_async_context(pool_of(session, "app", preload=list(modules[name])))
            for name in patches
        }
        for label, size in (("1 KB", KIB), ("4 KB", 4 * KIB), ("16 KB", 16 * KIB), ("64 KB", 64 * KIB), ("1 MB", MIB)):
            request = scope("/big", b"%d" % size)
            turns = {}
            for name, least in patches.items():

                def call(pool: Any = pools[name], request: Any = request) -> Any:
                    return pool.run_asgi(request)

                turns[name] = patched_turn(awaited(call, 8), (f, "LOAN_SIZE", least))
            title = f"An answer of {label}, 8 in flight: lent, or copied into its frame."
            await session.compare(f"lent bodies, {label}", title, turns, seconds=0.3)


async def header_blocks(session: Session) -> None:
    """Request headers known by their bytes, through the whole server."""
    name = "header blocks"
    if not session.wanted(name):
        return
    options = ("--no-guard",)
    peers = {
        ON: Peer("subpool", workers=session.workers, isolation=session.isolation, options=options),
        OFF: Peer(
            "subpool", workers=session.workers, isolation=session.isolation, options=options, module="perf.off.heads"
        ),
    }

    def load(server: Any, seconds: float) -> Any:
        return wrk(server, "/hello", seconds, send=("headers",))

    title = "Hello through the server, 8 headers, always the same: known by their bytes, or parsed anew."
    async with serving(session, peers) as (servers, left):
        await compare(session, name, title, servers, left, load)
