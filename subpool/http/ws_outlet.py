"""What goes to the client of a WebSocket, and what the app may send meanwhile.

Messages that a worker sent together are written together. The app may send as fast as the client reads: what it sent is
acknowledged while the carrier has room.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..channels import frames as f

if TYPE_CHECKING:
    from ..hostcall import Call
    from .ws_carrier import Carrier

ACK: Final = 64 * 1024  # bytes for the client that the worker is told of at once


class Outlet:
    """For the app that runs as `call`. `behind`: the client does not read."""

    __slots__ = ("_call", "_carrier", "_parts", "_unacknowledged", "_unsent", "behind")

    def __init__(self, carrier: Carrier, call: Call) -> None:
        self._carrier = carrier
        self._call = call
        self._parts: list[bytes] = []  # of what the worker has sent now
        self._unsent = 0  # bytes that were with the carrier when last looked at
        self._unacknowledged = 0  # bytes that the app waits for
        self.behind = False

    def __repr__(self) -> str:
        return f"<Outlet{' behind' if self.behind else ''}, {self._unacknowledged} bytes unacknowledged>"

    def send(self, data: bytes, size: int) -> None:
        """A message of the app's, `size` as the worker counts. It is written with the others, by `flush`."""
        if not self._parts and self._call.member is not None:
            self._call.member.speaking.append(self._call)
        self._parts.append(data)
        self._unacknowledged += size

    def flush(self) -> None:
        parts = self._parts
        if parts:
            self._parts = []
            self._carrier.write(parts[0] if len(parts) == 1 else b"".join(parts))
        if self._unacknowledged >= ACK:
            self.acknowledge()

    def write(self, data: bytes) -> None:
        """Words of our own: at once, behind all that was sent."""
        if self._parts:
            self.flush()
        self._carrier.write(data)

    def count(self, size: int) -> None:
        """So many bytes of the app's have gone another way."""
        self._unacknowledged += size
        if self._unacknowledged >= ACK:
            self.acknowledge()

    def acknowledge(self) -> None:
        """Let the app send on, if the client reads."""
        member = self._call.member
        if self._unacknowledged and not self.behind and member is not None:
            member.link.flow((f.ACK, self._call.id, self._unacknowledged))
            self._unacknowledged = 0

    def full(self) -> None:
        """The client does not read what was written."""
        self.behind = True
        self._unsent = self._carrier.unsent()

    def room(self) -> None:
        """The client has read everything."""
        self.behind = False
        self.acknowledge()

    def advanced(self) -> bool:
        """Whether the client has read anything since it was asked last."""
        before, self._unsent = self._unsent, self._carrier.unsent()
        return self._unsent < before
