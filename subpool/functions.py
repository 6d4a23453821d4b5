"""Functions of the host, called by name from the code in a worker.

    from subpool import acall, call

    vector = call("embed", text)            # WSGI: the thread waits
    vector = await acall("embed", text)     # ASGI
    vector = call("embed", text, node="gpu-1")   # of another host, by the Redis of the option `bus`

Who registers them: `Pool.register`, the server's option `functions`. Arguments, answers and items are plain data (see
`subpool.plain`). What is raised, by all of these: `UnknownFunction`; `AppError` with the type name and text of what the
function raised; `PoolTimeout` after `timeout` seconds; `WorkerLost` if the helper process died meanwhile;
`PoolOverloaded`, `PoolClosed`; `TypeError` for what is no plain data; `RuntimeError` outside of workers. With `node`,
the name of another host (its option `node`), also `UnknownNode`; `NodeLost` if it went meanwhile; `BusUnavailable`.
"""

from __future__ import annotations

from typing import Any, Final, Self

from . import here
from .channels import frames as f
from .plain import check_seconds, check_target, pack_arguments, unpack
from .worker.inlet import Bell, Inlet, LoopBell, OwnBell, ThreadBell
from .worker.services import Services, answer

AHEAD: Final = 16  # items of a stream that are sent before the reader has taken them


def _packed(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], timeout: Any, node: Any) -> bytes:
    if not isinstance(function, str):
        raise TypeError(f"a function of the host is called by its name, a str, not {function!r}")
    if node is not None:
        check_target(node)
    check_seconds(timeout)
    return pack_arguments(function, args, kwargs)


def call(function: str, /, *args: Any, timeout: float | None = None, node: str | None = None, **kwargs: Any) -> Any:
    """Call a function of the host; its answer. The thread waits, so in async code use `acall`.

    `timeout` is in seconds; without it the request's own limit ends the wait.
    """
    arguments = _packed(function, args, kwargs, timeout, node)
    return unpack(here.worker().service().call(function, arguments, timeout, node))


async def acall(
    function: str, /, *args: Any, timeout: float | None = None, node: str | None = None, **kwargs: Any
) -> Any:
    """The same for async code. Cancelling it cancels the function too, as far as that can be."""
    arguments = _packed(function, args, kwargs, timeout, node)
    return unpack(await here.worker().service().acall(function, arguments, timeout, node))


def cast(function: str, /, *args: Any, node: str | None = None, **kwargs: Any) -> None:
    """Have a function of the host called, and wait for nothing. What goes wrong is logged on the host."""
    arguments = _packed(function, args, kwargs, None, node)
    here.worker().service().ask(Inlet(None), function, arguments, f.CAST | f.BLOCKED, 0, node)


def stream(
    function: str, /, *args: Any, timeout: float | None = None, node: str | None = None, **kwargs: Any
) -> Stream:
    """The items of a generator on the host (or of whatever it answers that can be iterated), as an iterator.

    A reader that is slow holds the generator back. `timeout`: seconds for each item. Ended early (`close`, the end of a
    `with` block, nobody who holds it) the generator is closed.
    """
    return Stream(function, _packed(function, args, kwargs, timeout, node), timeout, node)


def astream(
    function: str, /, *args: Any, timeout: float | None = None, node: str | None = None, **kwargs: Any
) -> AsyncStream:
    """The same as an async iterator."""
    return AsyncStream(function, _packed(function, args, kwargs, timeout, node), timeout, node)


def nodes() -> list[str]:
    """The names of the hosts that live and can be called, this one's too. The thread waits. `BusUnavailable`."""
    return here.worker().service().nodes()  # type: ignore[no-any-return]


async def anodes() -> list[str]:
    """The same for async code."""
    return await here.worker().service().anodes()  # type: ignore[no-any-return]


class _Reader:
    """One stream as its reader has it. Nothing is asked before the first item is."""

    def __init__(self, function: str, arguments: bytes, timeout: float | None, node: str | None) -> None:
        self._over = False
        self._number = 0
        self._function = function
        self._arguments = arguments
        self._timeout = timeout
        self._node = node
        self._inlet: Inlet | None = None
        self._taken = 0
        self._service: Services = here.worker().service()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._function!r}{' over' if self._over else ''}>"

    def _open(self, bell: Bell, how: int) -> Inlet:
        inlet = Inlet(bell)
        self._number = self._service.ask(inlet, self._function, self._arguments, how | f.STREAM, AHEAD, self._node)
        self._inlet = inlet
        return inlet

    def _next(self, inlet: Inlet) -> Any:
        """The item that is there; at the end `EOFError`."""
        if inlet.items:
            item = unpack(inlet.items.popleft())
            self._taken += 1
            if self._taken >= AHEAD // 2 and not inlet.over:
                taken, self._taken = self._taken, 0
                self._service.more(self._number, taken)
            return item
        self._over = True
        answer(inlet)
        raise EOFError

    def _close(self) -> None:
        if not self._over:
            self._over = True
            if self._number:
                self._service.unask(self._number)

    def __del__(self) -> None:
        if not self._over and self._number:
            self._service.forget(self._number)


class Stream(_Reader):
    """What `stream` gives: an iterator, and a context manager."""

    _bell: ThreadBell | OwnBell | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        if self._over:
            raise StopIteration
        inlet = self._inlet
        if inlet is None or self._bell is None:
            self._bell, how = self._service.thread_bell()
            inlet = self._open(self._bell, how)
        try:
            self._service.block(inlet, self._bell, self._function, self._timeout, self._node)
            return self._next(inlet)
        except EOFError:
            raise StopIteration from None
        except BaseException:
            self._close()
            raise

    def close(self) -> None:
        """End the stream and close the generator. A second call does nothing."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._close()


class AsyncStream(_Reader):
    """What `astream` gives: an async iterator, and an async context manager."""

    _bell: LoopBell | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        if self._over:
            raise StopAsyncIteration
        inlet = self._inlet
        if inlet is None or self._bell is None:
            self._bell, how = self._service.loop_bell()
            inlet = self._open(self._bell, how)
        try:
            await self._service.wait(inlet, self._bell, self._function, self._timeout, self._node)
            return self._next(inlet)
        except EOFError:
            raise StopAsyncIteration from None
        except BaseException:
            self._close()
            raise

    async def aclose(self) -> None:
        """End the stream and close the generator. A second call does nothing."""
        self._close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._close()
