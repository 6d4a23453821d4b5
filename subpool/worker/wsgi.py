"""How a worker runs WSGI apps: on the loop's own thread, or with `threads > 1` on a pool of them.

`Step` marks what is on a thread, for the interrupter.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .. import here
from ..channels import frames as f
from ..channels.frames import Frame
from ..environ import complete, from_scope
from ..wsgi_io import ErrorStream, make_input
from .answers import asgi_answer, checked_wsgi, error_frame
from .apps import App
from .interrupt import Step
from .streams import SyncPort, default_runner

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from .worker import Worker


class Serving:
    """One call of a WSGI app whose answer goes through `port`. Call it on a thread, with that thread's step."""

    __slots__ = ("_app", "_call", "_environ", "_errors", "_port")

    def __init__(self, call: int, app: App, environ: dict[str, Any], port: SyncPort, errors: ErrorStream) -> None:
        self._call = call
        self._app = app.app
        self._environ = environ
        self._port = port
        self._errors = errors

    def __repr__(self) -> str:
        return f"<Serving call {self._call}>"

    def __call__(self, step: Step) -> None:
        port = self._port
        port.step = step
        step.current = self._call
        try:
            default_runner().serve_wsgi(self._app, self._environ, port)
            port.finish()
        finally:
            self._errors.flush()
            step.leave()


class WSGICalls:
    """`steps` has the calls that are on the pool's threads now."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._threads: int = worker.setup["threads"]
        self._executor: Executor | None = None
        self._local = threading.local()
        self.threaded = self._threads > 1
        self.steps: dict[int, Step] = {}

    def __repr__(self) -> str:
        return f"<WSGICalls: {len(self.steps)} of {self._threads} threads>"

    def room(self) -> bool:
        """Whether a thread is free."""
        return len(self.steps) < self._threads

    def run(self, call: int, app: App, runner: str | None, environ: dict[str, Any], body: bytes, asgi: bool) -> None:
        """Run the call, here or on a thread. `asgi`: the answer is wanted in the types of ASGI."""
        if not self.threaded:
            worker = self._worker
            worker.post(*worker.plainly(self._answer, worker.step, call, app, runner, environ, body, asgi))
            return
        loop = self._worker.loop

        def on_thread() -> None:
            answer: tuple[Frame, Any]
            try:
                answer = self._answer(self._step(call), call, app, runner, environ, body, asgi)
            except BaseException as error:
                answer = error_frame(call, error), None
            loop.call_soon_threadsafe(self._off_thread, call, answer)

        self.steps[call] = Step()
        self._pool().submit(on_thread)
        self._worker.post((f.STARTED, call))

    def _answer(
        self,
        step: Step,
        call: int,
        app: App,
        runner: str | None,
        environ: dict[str, Any],
        body: bytes,
        asgi: bool,
    ) -> tuple[Frame, Any]:
        """Run the app on this thread; the frame to post, and its loan."""
        worker = self._worker
        step.current = call
        try:
            run = worker.apps.runner(runner, "run_wsgi")
            errors = ErrorStream(call)
            environ = complete(
                environ, stream=make_input(body, None), errors=errors,
                multithread=worker.shared or self.threaded, multiprocess=not worker.shared, worker=worker.id,
            )  # fmt: skip
            try:
                answer = run(app.app, environ)
            finally:
                errors.flush()
            status, headers, body = answer if runner is None else checked_wsgi(runner, answer)
            if asgi:
                status, headers = asgi_answer(status, headers)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            step.leave()
            return error_frame(call, error), None
        step.leave()
        loan = worker.lend(body)
        return (f.REPLY, call, status, headers, body if loan is None else f.LOAN), loan

    def _off_thread(self, call: int, answer: tuple[Frame, Any]) -> None:
        self._worker.post(*answer)
        self._free(call)

    def execute(self, call: int, run: Callable[[Step], None]) -> None:
        """Run an exchange that says itself when it is done, here or on a thread."""
        calls, loop = self._worker.calls, self._worker.loop
        if not self.threaded:
            try:
                self._worker.plainly(run, self._worker.step)
            except BaseException as error:
                calls.failed(call, error)
            finally:
                calls.forget(call)
            return

        def on_thread() -> None:
            try:
                run(self._step(call))
            except BaseException as error:
                loop.call_soon_threadsafe(self._worker.post, error_frame(call, error))
            finally:
                loop.call_soon_threadsafe(self._free, call)

        self.steps[call] = Step()
        self._submit(on_thread)
        self._worker.post((f.STARTED, call))

    async def exchange(self, call: int, app: App, scope: dict[str, Any]) -> None:
        """A whole exchange, both ways a stream."""
        worker = self._worker
        port = SyncPort(worker, call, self.threaded)
        early_hints = None
        if "http.response.early_hint" in scope["extensions"]:
            early_hints = port.early_hints
        errors = ErrorStream(call)
        environ = complete(
            from_scope(scope), stream=make_input(b"", port.pull), errors=errors, early_hints=early_hints,
            multithread=worker.shared or self.threaded, multiprocess=not worker.shared, worker=worker.id,
        )  # fmt: skip

        run = Serving(call, app, environ, port, errors)
        if not self.threaded:
            await worker.aside(run, worker.step)
            return
        over: asyncio.Future[None] = worker.loop.create_future()

        def ended(error: BaseException | None) -> None:
            self._free(call)
            if over.done():
                return  # nobody waits any more
            if error is None:
                over.set_result(None)
            else:
                over.set_exception(error)

        def on_thread() -> None:
            error = None
            try:
                run(self._step(call))
            except BaseException as caught:
                error = caught
            worker.loop.call_soon_threadsafe(ended, error)  # behind everything that it posted

        self.steps[call] = Step()
        self._submit(on_thread)
        await over

    def _submit(self, on_thread: Callable[[], None]) -> None:
        """Run it on a thread, in the namespace of the mount that is served."""
        namespace = here.namespace()
        if namespace is None:
            self._pool().submit(on_thread)
        else:
            self._pool().submit(here.within(namespace).run, on_thread)

    def _pool(self) -> Executor:
        if self._executor is None:
            from concurrent.futures import ThreadPoolExecutor

            self._executor = ThreadPoolExecutor(
                self._threads, f"subpool-wsgi-{self._worker.id}", here.adopt, (self._worker,)
            )
        return self._executor

    def _step(self, call: int) -> Step:
        """The step of this thread, which now runs `call`."""
        step: Step | None = getattr(self._local, "step", None)
        if step is None:
            step = self._local.step = Step()
        self.steps[call] = step
        return step

    def own_step(self) -> Step | None:
        """The step of the thread that asks, if it is one of these."""
        return getattr(self._local, "step", None)

    def _free(self, call: int) -> None:
        self.steps.pop(call, None)
        self._worker.calls.forget(call)
        self._worker.pull_soon()

    def shutdown(self) -> None:
        """End the threads, but do not wait for one that an app holds."""
        if self._executor is not None:
            self._executor.shutdown(wait=not self.steps, cancel_futures=True)
            self._executor = None
