"""The lifespan runner against ASGI Lifespan 2.0, in its three modes."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from typing import TYPE_CHECKING, Any

import pytest
from subpool.runners.lifespan import Lifespan

from subpool.errors import AppLoadError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = pytest.mark.anyio
MODES = ["auto", "on"]


@pytest.fixture(autouse=True)
def _log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "subpool.lifespan")


def records(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    return [(r.levelno, r.getMessage()) for r in caplog.records if r.name == "subpool.lifespan"]


def tasks() -> set[asyncio.Task[Any]]:
    return {task for task in asyncio.all_tasks() if task.get_name() == "subpool-lifespan"}


async def settle() -> None:
    """Let tasks that were cancelled end."""
    for _ in range(5):
        await asyncio.sleep(0)


class App:
    """A whole application that keeps what happened in `events`."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scope = scope
        self.events.append((await receive())["type"])
        scope["state"]["db"] = "open"
        await send({"type": "lifespan.startup.complete"})
        self.events.append((await receive())["type"])
        await send({"type": "lifespan.shutdown.complete"})
        self.events.append("end")


@pytest.mark.parametrize("mode", MODES)
async def test_whole_life(mode: str, caplog: pytest.LogCaptureFixture) -> None:
    app = App()
    lifespan = Lifespan(app, mode)
    assert await lifespan.startup() == {"db": "open"}
    assert app.scope["type"] == "lifespan"
    assert app.scope["asgi"] == {"version": "3.0", "spec_version": "2.0"}
    assert app.events == ["lifespan.startup"]
    assert "running" in repr(lifespan)
    await lifespan.shutdown()
    await lifespan.shutdown()  # the second does nothing
    assert app.events == ["lifespan.startup", "lifespan.shutdown", "end"]
    assert not tasks()
    assert records(caplog) == []
    with pytest.raises(RuntimeError, match="already"):
        await lifespan.startup()


async def test_off_never_calls() -> None:
    lifespan = Lifespan(App(), "off")
    assert await lifespan.startup() == {}
    await lifespan.shutdown()
    assert not tasks()


def test_a_wrong_mode() -> None:
    with pytest.raises(ValueError, match="lifespan must be one of auto, on, off"):
        Lifespan(App(), "maybe")


async def refuses(scope: Any, receive: Any, send: Any) -> None:
    raise NotImplementedError(scope["type"])


async def refuses_late(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await asyncio.sleep(0)
    raise NotImplementedError(scope["type"])


async def returns(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return


def not_async(scope: Any) -> None: ...


@pytest.mark.parametrize("app", [refuses, refuses_late, returns, not_async])
async def test_not_supported(app: Any, caplog: pytest.LogCaptureFixture) -> None:
    lifespan = Lifespan(app, "auto")
    assert await lifespan.startup() == {}
    await lifespan.shutdown()
    assert [level for level, _ in records(caplog)] == [logging.DEBUG]
    assert "does not support" in caplog.text
    with pytest.raises(AppLoadError, match="lifespan startup: ") as caught:
        await Lifespan(app, "on").startup()
    if app is not returns:
        assert "Traceback" in caught.value.remote_traceback
    assert not tasks()


async def test_the_message_of_an_exception() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise ConnectionError("no database at db.test")

    with pytest.raises(AppLoadError, match=r"ConnectionError: no database at db\.test") as caught:
        await Lifespan(app, "on").startup()
    assert isinstance(caught.value.__cause__, ConnectionError)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("then", ["returns", "raises", "waits"])
async def test_startup_failed(mode: str, then: str, caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})
        if then == "raises":
            raise ConnectionError("db.test")
        if then == "waits":
            await receive()

    with pytest.raises(AppLoadError) as caught:
        await Lifespan(app, mode, grace=0).startup()
    assert str(caught.value) == "no database"
    await settle()
    assert not tasks()


async def test_startup_failed_without_a_message() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "lifespan.startup.failed"})

    with pytest.raises(AppLoadError, match="startup failed"):
        await Lifespan(app, "auto").startup()


@pytest.mark.parametrize("mode", MODES)
async def test_system_exit_is_a_failure_in_every_mode(mode: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise SystemExit("configuration missing")

    with pytest.raises(AppLoadError, match="SystemExit: configuration missing"):
        await Lifespan(app, mode).startup()


async def wrong_type(receive: Any, send: Any) -> None:
    await send({"type": "http.response.start"})


async def twice(receive: Any, send: Any) -> None:
    await send({"type": "lifespan.startup.complete"})
    await send({"type": "lifespan.startup.complete"})


async def shutdown_unasked(receive: Any, send: Any) -> None:
    await send({"type": "lifespan.startup.complete"})
    await send({"type": "lifespan.shutdown.complete"})


async def failed_after_complete(receive: Any, send: Any) -> None:
    await send({"type": "lifespan.startup.complete"})
    await send({"type": "lifespan.startup.failed", "message": "too late"})


@pytest.mark.parametrize("steps", [wrong_type, twice, shutdown_unasked, failed_after_complete])
async def test_wrong_messages_raise_in_the_application(
    steps: Callable[[Any, Any], Awaitable[None]],
) -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        try:
            await steps(receive, send)
        except RuntimeError as error:
            seen.append(str(error))
        else:
            seen.append("allowed")

    lifespan = Lifespan(app, "auto")
    await lifespan.startup()
    await lifespan.shutdown()
    assert len(seen) == 1
    assert "unexpected ASGI message" in seen[0]


async def test_an_end_right_behind_complete_is_a_good_start(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["state"]["x"] = 1
        await send({"type": "lifespan.startup.complete"})
        raise ValueError("afterwards")

    lifespan = Lifespan(app, "on")
    assert await lifespan.startup() == {"x": 1}
    await lifespan.shutdown()
    assert [level for level, _ in records(caplog)] == [logging.ERROR]
    assert "ValueError: afterwards" in caplog.text


async def test_a_shutdown_that_raises_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await receive()
        raise ValueError("at the end")

    lifespan = Lifespan(app, "auto")
    await lifespan.startup()
    await lifespan.shutdown()
    assert records(caplog) == [(logging.ERROR, "exception in the application's lifespan: ValueError: at the end")]


@pytest.mark.parametrize("then_raises", [False, True])
async def test_shutdown_failed_is_logged_once(then_raises: bool, caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.failed", "message": "disk full"})
        if then_raises:
            raise OSError("disk full")

    lifespan = Lifespan(app, "on")
    await lifespan.startup()
    await lifespan.shutdown()
    assert records(caplog) == [(logging.ERROR, "lifespan shutdown failed: disk full")]


async def test_a_task_that_does_not_end_is_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    events: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        try:
            await receive()  # there is nothing more to receive
        except asyncio.CancelledError:
            events.append("cancelled")
            raise

    lifespan = Lifespan(app, "auto", grace=0)
    await lifespan.startup()
    await lifespan.shutdown()
    await settle()
    assert events == ["cancelled"]
    assert not tasks()


async def test_a_task_that_ignores_cancellation_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    release = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        while not release.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await release.wait()

    lifespan = Lifespan(app, "auto", grace=0)
    await lifespan.startup()
    await lifespan.shutdown()
    assert records(caplog)[0][0] == logging.WARNING
    assert "given up" in caplog.text
    release.set()
    await settle()
    assert not tasks()


@pytest.mark.parametrize("at", ["startup", "shutdown"])
async def test_a_cancelled_wait_cancels_the_application(at: str) -> None:
    reached = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        if at == "shutdown":
            await send({"type": "lifespan.startup.complete"})
            await receive()
        reached.set()
        await asyncio.get_running_loop().create_future()

    lifespan = Lifespan(app, "auto")
    if at == "shutdown":
        await lifespan.startup()
    waiter = asyncio.create_task(getattr(lifespan, at)())
    await reached.wait()
    assert len(tasks()) == 1
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    await lifespan.shutdown()
    assert not tasks()


async def test_no_exception_is_left_for_the_loop() -> None:
    reports: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reports.append(context))
    for app in (refuses, refuses_late, returns):
        await Lifespan(app, "auto").startup()
        with pytest.raises(AppLoadError):
            await Lifespan(app, "on").startup()
    gc.collect()
    await settle()
    assert reports == []


async def test_starlette() -> None:
    applications = pytest.importorskip("starlette.applications")

    @contextlib.asynccontextmanager
    async def works(app: Any) -> Any:
        yield {"model": 1}

    @contextlib.asynccontextmanager
    async def breaks(app: Any) -> Any:
        raise ConnectionError("no database")
        yield

    lifespan = Lifespan(applications.Starlette(lifespan=works), "auto")
    assert await lifespan.startup() == {"model": 1}
    await lifespan.shutdown()
    with pytest.raises(AppLoadError, match="no database"):
        await Lifespan(applications.Starlette(lifespan=breaks), "auto").startup()
    assert not tasks()
