"""What a WebSocket session asks of the connection, or stream, that carries it."""

from __future__ import annotations

from typing import Protocol

from ..types import Headers


class Carrier(Protocol):
    """A connection of HTTP/1.1, or a stream of HTTP/2 (RFC 8441).

    It calls the session's `receive` with what comes, `full` and `room` as its client falls behind and catches up,
    `expired` when `deadline` (seconds, of the loop's clock) has passed, and `left` when it is gone, however that came.
    """

    deadline: float

    def accept(self, headers: Headers) -> None:
        """Answer that the WebSocket is open. `headers`: the subprotocol and extensions agreed on, and the app's own."""

    def refuse(self, status: int, text: str, headers: Headers) -> None:
        """A whole response of the server's own, in place of `accept`, and the end."""

    def deny(self, status: int, headers: Headers) -> None:
        """The start of a response of the app's, in place of `accept`."""

    def deny_body(self, data: bytes, more: bool) -> None:
        """A piece of its body; the last is the end."""

    def write(self, data: bytes) -> None:
        """Frames for the client."""

    def unsent(self) -> int:
        """The bytes that were written and are still here."""

    def read_on(self, on: bool) -> None:
        """Read what the client sends, or leave it there."""

    def close(self, clean: bool) -> None:
        """Nothing more is written. `clean`: nothing more comes either; else what comes is dropped."""

    def abort(self) -> None:
        """End now."""
