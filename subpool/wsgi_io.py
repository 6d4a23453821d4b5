"""The streams of a WSGI environ (PEP 3333, "Input and Error Streams", "Optional Platform-Specific File Handling")."""

from __future__ import annotations

import io
import logging

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

_log = logging.getLogger("subpool.wsgi")

_LINE_LIMIT = 65536  # characters of an unfinished line that ErrorStream keeps before it logs them


def make_input(data: bytes, pull: Callable[[], bytes] | None) -> io.BytesIO | InputStream:
    """`wsgi.input` for a body that begins with `data`; `pull` brings the rest (None: there is no more)."""
    return io.BytesIO(data) if pull is None else InputStream(data, pull)


class InputStream:
    """`wsgi.input` over a body that is still arriving; reads as io.BytesIO would, keeps one piece at a time.

    `pull()` waits for the next piece and returns b"" at the end; after that it is not called again. What it
    raises (OSError when the client has gone) comes out of the read.
    """

    __slots__ = ("_data", "_pos", "_pull")

    def __init__(self, data: bytes, pull: Callable[[], bytes] | None) -> None:
        self._data = data
        self._pos = 0  # first byte of _data that was not read yet
        self._pull = pull

    def __repr__(self) -> str:
        state = "open" if self._pull else "all here"
        return f"<InputStream {len(self._data) - self._pos} bytes ahead, {state}>"

    def _more(self) -> bool:
        """Take the next piece in place of the one that is used up; False at the end."""
        piece = self._pull() if self._pull is not None else b""
        if not piece:
            self._pull = None
        self._data = piece
        self._pos = 0
        return bool(piece)

    def _take(self, end: int) -> bytes:
        """The bytes from the position up to `end` (an index into the piece), which may lie behind it."""
        data = self._data[self._pos : end] if self._pos or end < len(self._data) else self._data
        self._pos += len(data)
        return data

    def read(self, size: int | None = -1, /) -> bytes:
        """`size` bytes, fewer only at the end; all that is left if `size` is negative or None."""
        parts: list[bytes] = []
        if size is None or size < 0:
            parts.append(self._take(len(self._data)))
            while self._more():
                parts.append(self._take(len(self._data)))
        else:
            while True:
                part = self._take(self._pos + size)
                parts.append(part)
                size -= len(part)
                if not size or not self._more():
                    break
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def readline(self, size: int | None = -1, /) -> bytes:
        """The next line with its end, at most `size` bytes of it; b"" at the end of the body."""
        left = -1 if size is None or size < 0 else size
        parts: list[bytes] = []
        while left:
            newline = self._data.find(b"\n", self._pos) + 1
            end = newline or len(self._data)
            part = self._take(end if left < 0 else min(end, self._pos + left))
            parts.append(part)
            if left > 0:
                left -= len(part)
            if part.endswith(b"\n") or (left and not self._more()):
                break
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def readlines(self, hint: int | None = -1, /) -> list[bytes]:
        """The lines that are left; with a positive `hint` no more once they hold `hint` bytes."""
        lines: list[bytes] = []
        total = 0
        for line in self:
            lines.append(line)
            total += len(line)
            if hint is not None and 0 < hint <= total:
                break
        return lines

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        line = self.readline()
        if not line:
            raise StopIteration
        return line


class ErrorStream:
    """`wsgi.errors`: each whole line becomes an ERROR record of the logger "subpool.wsgi".

    An unfinished line waits for its end, for `flush()` (which the worker also calls after the request), or
    for 65,536 characters. `request`, its number, goes onto each record.
    """

    __slots__ = ("_partial", "_request")

    def __init__(self, request: int | None = None) -> None:
        self._partial = ""
        self._request = request

    def _log(self, line: str) -> None:
        _log.error("%s", line, extra=None if self._request is None else {"request": self._request})

    def write(self, text: str, /) -> int:
        """Take `text`; returns its length in characters. Raises TypeError for anything but str."""
        if not isinstance(text, str):
            raise TypeError(f"wsgi.errors takes str, not {type(text).__name__}")
        *lines, self._partial = (self._partial + text).split("\n")
        for line in lines:
            self._log(line)
        if len(self._partial) >= _LINE_LIMIT:
            self.flush()
        return len(text)

    def writelines(self, lines: Iterable[str], /) -> None:
        """Take several texts; no line ends are added."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Log a line that has no end yet."""
        line, self._partial = self._partial, ""
        if line:
            self._log(line)


class FileWrapper:
    """`wsgi.file_wrapper` (PEP 3333): the bytes of `filelike` in blocks of `blksize` bytes."""

    def __init__(self, filelike: Any, blksize: int = 8192) -> None:
        self.filelike = filelike
        self.blksize = blksize
        if hasattr(filelike, "close"):  # only then has the wrapper one too
            self.close = filelike.close

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        data: bytes = self.filelike.read(self.blksize)
        if not data:
            raise StopIteration
        return data
