"""What runs in workers and uses the host's functions and topics: an ASGI app, a WSGI app, functions of `pool.call`."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

from gates import signal

import subpool
from subpool import pubsub

STARTED: list[Any] = []


def counts() -> tuple[int, int, list[str]]:
    """What this worker has under way: calls to the host, subscribers, threads of its app."""
    from subpool import here

    service = here.worker().service()
    own = threading.current_thread(), threading.main_thread()
    apps = [one.name for one in threading.enumerate() if one not in own and one.name.startswith("Thread-")]
    return len(service), len(service.topics), apps


def worker() -> int:
    from subpool import here

    return int(here.worker().id)


# calls


def ask(*args: Any, **kwargs: Any) -> Any:
    return subpool.call(*args, **kwargs)


async def aask(*args: Any, **kwargs: Any) -> Any:
    return await subpool.acall(*args, **kwargs)


def ask_on_thread(*args: Any, **kwargs: Any) -> Any:
    answers: list[Any] = []

    def run() -> None:
        try:
            answers.append(subpool.call(*args, **kwargs))
        except subpool.SubpoolError as error:
            answers.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if isinstance(answers[0], Exception):
        raise answers[0]
    return answers[0]


async def ask_many(name: str, count: int) -> list[Any]:
    return await asyncio.gather(*(subpool.acall(name, number) for number in range(count)))


def cast(*args: Any, **kwargs: Any) -> None:
    subpool.cast(*args, **kwargs)


async def give_up(seconds: float, name: str, *args: Any, **kwargs: Any) -> str:
    task = asyncio.create_task(subpool.acall(name, *args, **kwargs))
    await asyncio.sleep(seconds)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return "cancelled"
    return "ended"


def nodes() -> list[str]:
    return subpool.nodes()


async def anodes() -> list[str]:
    return await subpool.anodes()


def counted(key: str, times: int) -> int:
    from subpool import state

    return [state.incr(key) for _ in range(times)][-1]


def wrong(what: str) -> str:
    """A call that cannot be made; what it raised."""
    loop: list[Any] = []
    loop.append(loop)
    made: dict[str, Any] = {
        "name": lambda: subpool.call(7),  # type: ignore[arg-type]
        "object": lambda: subpool.call("iadd", 1, object()),
        "keyword": lambda: subpool.call("iadd", a=1, b=print),
        "timeout": lambda: subpool.call("iadd", 1, timeout=0),
        "huge": lambda: subpool.call("iadd", b"x" * 65 * 2**20),
        "deep": lambda: subpool.call("iadd", _deep()),
        "itself": lambda: subpool.call("size", loop),
        "message": lambda: pubsub.publish("topic", [object()]),
        "topic": lambda: pubsub.publish(7, 1),  # type: ignore[arg-type]
        "large": lambda: pubsub.publish("topic", b"x" * 17 * 2**20),
        "queue": lambda: pubsub.subscribe("topic", queue=0),
    }
    try:
        return repr(made[what]())
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _deep() -> Any:
    value: Any = []
    for _ in range(5000):
        value = [value]
    return value


# streams


def read(name: str, *args: Any, most: int = 10**9, **kwargs: Any) -> list[Any]:
    items = []
    with subpool.stream(name, *args, **kwargs) as stream:
        for item in stream:
            items.append(item)
            if len(items) == most:
                break
    return items


async def aread(name: str, *args: Any, most: int = 10**9, **kwargs: Any) -> list[Any]:
    items: list[Any] = []
    async with subpool.astream(name, *args, **kwargs) as stream:
        async for item in stream:
            items.append(item)
            if len(items) == most:
                break
    return items


def drop(name: str, *args: Any) -> Any:
    """Read one item, and let go of the stream."""
    return next(subpool.stream(name, *args))


async def read_slowly(path: str, name: str, *args: Any) -> int:
    """Read one item and no more, until the test has looked."""
    from gates import wait

    async with subpool.astream(name, *args) as stream:
        first = await anext(stream)
        await wait(path)
        return int(first)


# topics


async def publish(topic: str, *messages: Any) -> list[int]:
    return [await pubsub.apublish(topic, message) for message in messages]


def publish_blocking(topic: str, *messages: Any) -> list[int]:
    return [pubsub.publish(topic, message) for message in messages]


async def hear(topic: str, count: int, subscribers: int = 1, ready: str = "ready") -> list[list[Any]]:
    """What each of some subscribers heard."""

    async def one() -> list[Any]:
        heard = []
        async with pubsub.subscribe(topic) as messages:
            await pubsub.apublish(ready, topic)
            async for message in messages:
                heard.append(message)
                if len(heard) == count:
                    return heard
        return heard

    return list(await asyncio.gather(*(one() for _ in range(subscribers))))


def hear_blocking(topic: str, count: int, ready: str = "ready") -> list[Any]:
    heard = []
    with pubsub.subscribe(topic) as messages:
        pubsub.publish(ready, topic)
        for message in messages:
            heard.append(message)
            if len(heard) == count:
                break
    return heard


def hear_nothing(topic: str) -> str:
    with pubsub.subscribe(topic) as messages:
        try:
            messages.get(timeout=0.05)
        except TimeoutError as error:
            return str(error)
    return "?"


def hear_on_thread(topic: str, count: int, ready: str = "ready") -> list[Any]:
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.extend(hear_blocking(topic, count, ready)))
    thread.start()
    thread.join()
    return answers


async def hear_late(topic: str, queue: int, until: Any, path: str, ready: str = "ready") -> tuple[int, int]:
    """Subscribe, hold the loop until the test says so, then read to a message: how many came, and were lost."""
    from gates import block

    async with pubsub.subscribe(topic, queue=queue) as messages:
        await pubsub.apublish(ready, topic)
        await asyncio.sleep(0.01)
        block(path)
        count = 0
        async for message in messages:
            count += 1
            if message == until:
                break
        return count, messages.lost


async def abandon(topic: str) -> int:
    """Begin subscriptions in all ways, and end none of them."""
    held = pubsub.subscribe(topic)
    await held.__aenter__()
    STARTED.append(held)  # held beyond the task, which ends it all the same
    async for _ in pubsub.subscribe(topic):
        break
    return 1


async def hear_for_ever(topic: str) -> None:
    """In a task that outlives the call, as an app's own background task does."""

    async def hear() -> None:
        async for _ in pubsub.subscribe(topic):
            pass

    STARTED.append(asyncio.create_task(hear()))


def abandon_blocking(topic: str) -> None:
    subscription = pubsub.subscribe(topic)
    subscription.__enter__()


# apps


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Its lifespan asks the host too; `/started` tells what that brought. `/call?name` holds the loop in a call."""
    if scope["type"] == "lifespan":
        assert (await receive())["type"] == "lifespan.startup"
        STARTED.append(await subpool.acall("iadd", 20, 22))
        STARTED.append(subpool.call("iadd", 1, 2))
        await send({"type": "lifespan.startup.complete"})
        assert (await receive())["type"] == "lifespan.shutdown"
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["path"] == "/started":
        body = repr(STARTED[:2])
    elif scope["path"].endswith("/call"):
        body = repr(subpool.call(scope["query_string"].decode()))
    else:
        body = "hello"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body.encode()})


def wsgi(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """`/call?name`, `/far?node+name` (of another host), `/loop?name` (in an event loop of its own), `/hear?topic` (the
    next message), `/count?name` (a stream's sum)."""
    name = environ["QUERY_STRING"]
    path = environ["PATH_INFO"]
    if path == "/call":
        answer = subpool.call(name)
    elif path == "/far":
        node, _, name = name.partition("+")
        answer = subpool.call(name, node=node)
    elif path == "/loop":
        answer = asyncio.run(_loop(name))
    elif path == "/hear":
        answer = hear_blocking(name, 1)
    elif path == "/count":
        answer = sum(subpool.stream("count", int(name)))
    else:
        answer = "hello"
    start_response("200 OK", [])
    return [repr(answer).encode()]


async def _loop(name: str) -> Any:
    async with pubsub.subscribe("own") as messages:
        reached = await pubsub.apublish("own", 5)
        return await subpool.acall(name), reached, await anext(messages)


def late(path: str) -> float:
    signal(path)
    return time.monotonic()
