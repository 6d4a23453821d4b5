"""The apps of a worker: imported once, kept, each with its interface, its lifespan and its cache of scopes."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from ..errors import AppLoadError
from ..scope import Scopes
from .importer import interface_of, load_object, load_runner

if TYPE_CHECKING:
    from .worker import Worker

RUNNERS = {"run_asgi": "subpool.runners.asgi", "run_wsgi": "subpool.runners.wsgi"}


class App:
    """One app as this worker has it."""

    __slots__ = ("app", "interface", "lifespan", "name", "ready", "scopes")

    def __init__(self, name: str, app: Any, interface: str, worker: int) -> None:
        self.name = name
        self.app = app
        self.interface = interface
        self.lifespan: Any = None
        self.ready = interface == "wsgi"
        self.scopes = Scopes(worker, {})

    def __repr__(self) -> str:
        return f"<App {self.name} {self.interface}{'' if self.ready else ' not started'}>"


class Apps:
    """`get` is the hot path: a dictionary look-up. `None` names the pool's own app."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._loaded: dict[str | None, App] = {}
        self._runners: dict[tuple[str | None, str], Any] = {}
        self._lock: asyncio.Lock | None = None

    def get(self, name: str | None) -> App | None:
        """The app if it may be called at once; else `start` it first."""
        app = self._loaded.get(name)
        return app if app is not None and app.ready else None

    def load(self, name: str | None) -> App:
        """Import the app if that was not done. `AppLoadError` says why it cannot be."""
        found = self._loaded.get(name)
        if found is None:
            setup = self._worker.setup
            spec = setup["app"] if name is None else name
            if not spec:
                raise AppLoadError("the pool has no app of its own: name one with app='module:callable'")
            if name is not None and spec == setup["app"]:
                found = self.load(None)
            else:
                app = load_object(spec)
                interface = setup["interface"] if name is None else "auto"
                found = App(spec, app, interface_of(app) if interface == "auto" else interface, self._worker.id)
            self._loaded[name] = found
        return found

    async def start(self, name: str | None) -> App:
        """Import the app and run its lifespan start-up, once. `AppLoadError` if either fails."""
        if self._lock is None:
            self._lock = asyncio.Lock()
        async with self._lock:
            app: App = await self._worker.aside(self.load, name)
            if app.ready:
                return app
            from subpool.runners.lifespan import Lifespan

            lifespan = Lifespan(app.app, self._worker.setup["lifespan"])
            async with self._alone():
                state = await lifespan.startup()
            app.lifespan = lifespan
            app.scopes = Scopes(self._worker.id, state)
            app.ready = True
            return app

    async def shutdown(self) -> None:
        """Run the shutdown of every app that was started."""
        for app in {id(app): app for app in self._loaded.values()}.values():
            if app.lifespan is not None:
                lifespan, app.lifespan = app.lifespan, None
                async with self._alone():
                    await lifespan.shutdown()

    def _alone(self) -> AbstractAsyncContextManager[None]:
        """Workers that share the app start it, and end it, one at a time."""
        return self._worker.together or nullcontext()

    def runner(self, module: str | None, function: str) -> Any:
        """`function` of a runner module (None: the default one). `RunnerError` names a wrong one."""
        key = module, function
        found = self._runners.get(key)
        if found is None:
            found = self._runners[key] = load_runner(module or RUNNERS[function], function)
        return found
