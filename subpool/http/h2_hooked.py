"""HTTP/2 where requests have hooks: as `h1_hooked`, for one stream. Responses come as header lists."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..channels import frames as f
from ..channels.exchange import WEIGHT
from ..errors import SubpoolError
from ..hooks import Chain, Row
from ..request import BODILESS, Request, ResponseHead, page
from ..types import Headers, Response
from ..wire import FIRST, HTTP2
from ..wire2 import UNKNOWN, fields, status_bytes
from .failure import answer_for, log_request, told
from .front import NEVER
from .h2_call import H2Call, guarded
from .h2_upload import WHOLE
from .turn import LATE, Turn

if TYPE_CHECKING:
    from ..channels.frames import Frame
    from ..hearing import Hearing
    from .front import Mount


class HookedH2Call(H2Call):
    """One request."""

    turn: Turn | None = None
    _body: bytes | None = None  # the whole body, if the app is to be called with it

    # to the worker

    def begin(self) -> None:
        front = self.stream.connection.front
        self.mount = mount = front.only or front.find(self.url)
        if front.hooks is None and (mount is None or mount.hooks is None):
            super().begin()
            return
        length = self.request.length
        if self.stream.complete:
            self._ask(b"")
        elif length is None or length > WHOLE or self.request.expect or (mount and length > mount.max_body):
            self._ask(None)
        else:
            self.gathers = True
            self.wait()

    def _gathered(self) -> None:
        front = self.stream.connection.front
        if front.hooks is None and (self.mount is None or self.mount.hooks is None):
            super()._gathered()
        else:
            self.gathers = False
            self._ask(self.whole_body())

    def _ask(self, body: bytes | None) -> None:
        """The server's hooks are to see the request."""
        connection = self.stream.connection
        front, listener, mount = connection.front, connection.listener, self.mount
        client, scheme, headers = connection.client, listener.scheme, self.headers
        if self.request.forwarded:
            client, scheme, headers = front.speaker(listener, client, headers)
            self.client = client
        if front.access is not None:
            self.started_at = front.loop.time()
        timeout = mount.timeout if mount is not None else front.config.timeout or NEVER
        request = Request(self.id, self.method, self.url, headers, client, scheme, "2")
        self.turn = turn = Turn(request, front.now + timeout)
        self._body = body
        if front.hooks is not None and front.hooks.on_request:
            self._run(front.hooks.on_request, self._on_asked, request)
        else:
            self._enter(turn, mount)

    def _run(self, row: Row, then: Callable[[Response | None], None], *args: Any) -> None:
        turn = self.turn
        assert turn is not None
        turn.run(self.stream.connection.front.loop, row, args, then)
        if turn.waits:
            self.wait()

    @guarded
    def _on_asked(self, answer: Response | None) -> None:
        turn = self.turn
        if turn is None or self.gone or self.stream.ending:
            return
        if answer is not None:
            self._reply(answer)
        else:
            target = turn.request.target
            front = self.stream.connection.front
            self._enter(turn, self.mount if target is self.url else front.find(target))

    def _enter(self, turn: Turn, mount: Mount | None) -> None:
        """The request is for `mount`, whose own hooks see it."""
        self.mount = mount
        if mount is None:
            self.answer(404, "no app is mounted here")
            return
        turn.request.mount = mount.prefix
        if mount.hooks is not None and mount.hooks.on_request:
            self._run(mount.hooks.on_request, self._on_entered, turn.request)
        else:
            self._on_entered(None)

    @guarded
    def _on_entered(self, answer: Response | None) -> None:
        turn, mount = self.turn, self.mount
        if turn is None or mount is None or self.gone or self.stream.ending:
            return
        request, body = turn.request, self._body
        try:
            headers = request.changed()
        except (TypeError, ValueError, RuntimeError) as error:
            answer = answer or turn.failed(error)
        if answer is not None:
            self._reply(answer)
        elif max(self.request.length or 0, self.size) > mount.max_body:
            self.answer(413, "the body of the request is too large")
        else:
            connection = self.stream.connection
            site = connection.front.site(connection.listener, mount, request.scheme, connection.listener.server)
            known: Headers | bytes = request.given if headers is None else headers
            if headers is None and not self.request.forwarded:
                known = self.request.block or known
            asked = (site, request.method, request.target, known, request.client, HTTP2)
            self.frame = (f.CALL_HTTP, self.id, mount.app, None, asked, body)
            self._submit(mount, turn)

    def _submit(self, mount: Mount, turn: Turn) -> None:
        self.stream.connection.front.requests += 1
        try:
            mount.engine.submit(self)
        except SubpoolError as error:
            self._not_taken(error)
            return
        self.dispatched = True
        self.wait()
        if self.stream.complete and self.stream.due > turn.due:
            self.stream.wait(turn.due)

    def wait(self) -> None:
        super().wait()
        if self.turn is not None and self.turn.waits:
            self.stream.wait(self.turn.due)

    # errors

    def _not_taken(self, error: SubpoolError) -> None:
        if self._error_row():
            self._ask_about(error, lambda: super(HookedH2Call, self)._not_taken(error))
        else:
            super()._not_taken(error)

    def fail(self, error: BaseException) -> None:
        if self.turn is not None and self.turn.behind is not None:
            self.turn.keep(self.fail, error)
        elif self.gone or self.stream.ending or self.stream.begun or not self._error_row():
            super().fail(error)
        else:
            self._settled()
            log_request(self.id, self.method, self.url, told(error))
            self._ask_about(error, lambda: self._break(*answer_for(error)))

    def _error_row(self) -> Row:
        chain = self._chain()
        return chain.on_error if self.turn is not None and chain is not None else ()

    def _ask_about(self, error: BaseException, otherwise: Callable[[], None]) -> None:
        """Have hooks answer for an error, else `otherwise` does."""
        turn, front = self.turn, self.stream.connection.front
        assert turn is not None

        def then(answer: Response | None) -> None:
            if not (self.gone or self.stream.ending):
                otherwise() if answer is None else self._reply(answer)

        if self.mount is not None:
            turn.due = front.now + self.mount.timeout  # the request's own may be over
        self._run(self._error_row(), then, turn.request, error)

    def _chain(self) -> Chain | None:
        mount = self.mount
        return mount.hooks if mount is not None and mount.hooks is not None else self.stream.connection.front.hooks

    def _row(self) -> Row:
        """The hooks that are to see the response."""
        turn, chain = self.turn, self._chain()
        return chain.on_response if turn is not None and not turn.responding and chain is not None else ()

    # responses of our own

    def answer(self, status: int, text: str, more: Headers | None = None) -> None:
        if self._row():
            if not self.stream.ending:
                self._reply(page(status, text, more))
        else:
            super().answer(status, text, more)

    def _reply(self, answer: Response) -> None:
        """A response of hooks, or of our own before hooks that see it."""
        turn, row = self.turn, self._row()
        if turn is None or not row:
            self._send(answer)
            return
        response = ResponseHead(answer.status, answer.headers)

        def then(failed: Response | None) -> None:
            if self.gone or self.stream.ending:
                return
            if failed is None:
                try:
                    found = Response(response.status, response.checked(head=True), answer.body)
                except (TypeError, ValueError, RuntimeError) as error:
                    found = turn.failed(error)
            self._send(found if failed is None else failed)

        turn.responding = True
        self._run(row, then, turn.request, response)

    def _send(self, answer: Response) -> None:
        connection = self.stream.connection
        none = answer.status in BODILESS
        size = UNKNOWN if none else len(answer.body)
        date = connection.front.config.date_header
        head = fields(answer.headers).head(answer.status, size, date, connection.server_header)
        self.status = answer.status
        self.stream.due = NEVER
        self.stream.answer(head, None if none or self.method == "HEAD" else answer.body)

    # those of the workers

    def whole(self, member: Hearing, frame: Frame, body: Any) -> None:
        row = self._row()
        if row and not (self.gone or self.stream.ending):
            self._respond(row, super().whole, member, frame, body)
        else:
            super().whole(member, frame, body)

    def wire(self, member: Hearing, frame: Frame, body: Any) -> None:
        turn = self.turn
        if turn is not None and not (self.gone or self.stream.ending):
            if turn.behind is not None:
                turn.keep(super().wire, member, frame, body)
                return
            if frame[3] & FIRST:
                row = self._row()
                if row:
                    self._respond(row, super().wire, member, frame, body)
                    return
            elif turn.drops and body is not None:
                self.wrote(0, len(body) + WEIGHT)
                member.drop(body)
                frame, body = (*frame[:5], None, *frame[6:]), None
        super().wire(member, frame, body)

    def finish(self, frame: Frame) -> None:
        if self.turn is not None and self.turn.behind is not None:
            self.turn.keep(super().finish, frame)
        else:
            super().finish(frame)

    @guarded
    def _respond(self, row: Row, pass_on: Any, member: Hearing, frame: Frame, body: Any) -> None:
        """Have hooks see the head of `frame`; then `pass_on` the frame, and what has come behind it."""
        turn = self.turn
        assert turn is not None
        response = ResponseHead(frame[2], frame[4][1:])

        def then(failed: Response | None) -> None:
            behind, turn.behind = turn.behind, None
            if behind is None:
                self._pass(response, failed, pass_on, member, frame, body)
                return
            for act, args in behind:
                if act == self._pass:
                    act(response, failed, pass_on, *args)
                else:
                    act(*args)

        turn.responding = True
        self._run(row, then, turn.request, response)
        if turn.waits:
            turn.behind = deque()
            turn.keep(self._pass, member, frame, body)

    @guarded
    def _pass(
        self, response: ResponseHead, failed: Response | None, pass_on: Any, member: Hearing, frame: Frame, body: Any
    ) -> None:
        """A worker's frame, with the head that hooks have left."""
        turn = self.turn
        assert turn is not None
        if failed is None and response.unchanged:
            pass_on(member, frame, body)
            return
        try:
            pairs = response.checked(head=self.method == "HEAD")
        except (TypeError, ValueError, RuntimeError) as error:
            failed = failed or turn.failed(error)
        if failed is not None:
            member.drop(body)
            self._send(failed)
            self._leave()
            return
        head = [(b":status", status_bytes(response.status)), *fields(pairs).pairs]
        tail = frame[6]
        if response.drops:
            turn.drops = True
            if body is not None:
                self.wrote(0, len(body) + WEIGHT)
                member.drop(body)
            body, tail = None, None
        pass_on(member, (*frame[:2], response.status, frame[3], head, None, tail, frame[7]), body)

    # the end

    def expired(self) -> None:
        turn = self.turn
        if turn is None or not turn.waits:
            super().expired()
            return
        log_request(self.id, self.method, self.url, LATE[1])
        turn.end()
        self.answer(*LATE)
        self._leave()

    def left(self) -> None:
        if self.turn is not None:
            self.turn.end()
        super().left()

    def ended(self) -> None:
        if self.turn is not None:
            self.turn.end()
        super().ended()
