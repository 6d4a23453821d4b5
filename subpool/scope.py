"""ASGI scopes: checked and packed on the host, built in the worker.

A scope has a static part (type, asgi, http_version, method, scheme, root_path, server, extensions, subprotocols), the
same for many requests, and a part of its own (path, raw_path, query_string, headers, client, state). Packed it is a
*head*: the static part as one marshalled blob, then the rest. The host keeps the blobs that it made, a worker the
dictionaries that it made of them: at most 64 each, least recently used out first, keyed by every static field and never
by client or headers. What an app changes in its scope no later request sees: all mutable parts are copies.

Fields, which are required, and defaults: ASGI HTTP connection scope 2.5 (and WebSocket 2.5).
"""

from __future__ import annotations

import marshal
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final

from .types import Headers

Head = tuple[bytes, str, bytes | None, bytes, Headers, tuple[str, int | None] | None, bytes | None]

TEMPLATES: Final = 64
ASGI: Final = {"version": "3.0", "spec_version": "2.5"}
_SCHEMES: Final = {"http": "http", "websocket": "ws"}

_blobs: OrderedDict[tuple[Any, ...], bytes] = OrderedDict()


class ScopeTemplate:
    """A checked scope to use again and again: `run_asgi` takes it in place of a dictionary. Immutable."""

    __slots__ = ("fields", "head", "type")

    def __init__(self, fields: dict[str, Any]) -> None:
        self.fields = fields
        self.type: str = fields["type"]
        self.head = pack(fields)

    def __repr__(self) -> str:
        return f"<ScopeTemplate {self.fields.get('method', 'GET')} {self.head[1]!r}>"

    def replace(self, **changes: Any) -> ScopeTemplate:
        """A template that differs in `changes` (any scope field). `TypeError`/`ValueError` name a bad one.

        A new `path` without a `raw_path` takes the old `raw_path` away: it is derived from the path again.
        """
        if changes.keys() <= {"path", "query_string", "headers"}:
            new = object.__new__(ScopeTemplate)
            blob, path, raw_path, query, headers, client, state = self.head
            if "path" in changes:
                path, raw_path = _typed("path", changes["path"], str), None
            if "query_string" in changes:
                query = _typed("query_string", changes["query_string"], bytes)
            if "headers" in changes:
                headers = pack_headers(changes["headers"])
            new.type = self.type
            new.head = (blob, path, raw_path, query, headers, client, state)
            new.fields = {**self.fields, **changes}
            if "path" in changes:
                new.fields.pop("raw_path", None)
            return new
        fields = {**self.fields, **changes}
        if "path" in changes and "raw_path" not in changes:
            fields.pop("raw_path", None)
        return ScopeTemplate(fields)


def build_scope(
    scope: Mapping[str, Any],
    *,
    state: Mapping[str, Any] | None = None,
    extensions: Mapping[str, Any] | None = None,
) -> ScopeTemplate:
    """A reusable template of `scope`, checked once, its static part packed once.

    `state` and `extensions` are added to those of the scope. `TypeError`/`ValueError` name the field that is wrong.
    """
    fields = dict(scope)
    if state is not None:
        fields["state"] = {**(fields.get("state") or {}), **state}
    if extensions is not None:
        fields["extensions"] = {**(fields.get("extensions") or {}), **extensions}
    if "type" not in fields:
        raise ValueError("scope has no 'type'")
    return ScopeTemplate(fields)


def pack(scope: Mapping[str, Any]) -> Head:
    """`scope` as a head. `ValueError` for a field that is missing or unknown, `TypeError` for one of a wrong type."""
    try:
        get = scope.get
    except AttributeError:
        raise TypeError(f"scope is {type(scope).__name__}; it must be a dict or a ScopeTemplate") from None
    path = get("path")
    if type(path) is not str:
        path = _typed("path", _required(scope, "path"), str)
    raw_path = get("raw_path")
    if raw_path is not None and type(raw_path) is not bytes:
        raw_path = _typed("raw_path", raw_path, bytes)
    query = get("query_string", b"")
    if type(query) is not bytes:
        query = _typed("query_string", query, bytes)
    headers = get("headers")
    state = get("state")
    client = get("client")
    server = get("server")
    asgi = get("asgi")
    extensions = get("extensions")
    subprotocols = get("subprotocols")
    if client is not None and not (type(client) is tuple and len(client) == 2 and type(client[1]) is int
                                   and type(client[0]) is str):  # fmt: skip
        client = _address("client", client)
    if server is not None and type(server) is not tuple:
        server = _address("server", server)
    if asgi:
        versions = (asgi.get("version"), asgi.get("spec_version")) if type(asgi) is dict and len(asgi) == 2 else ()
        plain = versions and type(versions[0]) is str and type(versions[1]) is str
        asgi = versions if plain else _frozen("asgi", asgi)
    if state is not None:
        state = _frozen("state", state)
    key = (
        get("type"), get("http_version"), get("method"), get("scheme"), get("root_path"), server, asgi or None,
        _frozen("extensions", extensions) if extensions else None, _listed(subprotocols) if subprotocols else None,
    )  # fmt: skip
    try:
        blob = _blobs.get(key)
    except TypeError:  # an unhashable field: `_pack_static` names it
        blob = None
    if blob is None:
        blob = _pack_static(scope, key)
    return blob, path, raw_path, query, pack_headers(headers) if headers else [], client, state


def pack_headers(headers: Any) -> Headers:
    """`headers` as pairs of bytes with lower-case names, in order. `TypeError` names the pair that is none."""
    try:
        pairs = list(headers)
        for name, value in pairs:
            if type(name) is not bytes or type(value) is not bytes or not name.islower():
                return [_header(name, value) for name, value in pairs]
    except (TypeError, ValueError) as error:
        if str(error).startswith("scope["):
            raise
        raise TypeError(f"scope['headers'] must hold (name, value) pairs of bytes, not {headers!r:.80}") from None
    return pairs


def _header(name: Any, value: Any) -> tuple[bytes, bytes]:
    if type(name) is not bytes or type(value) is not bytes:
        raise TypeError(f"scope['headers']: ({name!r}, {value!r}) must be a pair of bytes")
    return name.lower(), value


def _pack_static(scope: Mapping[str, Any], key: tuple[Any, ...]) -> bytes:
    kind = _typed("type", _required(scope, "type"), str)
    if kind not in _SCHEMES:
        raise ValueError(f"scope['type'] is {kind!r}; it must be 'http' or 'websocket'")
    static: dict[str, Any] = {
        "type": kind,
        "http_version": _typed("http_version", scope.get("http_version", "1.1"), str),
        "scheme": _typed("scheme", scope.get("scheme", _SCHEMES[kind]), str),
        "root_path": _typed("root_path", scope.get("root_path") or "", str),
        "server": None if key[5] is None else _address("server", key[5]),
        "asgi": {**ASGI, **(scope.get("asgi") or {})},
        "extensions": dict(scope.get("extensions") or {}),
    }
    if kind == "http":
        static["method"] = _typed("method", scope.get("method", "GET"), str).upper()
    else:
        static["subprotocols"] = list(key[8] or ())
    blob = marshal.dumps(static)
    if all(part is None or type(part) in (str, bytes, tuple) for part in key):
        _blobs[key] = blob
        if len(_blobs) > TEMPLATES:
            _blobs.popitem(last=False)
    return blob


def _required(scope: Mapping[str, Any], field: str) -> Any:
    try:
        return scope[field]
    except KeyError:
        raise ValueError(f"scope has no {field!r}, which is required") from None


def _typed(field: str, value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"scope[{field!r}] is {type(value).__name__}, not {kind.__name__}")
    return kind(value) if type(value) is not kind else value


def _address(field: str, value: Any) -> tuple[str, int | None]:
    try:
        host, port = value
    except (TypeError, ValueError):
        raise TypeError(f"scope[{field!r}] must be (host, port), not {value!r}") from None
    if type(host) is not str or not (type(port) is int or (port is None and field == "server")):
        raise TypeError(f"scope[{field!r}] must be a str and an int, not {value!r}")
    return host, port


def _frozen(field: str, value: Any) -> bytes | None:
    if not value:
        return None
    try:
        return marshal.dumps(dict(value), allow_code=False)
    except (TypeError, ValueError) as error:
        raise TypeError(f"scope[{field!r}] must be a dict of plain data: {error}") from None


def _listed(value: Any) -> tuple[str, ...] | None:
    if not value:
        return None
    if isinstance(value, (str, bytes)) or not all(type(item) is str for item in value):
        raise TypeError(f"scope['subprotocols'] must be a list of str, not {value!r}")
    return tuple(value)


class Scopes:
    """Builds scopes in a worker; one for each app (their lifespan states differ)."""

    __slots__ = ("_templates", "_worker", "state")

    def __init__(self, worker: int, state: dict[str, Any]) -> None:
        self._worker = worker
        self.state = state  # what the app's lifespan put there
        self._templates: OrderedDict[bytes, tuple[dict[str, Any], dict[str, Any], bytes | None]] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Scopes of worker {self._worker}: {len(self._templates)} templates>"

    def build(self, head: Head) -> dict[str, Any]:
        """The scope of `head`, all the request's own."""
        blob, path, raw_path, query, headers, client, state = head
        found = self._templates.get(blob)
        if found is None:
            found = self._learn(blob)
        else:
            self._templates.move_to_end(blob)
        template, asgi, extensions = found
        scope = template.copy()
        scope["asgi"] = asgi.copy()
        scope["path"] = path
        scope["raw_path"] = raw_path if raw_path is not None else _quoted(path)
        scope["query_string"] = query
        scope["headers"] = headers
        scope["client"] = client
        scope["state"] = self.state.copy() if state is None else {**self.state, **marshal.loads(state)}
        if extensions is None:
            scope["extensions"] = {"subpool": {"worker": self._worker}}
        else:
            scope["extensions"] = {**marshal.loads(extensions), "subpool": {"worker": self._worker}}
        if "subprotocols" in scope:
            scope["subprotocols"] = list(scope["subprotocols"])
        return scope

    def _learn(self, blob: bytes) -> tuple[dict[str, Any], dict[str, Any], bytes | None]:
        template = marshal.loads(blob, allow_code=False)
        asgi, extensions = template.pop("asgi"), template.pop("extensions")
        found = self._templates[blob] = template, asgi, marshal.dumps(extensions) if extensions else None
        if len(self._templates) > TEMPLATES:
            self._templates.popitem(last=False)
        return found


def _quoted(path: str) -> bytes:
    if path.isascii() and "%" not in path and " " not in path:
        return path.encode()
    from urllib.parse import quote

    return quote(path, safe="/:@!$&'()*+,;=~").encode()
