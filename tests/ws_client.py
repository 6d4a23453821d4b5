"""A WebSocket client of plain bytes, for what no real client sends."""

from __future__ import annotations

import asyncio
import contextlib
import struct
import zlib
from typing import Any, Self

import anyio
from conftest import DEADLINE

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="  # and its answer, of RFC 6455, section 1.3
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def port(server: Any) -> int:
    return int(server.addresses[0].rpartition(":")[2])


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, mask: bytes | None = b"\1\2\3\4"
) -> bytes:
    """A frame of a client (RFC 6455, section 5.2)."""
    size = len(payload)
    length = bytes([size]) if size < 126 else b"\x7e" + struct.pack("!H", size) if size < 65536 else (
        b"\x7f" + struct.pack("!Q", size)
    )  # fmt: skip
    if mask is not None:
        length = bytes([length[0] | 0x80]) + length[1:] + mask
        payload = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    return bytes([fin << 7 | rsv << 4 | opcode]) + length + payload


def upgrade(path: str, *more: bytes, without: tuple[bytes, ...] = (), target: bytes | None = None) -> bytes:
    """The request of a client; `without`: names of headers that it lacks."""
    headers = {
        b"host": b"example.test",
        b"upgrade": b"websocket",
        b"connection": b"Upgrade",
        b"sec-websocket-key": KEY,
        b"sec-websocket-version": b"13",
    }
    lines = [b"GET %s HTTP/1.1" % (target or path.encode())]
    lines += [b"%s: %s" % pair for pair in headers.items() if pair[0] not in without]
    return b"\r\n".join([*lines, *more, b"", b""])


class Raw:
    """A client of plain bytes."""

    def __init__(self, server: Any) -> None:
        self._server = server

    async def __aenter__(self) -> Self:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port(self._server), limit=1 << 24)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()

    async def open(self, path: str, *more: bytes) -> dict[bytes, bytes]:
        """Shake hands; the answer's headers."""
        self.send(upgrade(path, *more))
        status, headers, _ = await self.head()
        assert status == 101
        assert headers[b"sec-websocket-accept"] == ACCEPT
        assert headers[b"upgrade"].lower() == b"websocket"
        assert headers[b"connection"].lower() == b"upgrade"
        return headers

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def head(self) -> tuple[int, dict[bytes, bytes], list[tuple[bytes, bytes]]]:
        """Status and headers of a response; the headers as a dict, and as they came."""
        with anyio.fail_after(DEADLINE):
            lines = (await self.reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[:-2]
        pairs = []
        for line in lines[1:]:
            name, _, value = line.partition(b": ")
            pairs.append((name.lower(), value))
        return int(lines[0].split()[1]), dict(pairs), pairs

    async def frame(self) -> tuple[int, bytes]:
        """The server's next frame: its opcode, its payload."""
        with anyio.fail_after(DEADLINE):
            first, size = await self.reader.readexactly(2)
            assert first & 0x80, "a fragment"
            assert not size & 0x80, "a masked frame"
            if size == 126:
                (size,) = struct.unpack("!H", await self.reader.readexactly(2))
            elif size == 127:
                (size,) = struct.unpack("!Q", await self.reader.readexactly(8))
            return first & 15 | first & 0x70, await self.reader.readexactly(size)

    async def closed(self) -> tuple[int, bytes]:
        """Wait for the server's Close and the end of the connection: code and reason."""
        while True:
            opcode, payload = await self.frame()
            if opcode == CLOSE:
                break
        with anyio.fail_after(DEADLINE):
            assert await self.reader.read() == b""
        return (int.from_bytes(payload[:2]) if payload else 1005), payload[2:]

    async def rest(self) -> bytes:
        with anyio.fail_after(DEADLINE):
            return await self.reader.read()


def deflated(data: bytes) -> bytes:
    """A message as a client compresses it (RFC 7692, section 7.2.1)."""
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (deflater.compress(data) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]
