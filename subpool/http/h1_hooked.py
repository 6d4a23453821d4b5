"""HTTP/1.1 where requests have hooks: between what was read and the worker, and between its answer and the client.

A server without hooks has no connection of this kind. A request meets its hooks when its head is here, and its body too
if that is small and awaited anyway: so that an answer of theirs leaves the connection open. While a hook waits, at most
`HELD` bytes of a body are kept, and no further request is begun; the answer of a worker is kept as frames, as many as
it may send unacknowledged.

Where hooks see responses too: `h1_responding`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from ..channels import frames as f
from ..errors import SubpoolError
from ..hooks import Chain, Row
from ..request import BODILESS, Request
from ..types import Headers, Response
from ..wire import HTTP10, KEEP_ALIVE, Wire, block
from .call import HTTPCall, RepeatedCall
from .failure import answer_for, log_request, told
from .front import NEVER, Mount
from .h1 import H1
from .h1_reader import METHODS
from .h1_requests import HELD
from .proxy import with_host
from .target import SLASH, authority, origin_form
from .turn import LATE, Turn

if TYPE_CHECKING:
    pass


class HookedH1(H1):
    """One connection."""

    # requests

    def _again(self, match: re.Match[bytes], rest: bytes, headers: Headers) -> None:
        self._fresh = False
        method, url = match.groups()
        call = self._current = RepeatedCall(next(self.front.ids), self, METHODS[method], url, headers, rest)
        if self._route(call):
            self._dispatch(call)

    def _route(self, call: HTTPCall) -> bool:
        """Find the mount. What is wrong with that is said behind the hooks, which may send the request elsewhere."""
        front, target = self.front, call.url
        if target[0] != SLASH and target != b"*":
            call.headers = with_host(call.headers, authority(target))
            target = call.url = origin_form(target)
        mount = front.only or front.find(target)
        if front.hooks is None and (mount is None or mount.hooks is None):
            return super()._route(call)
        call.mount = mount
        if mount is not None and (call.length or call.size) > mount.max_body:
            call.streamed = True  # nobody will read it
        return True

    def _dispatch(self, call: HTTPCall) -> None:
        front, mount = self.front, call.mount
        if call.turn is not None:
            return  # a hook waits, and the rest of the body has come
        if front.hooks is None and (mount is None or mount.hooks is None):
            super()._dispatch(call)
            return
        listener = self.listener
        client, scheme = self.client, listener.scheme
        if call.forwarded:
            client, scheme, call.headers = front.speaker(listener, client, call.headers)
            call.client = client
        if front.access is not None:
            call.started_at = front.loop.time()
        timeout = mount.timeout if mount is not None else front.config.timeout or NEVER
        version = "1.0" if call.flags & HTTP10 else "1.1"
        request = Request(call.id, call.method, call.url, call.headers, client, scheme, version)
        call.turn = turn = Turn(request, front.now + timeout)
        if front.hooks is not None and front.hooks.on_request:
            self.deadline = turn.due
            turn.run(front.loop, front.hooks.on_request, (request,), partial(self._on_asked, call))
        else:
            self._enter(call, turn, mount)

    def _on_asked(self, call: HTTPCall, answer: Response | None) -> None:
        """The server's hooks have seen the request."""
        turn = call.turn
        if call is not self._current or turn is None:
            return
        if answer is not None:
            self._reply(call, answer)
        else:
            target = turn.request.target
            self._enter(call, turn, call.mount if target is call.url else self.front.find(target))

    def _enter(self, call: HTTPCall, turn: Turn, mount: Mount | None) -> None:
        """The request is for `mount`, whose own hooks see it."""
        call.mount = mount
        if mount is None:
            self._answer(call, 404, "no app is mounted here", close=not call.complete)
            return
        turn.request.mount = mount.prefix
        if mount.hooks is not None and mount.hooks.on_request:
            self.deadline = turn.due
            turn.run(self.front.loop, mount.hooks.on_request, (turn.request,), partial(self._on_entered, call))
        else:
            self._on_entered(call, None)

    def _on_entered(self, call: HTTPCall, answer: Response | None) -> None:
        turn, mount = call.turn, call.mount
        if call is not self._current or turn is None or mount is None:
            return
        request = turn.request
        try:
            headers = request.changed()
        except (TypeError, ValueError, RuntimeError) as error:
            answer = answer or turn.failed(error)
        if answer is not None:
            self._reply(call, answer)
            return
        if (call.length or call.size) > mount.max_body:
            self._answer(call, 413, "the body of the request is too large")
            return
        site = self.front.site(self.listener, mount, request.scheme, self.listener.server)
        known = (call.block or call.headers) if headers is None else headers
        asked = (site, request.method, request.target, known, request.client, call.flags)
        body = None if call.streamed else b"".join(call.parts)
        call.frame = (f.CALL_HTTP, call.id, mount.app, mount.namespace, asked, body)
        self._submit(call, mount)
        if call is self._current:
            if call.complete:
                self.deadline = min(self.deadline, turn.due)
            elif call.streamed and call.held:
                self._wait_for_reader(call)

    def _piece(self, call: HTTPCall) -> None:
        if call.turn is None or call.dispatched:
            super()._piece(call)
        elif call.held > HELD:
            self._read_no_more()

    def _reply(self, call: HTTPCall, answer: Response) -> None:
        """A response that hooks have made."""
        close = not call.complete
        wire = Wire(call.flags & ~KEEP_ALIVE if close else call.flags, self._config.date_header, self.front.extra)
        none = answer.status in BODILESS
        body = b"" if none or call.method == "HEAD" else answer.body
        head = wire.head(
            answer.status, block(answer.headers), 0 if none else len(answer.body), bodiless=none or not body
        )
        self._transport.write(head + body)
        call.status = answer.status
        call.begun = True
        call.sent = len(body)
        self._current = call
        self._done(call, wire.close)

    # errors

    def _not_taken(self, call: HTTPCall, error: SubpoolError) -> None:
        if self._error_row(call):
            self._ask_about(call, error, lambda: super(HookedH1, self)._not_taken(call, error))
        else:
            super()._not_taken(call, error)

    def on_error(self, call: HTTPCall, error: BaseException) -> None:
        if call is not self._current or call.begun or not self._error_row(call):
            super().on_error(call, error)
            return
        log_request(call.id, call.method, call.url, told(error))
        self._ask_about(call, error, lambda: self._answer(call, *answer_for(error), close=not call.complete))

    def _chain(self, call: HTTPCall) -> Chain | None:
        return call.mount.hooks if call.mount is not None and call.mount.hooks is not None else self.front.hooks

    def _error_row(self, call: HTTPCall) -> Row:
        chain = self._chain(call)
        return chain.on_error if call.turn is not None and chain is not None else ()

    def _ask_about(self, call: HTTPCall, error: BaseException, otherwise: Callable[[], None]) -> None:
        """Have hooks answer for an error, else `otherwise` does."""
        turn = call.turn
        assert turn is not None

        def then(answer: Response | None) -> None:
            if call is self._current:
                otherwise() if answer is None else self._reply(call, answer)

        if call.mount is not None:
            turn.due = self.deadline = self.front.now + call.mount.timeout  # the request's own may be over
        turn.run(self.front.loop, self._error_row(call), (turn.request, error), then)

    # the end

    def expired(self) -> None:
        call = self._current
        if call is None or call.turn is None or not call.turn.waits:
            super().expired()
            return
        log_request(call.id, call.method, call.url, LATE[1])
        call.turn.end()
        if call.dispatched:
            call.leave()
        self._answer(call, *LATE, close=not call.complete)

    def _left_by_client(self) -> None:
        if self._current is not None and self._current.turn is not None:
            self._current.turn.end()
        super()._left_by_client()

    def _done(self, call: HTTPCall, close: bool) -> None:
        if call.turn is not None:
            call.turn.end()
        super()._done(call, close)

    def _abort(self, call: HTTPCall) -> None:
        if call.turn is not None:
            call.turn.end()
        super()._abort(call)
