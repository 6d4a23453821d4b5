"""Plain frames: what most frames of a WebSocket are, a whole message of at most 125 bytes (RFC 6455, section 5.2).

wsproto takes twenty microseconds for such a message. Only these are made and read here; whatever else comes, and
whatever is wrong, is wsproto's, which gets whole frames: `size` says where the next one begins.
"""

from __future__ import annotations

from typing import Final

TEXT, BINARY = 0x81, 0x82  # first bytes of plain frames
MOST: Final = 125
FEWEST: Final = 6  # bytes of a client's frame: it is masked
_LENGTHS: Final = {126: 2, 127: 8}  # bytes of the length, behind the first two, where they hold these


def size(data: bytes, at: int) -> int:
    """Of a client's frame that begins there, with its head. 0: too little of it is here to know."""
    if len(data) - at < 2:
        return 0
    second = data[at + 1]
    length, more = second & 0x7F, _LENGTHS.get(second & 0x7F, 0)
    if more:
        if len(data) - at < 2 + more:
            return 0
        length = int.from_bytes(data[at + 2 : at + 2 + more])
    return 2 + more + (4 if second & 0x80 else 0) + length


def payload(data: bytes, at: int, length: int) -> bytes:
    """Of a plain frame of a client, unmasked."""
    mask = int.from_bytes((data[at + 2 : at + 6] * (length // 4 + 1))[:length])
    return (int.from_bytes(data[at + 6 : at + 6 + length]) ^ mask).to_bytes(length)


def framed(kind: int, data: bytes) -> bytes:
    """A plain frame of a server."""
    return bytes((kind, len(data))) + data
