"""permessage-deflate (RFC 7692), the server's side, as an extension of wsproto.

wsproto's own inflates without a bound, and takes the rest of a compressed message for plain after a ping between its
frames. This one stops at the size limit of a message, and no earlier than one byte behind it: what a client sends in a
few bytes never becomes more memory than a message may take.
"""

from __future__ import annotations

import zlib
from typing import Any, Final

from wsproto.extensions import Extension
from wsproto.frame_protocol import CloseReason, Opcode, RsvBits

WINDOW: Final = 12  # bits of our window, with MEMORY some 32 KiB a connection instead of 256
MEMORY: Final = 5
_TAIL: Final = b"\x00\x00\xff\xff"  # what a message leaves out at its end (section 7.2.1)
_NONE: Final = RsvBits(False, False, False)
_COMPRESSED: Final = RsvBits(True, False, False)


class Deflate(Extension):
    """What was agreed on for one connection. `limit`: of an inflated message, in bytes."""

    name = "permessage-deflate"

    def __init__(self, limit: int, bits: int = WINDOW, *, keep: bool = True, client_keeps: bool = True) -> None:
        self._limit = limit
        self._bits = bits
        self._keep = keep  # our window stays from one message to the next
        self._client_keeps = client_keeps
        self._deflater: Any = None
        self._inflater: Any = None
        self._compressed = False  # the message that comes in
        self._inflating = False  # the frame that comes in: control frames between those of a message are plain
        self._size = 0

    def __repr__(self) -> str:
        return f"<Deflate {self._bits} bits>"

    def enabled(self) -> bool:
        return True

    def offer(self) -> bool:
        return False  # clients offer

    # in

    def frame_inbound_header(self, proto: Any, opcode: Opcode, rsv: RsvBits, payload_length: int) -> RsvBits:
        if opcode.iscontrol():
            self._inflating = False
            return _NONE
        if opcode is Opcode.CONTINUATION:
            self._inflating = self._compressed
            return _NONE
        self._compressed = self._inflating = rsv.rsv1
        self._size = 0
        if self._compressed and self._inflater is None:
            self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        return _COMPRESSED

    def frame_inbound_payload_data(self, proto: Any, data: bytes) -> bytes | CloseReason:
        return self._inflate(data) if self._inflating else data

    def frame_inbound_complete(self, proto: Any, fin: bool) -> bytes | CloseReason | None:
        if not fin or not self._inflating:
            return None
        if self._inflater.eof:  # a message may end with a final block (section 7.2.3.4)
            self._inflater = None
            return None
        rest = self._inflate(_TAIL)
        if not self._client_keeps:
            self._inflater = None
        return rest

    def _inflate(self, data: bytes) -> bytes | CloseReason:
        inflater = self._inflater
        try:
            out: bytes = inflater.decompress(data, self._limit - self._size + 1)
        except zlib.error:
            return CloseReason.INVALID_FRAME_PAYLOAD_DATA
        self._size += len(out)
        if self._size > self._limit:
            return CloseReason.MESSAGE_TOO_BIG
        if inflater.eof and inflater.unused_data.strip(b"\0"):
            return CloseReason.INVALID_FRAME_PAYLOAD_DATA
        return out

    # out

    def frame_outbound(
        self, proto: Any, opcode: Opcode, rsv: RsvBits, data: bytes, fin: bool
    ) -> tuple[RsvBits, bytes]:  # fmt: skip
        """Only whole messages are sent, so `fin` is true."""
        if opcode.iscontrol() or not data:
            return rsv, data
        if self._deflater is None:
            self._deflater = zlib.compressobj(zlib.Z_DEFAULT_COMPRESSION, zlib.DEFLATED, -self._bits, MEMORY)
        out = self._deflater.compress(data) + self._deflater.flush(zlib.Z_SYNC_FLUSH)
        if not self._keep:
            self._deflater = None
        return _COMPRESSED, out[: -len(_TAIL)]


def negotiate(offers: list[str], limit: int) -> tuple[Deflate, str] | None:
    """The first of the client's offers that can be taken, and the answer to it (section 7.1). None: there is none."""
    for offer in offers:
        name, *texts = (part.strip() for part in offer.split(";"))
        parameters = _parameters(texts) if name.lower() == Deflate.name else None
        if parameters is None:
            continue
        bits = min(WINDOW, parameters.get("server_max_window_bits", WINDOW))
        if bits < 9:  # zlib cannot
            continue
        keep = "server_no_context_takeover" not in parameters
        client_keeps = "client_no_context_takeover" not in parameters
        answer = f"{Deflate.name}; server_max_window_bits={bits}"
        if not keep:
            answer += "; server_no_context_takeover"
        if not client_keeps:
            answer += "; client_no_context_takeover"
        return Deflate(limit, bits, keep=keep, client_keeps=client_keeps), answer
    return None


def _parameters(texts: list[str]) -> dict[str, int] | None:
    """The parameters of an offer. None if one is unknown, wrong, or there twice: the offer is declined."""
    found: dict[str, int] = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.lower().partition("="))
        value = value.strip('"')
        if name in found:
            return None
        if name.endswith("_max_window_bits") and value in _BITS:
            found[name] = int(value)
        elif not equals and name != "server_max_window_bits":
            found[name] = 0
        else:
            return None
    return found if found.keys() <= _PARAMETERS else None


_BITS: Final = frozenset(map(str, range(8, 16)))
_PARAMETERS: Final = frozenset(
    f"{side}_{what}" for side in ("server", "client") for what in ("max_window_bits", "no_context_takeover")
)
