"""The requests of an HTTP/1.1 connection between being read and being answered: in order, one at a time.

A small body is awaited and goes to the worker with the head; a large one goes in pieces, as the app asks for them, and
what it does not ask for is not read from the socket. What a client sends ahead waits until the answers are out.
"""

from __future__ import annotations

import logging
from typing import Final

from ..channels import frames as f
from ..errors import PoolOverloaded, SubpoolError
from .call import HTTPCall
from .failure import answer_for, log_request, told
from .front import NEVER, Listener, Mount
from .h1_reader import Reader
from .h1_writer import Writer
from .proxy import with_host
from .target import SLASH, authority, origin_form

log = logging.getLogger("subpool")

HELD: Final = 64 * 1024  # bytes of a body that are kept for an app that does not read
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Requests(Reader, Writer):
    """Reads of one connection become calls, and their answers are written."""

    listener: Listener
    client: tuple[str, int] | None
    _site: bytes  # of the only mount

    def data_received(self, data: bytes) -> None:
        raise NotImplementedError

    # bodies, from the reader

    def _body_follows(self, call: HTTPCall) -> None:
        if self._current is None and call is self._calls[0]:
            self._next()

    def _piece(self, call: HTTPCall) -> None:
        if call.dispatched:
            call.feed()
            if call.held:
                self._wait_for_reader(call)
            else:
                self.deadline = self.front.now + self._config.body_timeout
        elif call is self._current:
            self.deadline = self.front.now + self._config.body_timeout

    def _wait_for_reader(self, call: HTTPCall) -> None:
        """The app has not asked for what came: that is its time, not the client's."""
        self.deadline = self.front.now + call.mount.timeout if call.mount is not None and not call.begun else NEVER
        if call.held > HELD:
            self._read_no_more()

    def _request_over(self, call: HTTPCall) -> None:
        if call.dispatched:
            call.feed()
            if call is self._current and not call.begun and call.mount is not None:
                self.deadline = self.front.now + call.mount.timeout
        elif call is self._current:
            self._dispatch(call)

    # to the workers

    def _next(self) -> None:
        """Take the next request that came, if its head is here."""
        while self._current is None and self._calls and not self._lingering:
            call = self._calls[0]
            if call.status:  # refused
                self._calls.popleft()
                self._answer(call, *(self._refusal or (call.status, "")))
            elif not call.headers_complete:
                return
            else:
                self._calls.popleft()
                self._current = call
                if self._route(call):
                    if call.complete or call.streamed:
                        self._dispatch(call)
                    else:
                        self.deadline = self.front.now + self._config.body_timeout

    def _route(self, call: HTTPCall) -> bool:
        """Find the mount. False if the request was answered here."""
        target = call.url
        if target[0] != SLASH and target != b"*":
            # its authority counts in place of Host (RFC 9112, section 3.2.2)
            call.headers = with_host(call.headers, authority(target))
            target = call.url = origin_form(target)
        mount = self.front.only or self.front.find(target)
        if mount is None:
            self._answer(call, 404, "no app is mounted here", close=not call.complete)
            return False
        call.mount = mount
        if (call.length or call.size) > mount.max_body:
            self._answer(call, 413, "the body of the request is too large")
            return False
        return True

    def _dispatch(self, call: HTTPCall) -> None:
        front, mount = self.front, call.mount
        assert mount is not None
        listener = self.listener
        client, scheme = self.client, listener.scheme
        if call.forwarded:
            client, scheme, call.headers = front.speaker(listener, client, call.headers)
            call.client = client
        if front.only is not None and scheme == listener.scheme:
            site = self._site
        else:
            site = front.site(listener, mount, scheme, listener.server)
        if call.streamed:
            body = None
        else:
            parts = call.parts
            body = b"" if not parts else parts[0] if len(parts) == 1 else b"".join(parts)
        request = (site, call.method, call.url, call.block or call.headers, client, call.flags)
        call.frame = (f.CALL_HTTP, call.id, mount.app, None, request, body)
        self._submit(call, mount)

    def _submit(self, call: HTTPCall, mount: Mount) -> None:
        front = self.front
        call.dispatched = True
        front.requests += 1
        call.started_at = front.now if front.access is None else front.loop.time()
        try:
            mount.engine.submit(call)
        except SubpoolError as error:
            self._not_taken(call, error)
        else:
            if call.complete or not call.streamed:
                self.deadline = front.now + mount.timeout
            else:
                self.deadline = front.now + self._config.body_timeout

    def _not_taken(self, call: HTTPCall, error: SubpoolError) -> None:
        """The pool takes no request."""
        if isinstance(error, PoolOverloaded):
            self._answer(call, 503, "too many requests wait", more=[(b"retry-after", b"1")], close=call.streamed)
        else:
            log.error("%s %s: %s", call.method, call.url.decode("latin-1"), error)
            self._answer(call, 503, "not available")

    def on_wanted(self, call: HTTPCall) -> None:
        """The app asks for its body."""
        if call is not self._current:
            return
        if call.expect and not call.begun and not call.complete:
            call.expect = False
            self._transport.write(CONTINUE)
        call.feed()
        if not call.complete:
            if call.wants:
                self.deadline = self.front.now + self._config.body_timeout
            self._read_on()

    def on_end(self, call: HTTPCall) -> None:
        """The app has returned."""
        if call is self._current and self._sender is None:  # without the end of its response
            self._abort(call)

    def on_error(self, call: HTTPCall, error: BaseException) -> None:
        """The request failed. After the start there is no way but to break off."""
        log_request(call.id, call.method, call.url, told(error))
        if call is not self._current:
            return
        if call.begun:
            self._abort(call)
        else:
            self._answer(call, *answer_for(error), close=not call.complete)

    def _go_on(self) -> None:
        """To the next request, if some of it is here, and if the client takes the answers."""
        if self._paused:
            self.deadline = self.front.now + self._config.write_timeout
            return
        self._next()
        if self._current is None or not self._current.complete:
            pending, self._pending = self._pending, b""
            if pending:
                self.data_received(pending)
            if not self._pending:
                self._read_on()
        self._resting = self._current is None and self._parsing is None and not (
            self._head or self._calls or self._pending or self._lingering
        )  # fmt: skip

    def _read_no_more(self) -> None:
        if self._reading:
            self._reading = False
            self._transport.pause_reading()

    def _read_on(self) -> None:
        if not self._reading and not self._pending:
            self._reading = True
            self._transport.resume_reading()
