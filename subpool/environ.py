"""The WSGI environ: checked on the host, completed in the worker, or built from a scope. Its streams: `wsgi_io`.

- The host sends only plain data: `check_environ` takes `wsgi.input` out (it travels by itself) and drops
  `wsgi.errors`, which stays on the host.
- CGI strings are bytes-as-latin-1 (PEP 3333, "Unicode Issues"). A key with a dot is an extension: any plain
  data.
- In the worker `complete` adds what PEP 3333 asks of a server. What the caller gave wins.
- Header names with "_" never reach an environ: there "X_User" could not be told from "X-User".
"""

from __future__ import annotations

import marshal

from .wsgi_io import FileWrapper

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any, Protocol

    class Readable(Protocol):
        """A request body given as a stream; `read` may be a plain or an async function."""

        def read(self, size: int, /) -> Any: ...


_REQUIRED = (
    *("REQUEST_METHOD", "PATH_INFO", "SERVER_NAME", "SERVER_PORT", "SERVER_PROTOCOL"),
    *("wsgi.url_scheme", "wsgi.input"),
)
_CACHE_LIMIT = 512  # header names whose environ key is remembered
_keys: dict[bytes, str] = {}  # header name -> environ key; "" means dropped


def check_environ(environ: Mapping[str, Any]) -> tuple[dict[str, Any], bytes | Readable]:
    """Check what a caller gave to `run_wsgi`; returns (a plain dict that marshal carries, the body).

    The dict is the caller's without `wsgi.input` and `wsgi.errors`. The body is bytes, or the object with
    `read` that was given. Raises ValueError for a missing key and for text that latin-1 cannot hold,
    TypeError for a key that is no str, a CGI value that is no str, data that marshal cannot carry, and a
    `wsgi.input` that is neither bytes nor readable; the message names the key.
    """
    try:
        plain = dict(environ)
    except (TypeError, ValueError):
        raise TypeError(f"environ must be a mapping, not {type(environ).__name__}") from None
    for key in _REQUIRED:
        if key not in plain:
            raise ValueError(f"environ has no {key!r}, which is required")
    body: Any = plain.pop("wsgi.input")
    plain.pop("wsgi.errors", None)
    for key, value in plain.items():
        if type(key) is not str:
            raise TypeError(f"environ keys must be str, not {type(key).__name__}: {key!r:.80}")
        if type(value) is str and value.isascii():
            continue
        plain[key] = _check_value(key, value)  # the key is there: no change of size
    if not plain["REQUEST_METHOD"]:
        raise ValueError("environ 'REQUEST_METHOD' is empty")
    if type(body) is not bytes:
        if isinstance(body, bytes | bytearray | memoryview):
            body = bytes(body)
        elif not callable(getattr(body, "read", None)):
            raise TypeError(f"environ 'wsgi.input' must be bytes or readable, not {type(body).__name__}")
    return plain, body


def _check_value(key: str, value: Any) -> Any:
    """The slow way of one value: not ASCII text. Returns what is sent for it."""
    if isinstance(value, str):
        value = str.__str__(value)  # an enum member or a "safe" string: marshal takes exact types only
        if "." not in key:
            try:
                value.encode("latin-1")
            except UnicodeEncodeError:
                message = f"environ {key!r} must hold bytes as latin-1 (PEP 3333), not {value!r:.80}"
                raise ValueError(message) from None
    elif "." not in key or key == "wsgi.url_scheme":
        raise TypeError(f"environ {key!r} must be str, not {type(value).__name__}")
    else:
        try:
            marshal.dumps(value, allow_code=False)
        except (ValueError, TypeError):
            raise TypeError(f"environ {key!r} is no plain data: {type(value).__name__}") from None
    return value


def complete(
    environ: dict[str, Any],
    *,
    stream: object,
    errors: object,
    multithread: bool,
    worker: int,
    multiprocess: bool = True,
    early_hints: Callable[[list[tuple[str, str]]], None] | None = None,
) -> dict[str, Any]:
    """The whole environ for an application: the server's keys (PEP 3333), under those of `environ`.

    `stream` becomes `wsgi.input`, `errors` `wsgi.errors`, `worker` (an id) `subpool.worker`; `multithread`
    and `multiprocess` say whether other calls may run beside this one. Without `early_hints` hints are
    ignored.
    """
    return {
        "SCRIPT_NAME": "",
        "QUERY_STRING": "",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": stream,
        "wsgi.errors": errors,
        "wsgi.multithread": multithread,
        "wsgi.multiprocess": multiprocess,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
        "wsgi.file_wrapper": FileWrapper,
        "wsgi.early_hints": early_hints or ignore_hints,
        "subpool.worker": worker,
        **environ,
    }


def ignore_hints(headers: list[tuple[str, str]]) -> None:
    """`wsgi.early_hints` of an exchange that cannot carry them (RFC 8297: they are optional)."""


def from_scope(scope: Mapping[str, Any]) -> dict[str, Any]:
    """The environ of an ASGI http scope (ASGI spec, "WSGI Compatibility"), for `complete`.

    `path` may begin with `root_path` (which becomes SCRIPT_NAME) or not. Headers are joined with ",", cookies
    with "; ". Raises ValueError for another type of scope and for two Content-Lengths that differ.
    """
    if scope["type"] != "http":
        raise ValueError(f"only an http scope has a WSGI environ, not {scope['type']!r}")
    path = scope["path"]
    root = scope.get("root_path", "").rstrip("/")
    path_info = path if path.isascii() else _encode_path(path, scope.get("raw_path"))
    if root:
        root = _encode(root)
        if path_info == root or path_info.startswith(root + "/"):
            path_info = path_info[len(root) :]
    name, port = scope.get("server") or ("localhost", 80)
    if port is None:  # a unix socket
        name, port = "localhost", 80
    environ = {
        "REQUEST_METHOD": scope.get("method", "GET"),
        "SCRIPT_NAME": root,
        "PATH_INFO": path_info,
        "QUERY_STRING": scope.get("query_string", b"").decode("latin-1"),
        "SERVER_NAME": name,
        "SERVER_PORT": str(port),
        "SERVER_PROTOCOL": "HTTP/" + scope.get("http_version", "1.1"),
        "REMOTE_ADDR": "",
        "wsgi.url_scheme": scope.get("scheme", "http"),
    }
    if client := scope.get("client"):
        environ["REMOTE_ADDR"] = client[0]
        if client[1] is not None:
            environ["REMOTE_PORT"] = str(client[1])
    add_headers(environ, scope.get("headers", ()))
    return environ


def add_headers(environ: dict[str, Any], headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Add request headers. Raises ValueError for two Content-Lengths that differ."""
    for raw_name, raw_value in headers:
        key = _keys.get(raw_name)
        if key is None:
            key = _environ_key(raw_name)
        if not key:
            continue
        value = raw_value.decode("latin-1")
        if key in environ:
            value = _join(key, environ[key], value)
        environ[key] = value


def _environ_key(name: bytes) -> str:
    """The environ key of a header name; "" for one that must be dropped."""
    if b"_" in name:
        key = ""
    else:
        key = name.decode("latin-1").upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = "HTTP_" + key
    if len(_keys) < _CACHE_LIMIT:
        _keys[name] = key
    return key


def _join(key: str, first: str, second: str) -> str:
    """The value of a repeated header (RFC 9110 section 5.3; RFC 6265 section 5.4 for cookies)."""
    if key == "CONTENT_LENGTH":
        if first != second:
            raise ValueError(f"scope 'headers' has two Content-Lengths: {first!r:.40}, {second!r:.40}")
        return first
    return first + ("; " if key == "HTTP_COOKIE" else ",") + second


def _encode(text: str) -> str:
    """Text as the latin-1 reading of its UTF-8 bytes."""
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("latin-1")


def _encode_path(path: str, raw_path: bytes | None) -> str:
    """`_encode(path)`, or the very bytes of `raw_path` where the path is a lossy reading of them."""
    if raw_path and "\ufffd" in path:
        from urllib.parse import unquote_to_bytes

        data = unquote_to_bytes(raw_path)
        if data.decode("utf-8", "replace") == path:
            return data.decode("latin-1")
    return _encode(path)
