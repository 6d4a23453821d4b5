"""A WebSocket whose handshake hooks see: they may change its request, or refuse it. What follows is a session as any.

A path at which no app is mounted is refused before. `on_response` is not for handshakes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from ..channels import frames as f
from ..hooks import Row
from ..request import Request
from ..scope import pack
from ..types import Headers, Response
from .target import decoded
from .turn import LATE, Turn
from .ws_answer import ABNORMAL, refusal
from .ws_mailbox import AHEAD
from .ws_session import OPENING, Session

if TYPE_CHECKING:
    from .front import Front, Mount
    from .ws_carrier import Carrier

OWN: Final = b"sec-websocket-"  # headers of the handshake, which stay what they are


class HookedSession(Session):
    """One WebSocket."""

    def __init__(
        self, front: Front, mount: Mount, carrier: Carrier, number: int, scope: dict[str, Any], offers: list[str]
    ) -> None:  # fmt: skip
        super().__init__(front, mount, carrier, number, scope, offers)
        query = scope["query_string"]
        target = scope["raw_path"] + b"?" + query if query else scope["raw_path"]
        request = Request(
            number, "GET", target, scope["headers"], scope["client"], scope["scheme"], scope["http_version"],
            "websocket",
        )  # fmt: skip
        self._scope = scope
        self._turn = Turn(request, front.now + mount.timeout)

    def begin(self) -> None:
        """Have the hooks see it; then call the app."""
        hooks = self._front.hooks
        self._run(hooks.on_request if hooks is not None else (), self._on_asked, self._turn.request)

    def _run(self, row: Row, then: Callable[[Response | None], None], *args: Any) -> None:
        self._carrier.deadline = self._turn.due
        self._turn.run(self._front.loop, row, args, then)

    def _on_asked(self, answer: Response | None) -> None:
        """The server's hooks have seen it: now those of its mount, which may be another by now."""
        if self.phase is not OPENING:
            return
        request = self._turn.request
        mount = self._front.find(request.target)
        if answer is not None:
            self._reply(answer)
        elif mount is None:
            self._refuse(404, "no app is mounted here")
        else:
            if mount is not self._mount:
                self._mount = mount
                self._inbox.move(mount.engine)
            request.mount = mount.prefix
            self._run(mount.hooks.on_request if mount.hooks is not None else (), self._on_entered, request)

    def _on_entered(self, answer: Response | None) -> None:
        if self.phase is not OPENING:
            return
        request = self._turn.request
        try:
            headers = request.changed()
        except (TypeError, ValueError, RuntimeError) as error:
            answer = answer or self._turn.failed(error)
        if answer is not None:
            self._reply(answer)
            return
        scope = {**self._scope, "client": request.client, "scheme": request.scheme}
        scope["root_path"] = self._front.config.root_path + self._mount.prefix
        if headers is not None:
            own = [pair for pair in self._scope["headers"] if pair[0].startswith(OWN)]
            scope["headers"] = [pair for pair in headers if not pair[0].startswith(OWN)] + own
        scope |= {"raw_path": request.raw_path, "path": decoded(request.raw_path), "query_string": request.query_string}
        self.frame = (f.CALL_WEBSOCKET, self.id, self._mount.app, None, pack(scope), AHEAD)
        super().begin()
        if self.phase is OPENING:
            self._carrier.deadline = min(self._carrier.deadline, self._turn.due)

    def _reply(self, answer: Response) -> None:
        """A response in place of the WebSocket."""
        self._deny(answer.status, answer.headers)
        self._carrier.deny_body(answer.body, False)
        self._over(False)
        self._tell(ABNORMAL, "")

    def _deny(self, status: int, headers: Headers) -> None:
        self._turn.end()
        super()._deny(status, headers)

    def fail(self, error: BaseException) -> None:
        own = self._mount.hooks or self._front.hooks
        if self.phase is not OPENING or own is None or not own.on_error or self._turn.waits:
            super().fail(error)
            return
        self._log_failure(error)

        def then(answer: Response | None) -> None:
            if self.phase is not OPENING:
                return
            self._refuse(*refusal(error)) if answer is None else self._reply(answer)

        self._turn.due = self._front.now + self._mount.timeout
        self._run(own.on_error, then, self._turn.request, error)

    def expired(self) -> None:
        if self._turn.waits and self.phase is OPENING:
            self._turn.end()
            self._log(LATE[1])
            self._refuse(*LATE)
        else:
            super().expired()

    def left(self) -> None:
        self._turn.end()
        super().left()

    def drain(self) -> None:
        self._turn.end()
        super().drain()
