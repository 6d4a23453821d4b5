"""Keys as a store has them: bytes that no two keys share, of whatever type and in whatever namespace.

    entry     = namespace 00 key
    key       = "b" bytes | "i" hexadecimal | "s" UTF-8 | "t" part*
    part      = "b" escaped 00 | "i" hexadecimal 00 | "s" escaped 00 | "t" part* 00
    escaped     has 00 FF for each 00

A namespace has no NUL, so none is the beginning of another; no part begins with FF, so an escaped NUL ends nothing.
The keys that begin with some text, or the tuples that begin with some parts, have encodings that do so too: a prefix
is a range.
"""

from __future__ import annotations

from typing import Any, Final

Key = str | bytes | int | tuple["Key", ...]

LONGEST: Final = 2**20 + 1  # bytes of an encoded key
DEEPEST: Final = 8  # tuples in tuples
LONGEST_NAMESPACE: Final = 500  # characters


def check_namespace(name: Any, field: str = "state_namespace") -> None:
    """`TypeError`/`ValueError` unless `name` can be a namespace: text without NUL."""
    if not isinstance(name, str):
        raise TypeError(f"{field} is {name!r}; it must be a str")
    if not 0 < len(name) <= LONGEST_NAMESPACE or not name.isprintable():
        raise ValueError(f"{field} is {name[:60]!r}; it must be 1 to {LONGEST_NAMESPACE} printable characters")


def encode(key: Key) -> bytes:
    """`key` as bytes. `TypeError` for what is no key, `ValueError` for one that is too long."""
    kind = type(key)
    if kind is str:
        data = b"s" + key.encode("utf-8", "surrogatepass")  # type: ignore[union-attr]
    elif kind is bytes:
        data = b"b" + key  # type: ignore[operator]
    elif isinstance(key, tuple):
        data = b"t" + b"".join([_part(part, 1) for part in key])
    else:
        data = _scalar(key)
    if len(data) > LONGEST:
        raise ValueError(f"the key {named(key)} is too long: {len(data) - 1} bytes, and {LONGEST - 1} are the limit")
    return data


def _scalar(key: object) -> bytes:
    if isinstance(key, str):
        return b"s" + key.encode("utf-8", "surrogatepass")
    if isinstance(key, bytes):
        return b"b" + key
    if isinstance(key, int) and not isinstance(key, bool):
        return b"i%x" % key
    raise TypeError(f"{named(key)} is no key: keys are str, bytes, int or tuples of them, not {type(key).__name__}")


def _part(key: object, depth: int) -> bytes:
    if isinstance(key, tuple):
        if depth >= DEEPEST:
            raise ValueError(f"a key is {depth + 1} tuples deep, and {DEEPEST} are the limit")
        return b"t" + b"".join([_part(part, depth + 1) for part in key]) + b"\0"
    return _scalar(key).replace(b"\0", b"\0\xff") + b"\0"


def decode(data: bytes) -> Key:
    """The key that `encode` was given."""
    kind = data[:1]
    if kind != b"t":
        return _plain(kind, data[1:])
    parts, at = [], 1
    while at < len(data):
        part, at = _decode_part(data, at)
        parts.append(part)
    return tuple(parts)


def _plain(kind: bytes, data: bytes) -> Key:
    if kind == b"s":
        return data.decode("utf-8", "surrogatepass")
    return data if kind == b"b" else int(data, 16)


def _decode_part(data: bytes, at: int) -> tuple[Key, int]:
    kind = data[at : at + 1]
    at += 1
    if kind == b"t":
        parts = []
        while data[at] != 0:
            part, at = _decode_part(data, at)
            parts.append(part)
        return tuple(parts), at + 1
    end = data.index(b"\0", at)
    while data[end + 1 : end + 2] == b"\xff":
        end = data.index(b"\0", end + 2)
    return _plain(kind, data[at:end].replace(b"\0\xff", b"\0")), end + 1


def encode_prefix(prefix: str | bytes | tuple[Key, ...] | None) -> bytes:
    """What the encodings of all keys that begin with `prefix` begin with; None: of all keys."""
    if prefix is None:
        return b""
    if not isinstance(prefix, (str, bytes, tuple)):
        raise TypeError(f"{named(prefix)} is no prefix: a prefix is str, bytes or a tuple, not {type(prefix).__name__}")
    return encode(prefix)


def named(key: object) -> str:
    """`key` as a message names it, at most about 80 characters."""
    if isinstance(key, (str, bytes)) and len(key) > 60:
        return f"{key[:57]!r}..."
    if isinstance(key, int) and key.bit_length() > 200:
        return f"an int of {key.bit_length()} bits"
    if isinstance(key, tuple) and len(key) > 4:
        return f"a tuple of {len(key)} beginning with {named(key[0])}"
    if isinstance(key, tuple):
        parts = [named(part) if not isinstance(part, tuple) else "(...)" for part in key]
        return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"
    text = repr(key)
    return text if len(text) <= 80 else f"{text[:77]}..."


def end_of(prefix: bytes) -> bytes:
    """The least bytes that are greater than all that begin with `prefix`, of which not every byte is FF."""
    prefix = prefix.rstrip(b"\xff")
    return prefix[:-1] + bytes((prefix[-1] + 1,))
