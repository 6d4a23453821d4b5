"""A look at what a client of HTTP/2 sends, before anything is made of it: a flood ends the connection.

RFC 9113, section 10.5. Frames that cost us work and bring the client nothing (resets, pings, settings, empty frames)
are paid from a budget that time refills, and that what is really served refills faster. Only the nine bytes at the head
of a frame are read, so that a flood costs less to refuse than to send.

| flood | known as |
|---|---|
| streams opened and reset | CVE-2023-44487, CVE-2019-9514; made to be reset by us: CVE-2025-8671 |
| PING, SETTINGS | CVE-2019-9512, CVE-2019-9515 |
| header blocks without end | CVE-2024-27316, CVE-2019-9518 |
| frames without content, WINDOW_UPDATE, PRIORITY | CVE-2019-9518, CVE-2019-9513, CVE-2019-9511 |
"""

from __future__ import annotations

import struct
from typing import Final

BUDGET: Final = 2000  # points at the start and at most
REFILL: Final = 200  # points a second
SERVED: Final = 10  # points for a response, so many as a reset costs
SENT: Final = 4  # points for a DATA frame of ours: what window updates for it may cost

FRAME: Final = 16 * 1024  # bytes of a frame's content: we allow no more

RESET: Final = 10  # points for a stream that ends by a reset, whoever sent it
REFUSED: Final = 2  # points for a stream above the limit

_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _CONTINUATION = 0, 1, 3, 4, 6, 7, 9
_COST: Final = {_RST_STREAM: RESET, _SETTINGS: 20, _PING: 5, _GOAWAY: 20}  # anything else: 1
_FREE: Final = frozenset({_DATA, _HEADERS})
_BLOCK: Final = frozenset({_HEADERS, _CONTINUATION})
_ANSWERED: Final = frozenset({_SETTINGS, _PING})
_FRAME_SIZE_ERROR: Final = 0x6
_ACK: Final = 0x1
_END_STREAM: Final = 0x1
_END_HEADERS: Final = 0x4
_EMPTY: Final = 10  # points for a frame that must have content and has none
_PREFACE: Final = 24  # bytes before the first frame
_HEAD: Final = struct.Struct(">HBBBL")  # length in two fields, type, flags, stream


class Flood(Exception):
    """The client sends what is no use of a connection. The text says what was too much, `code` is for GOAWAY."""

    def __init__(self, text: str, code: int = 0xB) -> None:  # ENHANCE_YOUR_CALM
        super().__init__(text)
        self.code = code


class Guard:
    """One connection's. `block`: bytes that a header block may have, encoded."""

    __slots__ = ("_block", "_budget", "_cut", "_head", "_limit", "_skip", "_when")

    def __init__(self, block: int, now: float) -> None:
        self._limit = block
        self._budget: float = BUDGET
        self._when = now
        self._skip = _PREFACE  # bytes that belong to what was looked at
        self._cut = False  # they are to be cut at their end
        self._head = b""  # part of a frame's head
        self._block = 0  # bytes of the header block that has not ended

    def __repr__(self) -> str:
        return f"<Guard {self._budget:.0f} of {BUDGET}>"

    def earn(self, points: int) -> None:
        """The connection is of use."""
        self._budget += points

    def spend(self, points: int) -> None:
        """What cannot be seen from outside was of no use; the next `look` counts it."""
        self._budget -= points

    def look(self, data: bytes, now: float) -> list[int]:
        """Where to cut what came: behind header blocks, before and behind GOAWAY. `Flood` if it is too much."""
        self._budget = min(BUDGET, self._budget + (now - self._when) * REFILL)
        self._when = now
        cuts: list[int] = []
        at, size = self._skip, len(data)
        head = self._head
        if self._cut and at <= size:
            cuts.append(at)
            self._cut = False
        while at < size:
            if head or size - at < 9:
                missing = 9 - len(head)
                head += data[at : at + missing]
                at += missing
                if len(head) < 9:
                    self._head = head
                    at = size
                    break
                high, low, kind, flags, _ = _HEAD.unpack(head)
                self._head = head = b""
            else:
                high, low, kind, flags, _ = _HEAD.unpack_from(data, at)
                at += 9
            length = (high << 8) | low
            if length > FRAME:  # the library would wait for all of it
                raise Flood(f"a frame of {length} bytes", _FRAME_SIZE_ERROR)
            if kind == _GOAWAY:
                cuts.append(max(0, at - 9))
            at += length
            if kind not in _FREE or not length:
                self._charge(kind, flags, length)
            if kind in _BLOCK:
                self._block = length if kind == _HEADERS else self._block + length
                if self._block > self._limit:
                    raise Flood("a header block without end")
            if kind == _GOAWAY or (kind in _BLOCK and flags & _END_HEADERS):
                if at <= size:
                    cuts.append(at)
                else:
                    self._cut = True
        self._skip = at - size
        return cuts

    def _charge(self, kind: int, flags: int, length: int) -> None:
        if kind in _ANSWERED and flags & _ACK:
            return
        cost = _COST.get(kind, 1)
        if not length and kind in (_DATA, _HEADERS, _CONTINUATION):
            if kind == _DATA and flags & _END_STREAM:
                return
            cost = _EMPTY
        self._budget -= cost
        if self._budget < 0:
            raise Flood(f"too many frames of kind {kind}")
