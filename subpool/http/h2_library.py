"""The library h2 as a server's connection uses it: what it is told to leave to us, and what it need not do twice.

Clients repeat their header lists, and apps theirs. A block that left its table as it was (every header was indexed, or
literal without indexing) means the same for as long as the table stays as it is: then it is neither decoded nor encoded
again (RFC 7541, section 2.3). A table is as it was if its newest entry, its length and its limit are: entries come at
one end and go at the other.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import hpack
from h2.config import H2Configuration
from h2.connection import ConnectionState, H2Connection
from h2.errors import ErrorCodes
from h2.settings import SettingCodes, Settings
from hpack.table import HeaderTable
from hyperframe.frame import GoAwayFrame, SettingsFrame

KNOWN: Final = 32  # blocks that are remembered, each way
SMALL: Final = 1024  # bytes of such a block
FEW: Final = 64  # headers in it
TIDY: Final = 32  # streams after which the library looks for those that are over
TABLE: Final = 4096  # bytes of the table that our headers are compressed with, whatever the client allows
_CONFIG: Final = H2Configuration(
    client_side=False, header_encoding=None, validate_inbound_headers=False, normalize_inbound_headers=False,
    validate_outbound_headers=False, normalize_outbound_headers=False,
)  # fmt: skip
_UPDATE: Final = 0x20  # how a block begins that changes the limit of the table (RFC 7541, section 6.3)


class Memo:
    """What blocks meant while `table` was as it is."""

    __slots__ = ("_length", "_limit", "_newest", "_table", "known")

    def __init__(self, table: HeaderTable) -> None:
        self._table = table
        self._newest: Any = None
        self._length = 0
        self._limit = table.maxsize
        self.known: dict[Any, Any] = {}

    def __repr__(self) -> str:
        return f"<Memo of {len(self.known)} blocks>"

    def holds(self) -> bool:
        """Whether the table is as it was. If not, nothing is known any more."""
        entries = self._table.dynamic_entries
        newest = entries[0] if entries else None
        if newest is self._newest and len(entries) == self._length and self._table.maxsize == self._limit:
            return True
        self._newest, self._length, self._limit = newest, len(entries), self._table.maxsize
        self.known.clear()
        return False


class Decoder(hpack.Decoder):
    """What it gives is not to be changed."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._memo = Memo(self.header_table)

    def decode(self, data: bytes, raw: bool = False) -> Iterable[Any]:
        memo = self._memo
        memo.holds()
        found = memo.known.get(data) if raw else None
        if found is None:
            found = list(super().decode(data, raw))
            small = 0 < len(data) <= SMALL and len(found) <= FEW and len(memo.known) < KNOWN
            if memo.holds() and raw and small and data[0] & 0xE0 != _UPDATE:
                memo.known[data] = found
        return found


class Encoder(hpack.Encoder):
    """Headers are a list of pairs of bytes."""

    def __init__(self) -> None:
        super().__init__()
        self._memo = Memo(self.header_table)

    @property
    def header_table_size(self) -> int:
        return self.header_table.maxsize

    @header_table_size.setter
    def header_table_size(self, value: int) -> None:
        if value != self.header_table.maxsize:  # else the library forgets a change that it has not told yet
            self.header_table.maxsize = value
            self.table_size_changes.append(value)

    def encode(self, headers: Any, huffman: bool = True) -> bytes:
        memo = self._memo
        if self.header_table.resized or not huffman:
            return super().encode(headers, huffman)
        memo.holds()
        key = tuple(headers)
        found: bytes | None = memo.known.get(key)
        if found is None:
            found = super().encode(headers, huffman)
            if memo.holds() and len(memo.known) < KNOWN and len(found) <= SMALL:
                memo.known[key] = found
        return found


class Library(H2Connection):
    """A server's end of a connection. `limit`: bytes of a header list, above which the connection ends."""

    def __init__(self, limit: int) -> None:
        super().__init__(_CONFIG)
        allowed = self.decoder.max_allowed_table_size
        self.encoder = Encoder()
        self.decoder = Decoder(limit)
        self.decoder.max_allowed_table_size = allowed
        self._begun = 0  # streams since those that are over were last looked for

    def __repr__(self) -> str:
        return f"<Library {len(self.streams)} streams>"

    def greet(self, streams: int, held: int, headers: int) -> bytes:
        """What we take (section 3.4): streams at once, bytes a stream before its app reads, bytes of a header list."""
        said = {
            SettingCodes.MAX_CONCURRENT_STREAMS: streams,
            SettingCodes.MAX_HEADER_LIST_SIZE: headers,
            SettingCodes.INITIAL_WINDOW_SIZE: held,
            SettingCodes.ENABLE_CONNECT_PROTOCOL: 1,
        }
        # The library ends a connection that has a stream too many; we refuse the stream.
        meant = {**said, SettingCodes.MAX_CONCURRENT_STREAMS: 2**31 - 1}
        self.local_settings = Settings(client=False, initial_values=meant)
        self.initiate_connection()
        self.clear_outbound_data_buffer()
        self.increment_flow_control_window((streams - 1) * held)  # so that no stream keeps another from being read
        return bytes(SettingsFrame(0, settings={int(code): value for code, value in said.items()}).serialize())

    @property
    def open_inbound_streams(self) -> int:
        """The library counts them before each request, and forgets those that are over. The limit is ours, so now and
        then is enough."""
        self._begun += 1
        return 0 if self._begun % TIDY else super().open_inbound_streams

    def bound(self) -> None:
        """The client has changed its settings: our table stays as small as we like."""
        if self.encoder.header_table_size > TABLE:
            self.encoder.header_table_size = TABLE

    def go_on(self) -> None:
        """After GOAWAY of the client, which for the library is the end of everything."""
        self.state_machine.state = ConnectionState.SERVER_OPEN

    def goaway(self) -> bytes:
        """GOAWAY, to go on with what is under way. Not by the library, which would send nothing more."""
        last = self.highest_inbound_stream_id
        return bytes(GoAwayFrame(0, last_stream_id=last, error_code=int(ErrorCodes.NO_ERROR)).serialize())
