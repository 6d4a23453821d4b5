"""How a worker runs each kind of call.

ASGI: a task that starts eagerly, so that an app which never waits never touches the loop. WSGI: see `wsgi`. Functions:
on the loop's thread, awaited if they are async. Every call ends in exactly one REPLY, ERROR or END.
"""

from __future__ import annotations

import asyncio
import marshal
from collections import deque
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from .. import here
from ..channels import frames as f
from ..channels.frames import Frame
from ..environ import from_scope
from ..errors import AppLoadError, RunnerError, WebSocketUnsupported
from .answers import checked_asgi, error_frame
from .apps import App
from .http import HTTPCalls
from .importer import load_object
from .interrupt import Interrupted, resume
from .streams import ASGIPort, Inbox
from .waiter import Waiter
from .websocket import WebSocketPort
from .wsgi import WSGICalls

if TYPE_CHECKING:
    from .worker import Worker

MOUNTED = (f.CALL_HTTP, f.CALL_WEBSOCKET)  # may be for a mount with a namespace of its own
CANCELLED = 4096  # cancellations remembered of calls that had not arrived


class Calls:
    """What the worker runs now."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._sockets: dict[int, asyncio.Task[None]] = {}  # WebSockets, idle for the most part: they take no place
        self._inboxes: dict[int, Inbox] = {}
        self._cancelled: dict[int, None] = {}
        self.woken: deque[Waiter] = deque()  # those who got what they waited for, and do not run yet
        self.wsgi = WSGICalls(worker)
        self._http = HTTPCalls(worker)
        self._functions: dict[str, Any] = {}
        self._limit: int = worker.setup["max_concurrency"]

    def __repr__(self) -> str:
        return f"<Calls: {len(self._tasks)} tasks, {len(self._sockets)} WebSockets, {self.wsgi!r}>"

    def room(self) -> bool:
        """Whether another call may begin."""
        return len(self._tasks) < self._limit and self.wsgi.room()

    def ended(self, call: int) -> None:
        """The call's task is over: its place is free."""
        tasks = self._tasks
        if call in tasks:
            if len(tasks) >= self._limit:
                self._worker.pull_soon()
            del tasks[call]
        else:
            self._sockets.pop(call, None)

    # beginning

    def begin(self, frame: Frame) -> None:
        """Begin a call that came from the work lane."""
        op, call, name = frame[0], frame[1], frame[2]
        if frame[3] is not None and op in MOUNTED:
            here.within(frame[3]).run(self.begin, (op, call, name, None, *frame[4:]))
            return
        if self._cancelled and call in self._cancelled:
            del self._cancelled[call]
            self.failed(call, asyncio.CancelledError())
            return
        if op == f.CALL_FUNCTION:
            self._spawn(call, self._function(call, name, frame[3]))
            return
        app = self._worker.apps.get(name)
        if app is not None and op == f.CALL_HTTP:
            if app.interface == "asgi":
                self._spawn(call, self._http.asgi(call, app, frame[4], frame[5]))
            else:
                self._http.wsgi(call, app, frame[4], frame[5])
        elif op == f.CALL_WEBSOCKET:
            self._spawn(call, self._prepared(frame), self._sockets)
        elif app is None or frame[5] is None or op == f.CALL_EXCHANGE:
            self._spawn(call, self._prepared(frame) if op != f.CALL_HELP else self._help(frame))
        elif op == f.CALL_ASGI and app.interface == "asgi":
            self._spawn(call, self._asgi(call, app, frame[3], frame[4], frame[5]))
        else:
            self._dispatch(frame, app, frame[5])

    def _spawn(
        self, call: int, coro: Coroutine[Any, Any, None], tasks: dict[int, asyncio.Task[None]] | None = None
    ) -> None:
        """Begin the call; while it lasts it is in `tasks`, else among those that take a place."""
        worker = self._worker
        step = worker.step
        step.current = call
        try:
            task = asyncio.Task(coro, loop=worker.loop, eager_start=True)
        except Interrupted as error:
            self.failed(call, error)
            return
        finally:
            step.leave()
        if not task.done():
            (self._tasks if tasks is None else tasks)[call] = task
            worker.post((f.STARTED, call))
        elif not task.cancelled() and (struck := task.exception()) is not None:
            # an interrupt that struck behind the app, in the words about how it went; two of them are no harm
            self.forget(call)
            self.failed(call, struck)

    async def _prepared(self, frame: Frame) -> None:
        """The slow way: the app is to be imported first, the body to be fetched, or both are streams."""
        op, call, name, runner, head, body = frame
        inbox = None
        if op in (f.CALL_HTTP, f.CALL_EXCHANGE, f.CALL_WEBSOCKET):
            inbox = self.inbox(call)  # its client may leave before the app is there
        if op == f.CALL_WEBSOCKET and body is not None and inbox is not None:
            inbox.put({"type": "websocket.connect"})
        try:
            app = await self._worker.apps.start(name)
            if inbox is not None and inbox.gone:
                raise asyncio.CancelledError
            if op == f.CALL_WEBSOCKET and app.interface == "wsgi":
                raise WebSocketUnsupported(f"{app.name!r} is a WSGI app: it has no WebSockets")
            if op in (f.CALL_EXCHANGE, f.CALL_WEBSOCKET):
                await self._exchange(call, app, head, body)
                return
            if op == f.CALL_HTTP:
                if app.interface == "asgi":
                    await self._http.asgi(call, app, head, body)
                else:
                    self.ended(call)
                    self._worker.loop.call_soon(self._http.wsgi, call, app, head, body)
                return
            if body is None:
                body = await self._fetch(call)
        except BaseException as error:
            self.forget(call)
            self.ended(call)
            self.failed(call, error)
            return
        if op == f.CALL_ASGI and app.interface == "asgi":
            await self._asgi(call, app, runner, head, body)
        else:
            self.ended(call)
            self._worker.loop.call_soon(self._dispatch, frame, app, body)

    def _dispatch(self, frame: Frame, app: App, body: bytes) -> None:
        """A call to a WSGI app, with an environ or with a scope to make one of."""
        op, call, _, runner, head, _ = frame
        if app.interface == "asgi":
            self.failed(call, AppLoadError(f"{app.name!r} is an ASGI app: call it with run_asgi"))
            return
        environ = from_scope(app.scopes.build(head)) if op == f.CALL_ASGI else head
        self.wsgi.run(call, app, runner, environ, body, op == f.CALL_ASGI)

    # ASGI

    async def _asgi(self, call: int, app: App, runner: str | None, head: Any, body: bytes) -> None:
        worker = self._worker
        try:
            run = worker.apps.runner(runner, "run_asgi")
            coro = run(app.app, app.scopes.build(head), body)
            try:
                yielded = coro.send(None)
            except StopIteration as stop:
                answer = stop.value
            except AttributeError:
                if hasattr(coro, "send"):
                    raise
                raise RunnerError(f"run_asgi of runner {runner!r} is no coroutine function") from None
            else:
                answer = await resume(coro, yielded, worker.step, call)
            if runner is None:
                status, headers, body = answer
            else:
                status, headers, body = checked_asgi(runner, answer)
        except BaseException as error:
            self.ended(call)
            self.failed(call, error)
            return
        self.ended(call)
        loan = worker.lend(body)
        worker.post((f.REPLY, call, status, headers, body if loan is None else f.LOAN), loan)

    async def _fetch(self, call: int) -> bytes:
        """The body of a call that was too large for its frame."""
        inbox = self._inboxes[call] = Inbox(self.woken)
        pieces: list[bytes] = []
        try:
            while True:
                message = await self.next_event(call, inbox)
                pieces.append(message.get("body", b""))
                if not message.get("more_body", False):
                    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
        finally:
            del self._inboxes[call]

    async def next_event(self, call: int, inbox: Inbox) -> dict[str, Any]:
        """Ask the host for the call's next event, and wait for it."""
        if not inbox.events:
            self._worker.post((f.WANT, call))
            while not inbox.events:
                inbox.waiter = Waiter(self._worker.loop)
                await inbox.waiter
        event: dict[str, Any] = inbox.events.popleft()
        return event

    async def _exchange(self, call: int, app: App, head: Any, ahead: int | None) -> None:
        """A whole ASGI exchange, both ways a stream. `ahead`: see `WebSocketPort`."""
        worker = self._worker
        inbox = self.inbox(call)
        scope = app.scopes.build(head)
        try:
            if app.interface == "wsgi":
                await self.wsgi.exchange(call, app, scope)
            else:
                port: ASGIPort | WebSocketPort
                if scope["type"] == "http":
                    port = ASGIPort(worker, call, scope["method"])
                else:
                    port = WebSocketPort(worker, call, ahead)
                coro: Any = app.app(scope, port.receive, port.send)
                try:
                    yielded = coro.send(None)
                except StopIteration:
                    pass
                else:
                    await resume(coro, yielded, worker.step, call)
                port.finish()
        finally:
            self._inboxes.pop(call, None)
            inbox.end()
        self.ended(call)
        worker.post((f.END, call))

    # functions

    async def _function(self, call: int, name: str, arguments: bytes) -> None:
        worker = self._worker
        try:
            function = self._functions.get(name)
            if function is None:
                function = self._functions[name] = load_object(name)
            args, kwargs = marshal.loads(arguments, allow_code=False)
            answer = function(*args, **kwargs)
            if asyncio.iscoroutine(answer):
                try:
                    yielded = answer.send(None)
                except StopIteration as stop:
                    answer = stop.value
                else:
                    answer = await resume(answer, yielded, worker.step, call)
            try:
                data = marshal.dumps(answer, allow_code=False)
            except ValueError as error:
                raise TypeError(f"the answer of {name!r} is no plain data: {error}") from None
        except BaseException as error:
            self.ended(call)
            self.failed(call, error)
            return
        self.ended(call)
        loan = worker.lend(data)
        worker.post((f.REPLY, call, 0, None, data if loan is None else f.LOAN), loan)

    def _help(self, frame: Frame) -> Coroutine[Any, Any, None]:
        """A call to the host's helper that no thread could begin at once."""
        return self._function(frame[1], "subpool.worker.helping:run", marshal.dumps((frame[2:], {})))

    def forget_functions(self) -> None:
        """Their modules are imported anew."""
        self._functions.clear()

    # what comes for calls under way

    def inbox(self, call: int) -> Inbox:
        """Where what comes for the call arrives, from the first time on until `forget`."""
        inbox = self._inboxes.get(call)
        if inbox is None:
            inbox = self._inboxes[call] = Inbox(self.woken)
        return inbox

    def forget(self, call: int) -> None:
        self._inboxes.pop(call, None)

    def event(self, call: int, message: dict[str, Any] | None, data: Any) -> None:
        """An event for the call's `receive()`."""
        inbox = self._inboxes.get(call)
        if inbox is not None:
            if message is None:
                inbox.put(data)
                return
            if data is not None:
                message["body" if message["type"] == "http.request" else "bytes"] = data
            inbox.put(message)

    def flow(self, frame: Frame) -> None:
        """ACK, GONE or CANCEL."""
        op, call, worker = frame[0], frame[1], self._worker
        inbox = self._inboxes.get(call)
        if op == f.ACK:
            if inbox is not None:
                inbox.ack(frame[2])
        elif op == f.GONE:
            if inbox is not None:
                inbox.leave()
            elif call not in self._tasks and call not in self._sockets:
                self._never_begin(call)
        elif op == f.CANCEL:
            task = self._tasks.get(call) or self._sockets.get(call)
            if inbox is not None:
                inbox.leave()
            if task is not None:
                task.cancel()
                worker.post((f.STARTED, call))  # tells the host that the loop is alive
            elif call not in self.wsgi.steps and (worker.helping is None or not worker.helping.cancel(call)):
                self._never_begin(call)

    def was_cancelled(self, call: int) -> bool:
        """Whether that was so before it came."""
        return call in self._cancelled

    def _never_begin(self, call: int) -> None:
        """The call has not arrived yet, or it has ended."""
        self._cancelled[call] = None
        if len(self._cancelled) > CANCELLED:
            del self._cancelled[next(iter(self._cancelled))]

    def interrupt(self, call: int) -> bool:
        """From the steward: interrupt the call, wherever it runs. False if it is on no thread now."""
        return self.wsgi.steps.get(call, self._worker.step).interrupt(call)

    async def drain(self, seconds: float) -> None:
        """Let what runs end, for at most so many seconds; cancel the rest."""
        loop = self._worker.loop
        deadline = loop.time() + seconds
        while self.wsgi.steps and loop.time() < deadline:  # noqa: ASYNC110  once in a worker's life
            await asyncio.sleep(0.01)
        if tasks := self._running():
            await asyncio.wait(tasks, timeout=max(0.0, deadline - loop.time()))
        for task in self._running():
            task.cancel()
        if tasks := self._running():
            await asyncio.wait(tasks, timeout=1.0)
        self.wsgi.shutdown()

    def _running(self) -> list[asyncio.Task[None]]:
        return [*self._tasks.values(), *self._sockets.values()]

    # errors

    def failed(self, call: int, error: BaseException) -> None:
        if isinstance(error, (SystemExit, KeyboardInterrupt)):
            raise error
        if not (self._worker.broken and isinstance(error, asyncio.CancelledError)):
            self._worker.post(error_frame(call, error))
