"""The target of a request: in origin form, and as mounts see it."""

from __future__ import annotations

from typing import Final
from urllib.parse import unquote_to_bytes

SLASH: Final = ord("/")


def origin_form(target: bytes) -> bytes:
    """Path and query of `target`, which may be in absolute form (RFC 9112, section 3.2.2); "*" stays what it is.

    A fragment, which no client should send, is cut off.
    """
    if target[:1] != b"/" and target != b"*":
        _, _, rest = target.partition(b"://")
        authority, slash, path = rest.partition(b"/")
        query = authority.partition(b"?")[2]
        target = slash + path if slash else b"/" + (b"?" + query if query else b"")
    return target.partition(b"#")[0] if b"#" in target else target


def authority(target: bytes) -> bytes:
    """Host, and port if there is one, of a target in absolute form."""
    host = target.partition(b"://")[2]
    for end in (b"/", b"?", b"#"):
        host = host.partition(end)[0]
    return host.rpartition(b"@")[2]


def decoded(raw_path: bytes) -> str:
    """`raw_path` percent-decoded (ASGI HTTP 2.5, `path`)."""
    return (unquote_to_bytes(raw_path) if b"%" in raw_path else raw_path).decode("utf-8", "replace")


def mount_path(raw_path: bytes) -> str:
    """The path that prefixes of mounts are compared with: percent-decoded, but an encoded "/" is no boundary."""
    return decoded(raw_path.replace(b"%2F", b"%252F").replace(b"%2f", b"%252F"))
