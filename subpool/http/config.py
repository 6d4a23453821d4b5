"""The server's options, defined once: command line, environment, YAML and documentation derive from these models.

Times are in seconds, sizes in bytes. A field's `description` is its documentation; `group` in its `json_schema_extra`
says where help and documentation list it; `option` there is its name on the command line where that is not the
field's own. `secret` ones appear in no message.

The models are strict: 1 is no bool, "4" no int. What is wrong is told all at once, combinations included.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from .option_types import (
    AppName,
    Bind,
    Bus,
    Count,
    File,
    Folder,
    Functions,
    Glob,
    HeaderValue,
    HookNames,
    Interface,
    Isolation,
    Lifespan,
    Mode,
    Namespace,
    Node,
    Peer,
    Prefix,
    Protocol,
    RootPath,
    Seconds,
    State,
    Text,
    TLSVersion,
    Venv,
    Workers,
    check_control_socket,
    check_distinct,
    check_listener,
    joined,
)

GROUPS: Final = {
    "server": "Server",
    "pool": "Pool",
    "state": "State",
    "limits": "Limits",
    "clocks": "Clocks",
    "proxies": "Behind a proxy",
    "tls": "TLS",
    "websocket": "WebSocket",
    "services": "Functions and topics",
    "hooks": "Hooks",
    "supervisor": "Supervisor",
    "development": "Development",
    "logging": "Logging",
}

Location = tuple[int | str, ...]
Problem = tuple[Location, str]


def _option(group: str, text: str, default: Any = ..., **more: Any) -> Any:
    return Field(default, description=text, json_schema_extra={"group": group, **more})


class MountHooks(BaseModel):
    """Functions on the host that see the requests of a mount: "module:function", or a list of these, in their order."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)

    on_request: HookNames | None = _option("hooks", "(request): may change it, or answer in the app's place", None)
    on_response: HookNames | None = _option("hooks", "(request, response): may change its status and headers", None)
    on_error: HookNames | None = _option("hooks", "(request, error): may answer for an app or a pool that failed", None)


class ServerHooks(MountHooks):
    """Those of all requests, and of workers."""

    on_worker_start: HookNames | None = _option("hooks", "(worker): it has been told to start", None)
    on_worker_ready: HookNames | None = _option("hooks", "(worker): it takes requests", None)
    on_worker_exit: HookNames | None = _option("hooks", "(worker): it has ended", None)
    on_reload: HookNames | None = _option("hooks", "(reload): a reload is over", None)


class MountConfig(BaseModel):
    """One app of several, and the paths that it serves. An option that is None is the server's."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)

    prefix: Prefix = _option("server", 'Paths served: "/api" is /api and all below it, "/" is everything')
    app: AppName = _option("server", "The app, as module:callable")
    interface: Interface | None = _option("pool", "Which interface the app has", None)
    isolation: Isolation | None = _option("pool", "What a worker is", None)
    workers: Workers | None = _option("pool", "How many workers, or {min: 2, max: 8}", None)
    threads: Count | None = _option("pool", "Threads a worker runs WSGI calls on; 1 runs them inline", None)
    pythonpath: list[Text] | None = _option("pool", "Folders put before sys.path in the workers", None)
    venv: Venv | None = _option("pool", "Virtual environment whose packages the workers use", None)
    lifespan: Lifespan | None = _option("pool", "Lifespan of ASGI apps: supported, required or never called", None)
    state_namespace: Namespace | None = _option("state", "Part of the state; mounts that name one share it", None)
    max_body: Count | None = _option("limits", "Largest request body; a larger one is answered with 413", None)
    timeout: Seconds | None = _option("clocks", "Until a response must have started; then 504", None)
    hooks: Annotated[MountHooks, BeforeValidator(joined)] | None = _option(
        "hooks", "Functions on the host that see its requests: on_request, on_response, on_error", None
    )


class ServerConfig(BaseModel):
    """All options of `subpool serve`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)

    app: AppName | None = _option("server", "The app, as module:callable or module:factory()", None)
    mounts: list[MountConfig] = _option("server", "Apps by path prefix; as text PREFIX=APP", [], option="mount")
    bind: Annotated[list[Bind], AfterValidator(check_distinct)] = _option(
        "server", "Address to listen on: HOST:PORT, unix:PATH or fd://N; port 0 takes a free one", ["127.0.0.1:8000"]
    )
    unix_mode: Mode = _option("server", "File mode of unix sockets, octal", "660")
    backlog: Count = _option("server", "Connections that the system holds until they are accepted", 2048)
    http_version: Annotated[list[Protocol], AfterValidator(check_distinct)] = _option(
        "server", "Protocols offered, the preferred one first", ["h2", "http/1.1"]
    )
    loop: Literal["auto", "asyncio", "uvloop"] = _option("server", "Event loop; auto is uvloop where installed", "auto")
    server_header: HeaderValue | None = _option("server", "Value of the header Server; none is sent without", None)
    date_header: bool = _option("server", "Send the header Date", True)

    workers: Workers | None = _option(
        "pool", "How many workers, or 2-8 (YAML: {min: 2, max: 8}) by what waits; one for each CPU without", None
    )
    isolation: Isolation = _option("pool", "What a worker is; auto chooses what the app can run in", "auto")
    interface: Interface = _option("pool", "Which interface the app has; auto looks at it", "auto")
    threads: Count = _option("pool", "Threads a worker runs WSGI calls on; 1 runs them inline", 1)
    pythonpath: list[Text] = _option("pool", "Folders put before sys.path in the workers", [])
    venv: Venv | None = _option("pool", "Virtual environment whose packages the workers use", None)
    preload_app: bool = _option("pool", "Import the app before a worker counts as ready", True)
    preload: list[str] = _option("pool", "Further modules that workers import at their start", [])
    lifespan: Lifespan = _option("pool", "Lifespan of ASGI apps: supported, required or never called", "auto")

    state: State = _option(
        "state", "Store of what workers share: memory:, sqlite:///PATH or redis://HOST:PORT/DB, see below", "memory:"
    )  # fmt: skip
    state_namespace: Namespace | None = _option(
        "state", "Part of the state for all mounts together; each has its own without", None
    )

    max_connections: Count = _option("limits", "Connections open at once", 10000)
    max_pending: Count = _option("limits", "Requests that wait for a worker; one more is answered with 503", 1024)
    max_concurrency: Count = _option("limits", "Requests that run at once in a worker", 1000)
    max_websockets: Count = _option(
        "limits", "WebSockets of all workers together; one more is answered with 503", 10000
    )
    window: Count = _option("limits", "Requests sent ahead to one worker", 16)
    max_request_line: Count = _option("limits", "Longest request line; a longer one is answered with 414", 8190)
    max_header: Count = _option("limits", "Longest header; a longer one is answered with 431", 8190)
    max_headers_size: Count = _option("limits", "Size of all headers of a request; more is answered with 431", 65536)
    max_headers: Count = _option("limits", "Headers of a request; more are answered with 431", 100)
    max_body: Count | None = _option("limits", "Largest request body; a larger one is answered with 413", None)

    timeout: Seconds | None = _option("clocks", "Until a response must have started; then 504. none: no limit", 30.0)
    graceful_timeout: Seconds = _option("clocks", "For requests under way when the server ends; then cut", 30.0)
    keepalive_timeout: Seconds = _option("clocks", "For the next request on an idle connection", 5.0)
    head_timeout: Seconds = _option("clocks", "For the head of a request, from its first byte or from accept", 10.0)
    body_timeout: Seconds = _option("clocks", "Without any progress of a request's body", 30.0)
    write_timeout: Seconds = _option("clocks", "Without any progress of what is written to a client", 30.0)
    start_timeout: Seconds = _option("clocks", "Until a worker must be ready", 60.0)
    close_timeout: Seconds = _option("clocks", "Until the workers have ended, come what may", 10.0)
    grace: Seconds = _option("clocks", "Between the steps of ending a call that does not end", 0.5)

    root_path: RootPath = _option("proxies", "Path under which a proxy serves this server", "")
    proxy_headers: bool = _option("proxies", "Believe X-Forwarded-* and Forwarded of trusted peers", True)
    forwarded_allow_ips: list[Peer] = _option(
        "proxies", "Trusted peer: an address, a network, unix: or * for all", ["127.0.0.1", "::1"]
    )

    certfile: File | None = _option("tls", "Certificate chain, PEM; turns TLS on", None)
    keyfile: File | None = _option("tls", "Private key, PEM; without it, in the certificate's file", None)
    keyfile_password: str | None = Field(
        None,
        description="Password of the private key",
        repr=False,
        json_schema_extra={"group": "tls", "secret": True},
    )
    ca_certs: File | None = _option("tls", "Certificates that clients' certificates are checked with, PEM", None)
    verify_client: Literal["none", "optional", "required"] = _option("tls", "Ask clients for a certificate", "none")
    tls_min_version: TLSVersion = _option("tls", "Lowest TLS version", "1.2")

    websocket_max_message: Count = _option("websocket", "Largest message, inflated; then close code 1009", 16 * 2**20)
    websocket_idle_timeout: Seconds = _option("websocket", "Silence until a ping, and from there to the end", 60.0)
    websocket_compress: bool = _option("websocket", "Offer permessage-deflate", False)

    functions: Functions = _option(
        "services", "Function of the host for the apps: NAME=module:object, in YAML NAME: module:object", [],
        option="function",
    )  # fmt: skip
    bus: Bus | None = Field(
        None,
        description="Redis that joins the topics of several processes and machines, and carries calls between them:"
        " redis://HOST:PORT/DB; default: that of state, if it is one; none: none",
        repr=False,
        json_schema_extra={"group": "services", "secret": True},
    )
    node: Node | None = _option(
        "services", "Name by which others call this server's functions; default: HOSTNAME-PID", None
    )
    hooks: Annotated[ServerHooks, BeforeValidator(joined)] | None = _option(
        "hooks", "Functions on the host that see requests and workers; as text NAME=MODULE:NAME", None, option="hook"
    )

    control_socket: Annotated[Text, AfterValidator(check_control_socket)] = _option(
        "supervisor", "Unix socket that takes commands (subpool status, stop, ...): a path, auto or none", "auto"
    )
    metrics_bind: Annotated[str, AfterValidator(check_listener)] | None = _option(
        "supervisor", "Address for /metrics (Prometheus), /healthz and /readyz: HOST:PORT or unix:PATH", None
    )
    guard: bool = _option(
        "supervisor", "Serve in a process of its own that a guard watches, and replaces if it dies", True
    )
    processes: Count = _option("supervisor", "Server processes that share the addresses, each with all workers", 1)
    max_restarts: Count = _option(
        "supervisor", "Ends within restart_window that are made good; one more is the end", 10
    )
    restart_window: Seconds = _option("supervisor", "The time in which ends are counted", 60.0)
    max_requests: Count | None = _option(
        "supervisor", "Requests after which a worker is replaced; 1: each request has a fresh one", None
    )
    max_requests_jitter: Annotated[int, Field(ge=0)] = _option(
        "supervisor", "So many more at most, drawn for each worker", 0
    )
    max_age: Seconds | None = _option("supervisor", "Age at which a worker is replaced, up to a tenth more", None)
    max_memory: Count | None = _option("supervisor", "Memory at which a worker is replaced", None)
    heartbeat_timeout: Seconds | None = _option("supervisor", "A worker silent for so long is replaced", 30.0)
    max_abandoned: Annotated[int, Field(ge=0)] = _option(
        "supervisor", "Workers that never ended; with more the server asks for a fresh process", 8
    )

    reload: bool = _option("development", "Reload when files of the apps change; needs the extra reload", False)
    reload_dir: list[Folder] = _option(
        "development", "Directory that is watched, with those below; pythonpath and the current one without", []
    )
    reload_include: list[Glob] = _option("development", "Glob of files that count, besides *.py", [])
    reload_exclude: list[Glob] = _option("development", "Glob of files that do not count, or a directory", [])

    log_level: Literal["critical", "error", "warning", "info", "debug"] = _option(
        "logging", "Lowest level that is logged", "info"
    )
    log_file: Text | None = _option("logging", "File of the log; standard error without", None)
    access_log: Literal["off", "common", "combined", "json"] = _option("logging", "Form of the access log", "off")
    access_log_file: Text | None = _option("logging", "File of the access log; standard output without", None)

    @model_validator(mode="wrap")
    @classmethod
    def _combine(cls, data: Any, handler: ModelWrapValidatorHandler[ServerConfig]) -> ServerConfig:
        found = list(combinations(data)) if isinstance(data, Mapping) else []
        errors: list[InitErrorDetails] = []
        try:
            made = handler(data)
        except ValidationError as error:
            for one in error.errors(include_url=False):
                kind: Any = one["type"]
                if kind in ("value_error", "assertion_error"):
                    kind = PydanticCustomError("wrong", "{what}", {"what": str(one["ctx"]["error"])})
                errors.append({"type": kind, "loc": one["loc"], "input": one["input"], "ctx": one.get("ctx", {})})
        errors += (
            {"type": PydanticCustomError("wrong", "{what}", {"what": what}), "loc": where, "input": None}
            for where, what in found
        )
        if errors:
            raise ValidationError.from_exception_data(cls.__name__, errors, hide_input=True)
        return made


def combinations(data: Mapping[str, Any]) -> Iterator[Problem]:
    """What cannot be together in `data`, the options that were given; their values may be of any type."""
    mounts = data.get("mounts")
    if data.get("app") is None and mounts in (None, []):
        yield ("app",), "there is nothing to serve: name an app, or mounts"
    seen = {"/": "app"} if data.get("app") is not None else {}
    for number, mount in enumerate(mounts if isinstance(mounts, list) else []):
        given: Any = mount.model_dump() if isinstance(mount, MountConfig) else mount
        if not isinstance(given, Mapping):
            continue
        prefix = given.get("prefix")
        if isinstance(prefix, str) and seen.setdefault(prefix, f"mounts[{number}]") != f"mounts[{number}]":
            yield ("mounts", number, "prefix"), f"is {prefix!r}, which {seen[prefix]} serves already"
        interface = given.get("interface") or data.get("interface")
        if given.get("lifespan") == "on" and interface == "wsgi":
            yield ("mounts", number, "lifespan"), "is 'on', but a WSGI app has no lifespan"
    if data.get("lifespan") == "on" and data.get("interface") == "wsgi":
        yield ("lifespan",), "is 'on', but a WSGI app has no lifespan"
    if data.get("certfile") is None:
        for name in ("keyfile", "keyfile_password", "ca_certs"):
            if data.get(name) is not None:
                yield (name,), "is given, but certfile is not"
    if data.get("verify_client") in ("optional", "required") and data.get("ca_certs") is None:
        yield ("verify_client",), f"is {data['verify_client']!r}, but ca_certs is not given"
    if data.get("access_log_file") is not None and data.get("access_log", "off") == "off":
        yield ("access_log_file",), "is given, but access_log is off"
    binds, metrics = data.get("bind"), data.get("metrics_bind")
    if isinstance(binds, list) and metrics is not None and metrics in binds and not str(metrics).endswith(":0"):
        yield ("metrics_bind",), f"is {metrics!r}, which bind names already"
    processes = data.get("processes")
    if data.get("guard") is False and isinstance(processes, int) and processes > 1:
        yield ("processes",), f"is {processes}, but without the guard there is one process"
    one, every = data.get("max_header"), data.get("max_headers_size")
    if isinstance(one, int) and isinstance(every, int) and one > every:
        yield ("max_header",), f"is {one}, which is more than max_headers_size, {every}"
