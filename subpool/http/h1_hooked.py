"""HTTP/1.1 where requests have hooks: between what was read and the worker, and between its answer and the client.

A server without hooks has no connection of this kind. A request meets its hooks when its head is here, and its body too
if that is small and awaited anyway: so that an answer of theirs leaves the connection open. While a hook waits, at most
`HELD` bytes of a body are kept, and no further request is begun; the answer of a worker is kept as frames, as many as
it may send unacknowledged.

A response comes as bytes. Its head is taken apart only where a hook wants to see it.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ..channels import frames as f
from ..errors import SubpoolError
from ..hooks import Chain, Row
from ..request import BODILESS, Request, ResponseHead, page
from ..types import Headers, Response
from ..wire import FIRST, HTTP10, KEEP_ALIVE, Wire, block, status_line
from .call import HTTPCall, RepeatedCall
from .failure import answer_for, log_request, told
from .front import NEVER, Mount
from .h1 import H1
from .h1_reader import METHODS
from .h1_requests import HELD
from .proxy import with_host
from .target import SLASH, authority, origin_form
from .turn import FAILED, LATE, Turn

if TYPE_CHECKING:
    from ..channels.frames import Frame
    from ..hearing import Hearing

END: Final = b"\r\n\r\n"
HEADS: Final = 64  # heads of responses that are remembered
_heads: dict[bytes, tuple[bytes, Headers]] = {}


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
        call.frame = (f.CALL_HTTP, call.id, mount.app, None, asked, None if call.streamed else b"".join(call.parts))
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


class RespondingH1(HookedH1):
    """The same with hooks that see responses."""

    def _row(self, call: HTTPCall) -> Row:
        """The hooks that are to see the response."""
        if call.turn is None or call.turn.responding:
            return ()
        chain = self._chain(call)
        return chain.on_response if chain is not None else ()

    # responses of our own

    def _answer(
        self, call: HTTPCall, status: int, text: str, *, close: bool = True, more: Headers | None = None
    ) -> None:
        if not self._row(call):
            super()._answer(call, status, text, close=close, more=more)
            return
        if close:
            call.flags &= ~KEEP_ALIVE
        self._reply(call, page(status, text, more))

    def _reply(self, call: HTTPCall, answer: Response) -> None:
        row, turn = self._row(call), call.turn
        if turn is None or not row:
            super()._reply(call, answer)
            return
        response = ResponseHead(answer.status, answer.headers)

        def then(failed: Response | None) -> None:
            if call is not self._current:
                return
            found = failed
            if failed is None:
                try:
                    found = Response(response.status, response.checked(head=True), answer.body)
                except (TypeError, ValueError, RuntimeError) as error:
                    found = turn.failed(error)
            super(RespondingH1, self)._reply(call, found or FAILED)

        turn.responding = True
        self._current = call
        self.deadline = turn.due
        turn.run(self.front.loop, row, (turn.request, response), then)

    # those of the workers

    def on_whole(self, call: HTTPCall, member: Hearing, frame: Frame, body: Any) -> None:
        row = self._row(call)
        if row:
            self._respond(call, row, super().on_whole, member, frame, body)
        else:
            super().on_whole(call, member, frame, body)

    def on_wire(self, call: HTTPCall, member: Hearing, frame: Frame, body: Any) -> None:
        turn = call.turn
        if turn is not None:
            if turn.behind is not None:
                turn.keep(super().on_wire, call, member, frame, body)
                return
            if frame[3] & FIRST and not self._transport.is_closing():
                row = self._row(call)
                if row:
                    self._respond(call, row, super().on_wire, member, frame, body)
                    return
            elif turn.drops:
                call.unacknowledged += len(frame[4]) + len(frame[6]) + _size(body)
                member.drop(body)
                frame, body = (*frame[:4], b"", None, b"", 0), None
        super().on_wire(call, member, frame, body)

    def on_end(self, call: HTTPCall) -> None:
        if call.turn is not None and call.turn.behind is not None:
            call.turn.keep(super().on_end, call)
        else:
            super().on_end(call)

    def on_error(self, call: HTTPCall, error: BaseException) -> None:
        if call.turn is not None and call.turn.behind is not None:
            call.turn.keep(super().on_error, call, error)
        else:
            super().on_error(call, error)

    def _respond(self, call: HTTPCall, row: Row, pass_on: Any, member: Hearing, frame: Frame, body: Any) -> None:
        """Have hooks see the head that `frame` begins with; then `pass_on` the frame, and what has come behind it."""
        turn = call.turn
        assert turn is not None
        head, _, rest = frame[4].partition(END)
        line, pairs = _heads.get(head) or _taken_apart(head)
        response = ResponseHead(frame[2], pairs)

        def then(failed: Response | None) -> None:
            behind, turn.behind = turn.behind, None
            if call is not self._current:
                return
            if behind is None:
                self._pass(call, response, failed, line, rest, pass_on, member, frame, body)
                return
            while behind:
                act, args = behind.popleft()
                if act == self._pass:
                    act(call, response, failed, line, rest, pass_on, *args)
                elif call is self._current:
                    act(*args)
                else:
                    turn.behind = behind
                    turn.end()
                    return

        turn.responding = True
        turn.run(self.front.loop, row, (turn.request, response), then)
        if turn.waits:
            turn.behind = deque()
            turn.keep(self._pass, member, frame, body)

    def _pass(
        self, call: HTTPCall, response: ResponseHead, failed: Response | None, line: bytes, rest: bytes, pass_on: Any,
        member: Hearing, frame: Frame, body: Any,
    ) -> None:  # fmt: skip
        """A worker's frame, with the head that hooks have left."""
        turn = call.turn
        assert turn is not None
        if failed is None and response.unchanged:
            pass_on(call, member, frame, body)
            return
        try:
            pairs = response.checked(head=call.method == "HEAD")
        except (TypeError, ValueError, RuntimeError) as error:
            failed = failed or turn.failed(error)
        if failed is not None:
            member.drop(body)
            call.leave()
            super()._reply(call, failed)
            return
        if response.status != frame[2]:
            line = status_line(response.status)[:-2]
        tail, size = frame[6], frame[7]
        before = len(frame[4]) + len(tail)
        if response.drops:
            turn.drops = True
            before += _size(body)
            member.drop(body)
            body, rest, tail, size = None, b"", b"", 0
        head = b"".join([line, b"\r\n", *[b"%b: %b\r\n" % pair for pair in pairs], b"\r\n", rest])
        call.unacknowledged += before - len(head) - len(tail)  # the worker counts what it sent
        pass_on(call, member, (*frame[:2], response.status, frame[3], head, None, tail, size), body)


def _taken_apart(head: bytes) -> tuple[bytes, Headers]:
    """Status line and headers of a response, as a worker wrote them. Remembered: most are the same for a second."""
    line, *lines = head.split(b"\r\n")
    pairs = [(name.lower(), value) for name, _, value in (one.partition(b": ") for one in lines)]
    if len(_heads) >= HEADS:
        _heads.clear()
    found = _heads[head] = line, pairs
    return found


def _size(body: Any) -> int:
    """The bytes that a worker has counted for the body of a frame; none for a file."""
    return len(body) if isinstance(body, (bytes, memoryview)) else 0
