"""TLS: the context of a listener, what the ASGI extension "tls" says of a connection, and the choice of its protocol.

`ssl` is imported when there is a certificate to serve with, not before.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from ..errors import ConfigError
from .front import Front, Listener
from .h1 import H1

if TYPE_CHECKING:
    from .config import ServerConfig

KINDS: Final = 64  # of connections whose listener is remembered
# TLS 1.2: forward secrecy and authenticated encryption alone. Nothing that RFC 9113, appendix A, forbids to HTTP/2.
CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:DHE+CHACHA20"
_VERIFY: Final = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}
_VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_NUMBERS: Final = {"TLSv1.2": 0x0303, "TLSv1.3": 0x0304}
_NAMES: Final = {  # RFC 4514, section 3; others keep the name that OpenSSL has for them
    "commonName": "CN", "localityName": "L", "stateOrProvinceName": "ST", "organizationName": "O",
    "organizationalUnitName": "OU", "countryName": "C", "streetAddress": "STREET", "domainComponent": "DC",
    "userId": "UID",
}  # fmt: skip


def context(config: ServerConfig) -> ssl.SSLContext:
    """The context that `config` describes. `ConfigError` names the file that is wrong."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = _VERSIONS[config.tls_min_version]
    made.set_ciphers(CIPHERS)
    made.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    made.set_alpn_protocols(list(config.http_version))
    _load_certificate(made, config)
    if config.ca_certs is not None:
        try:
            made.load_verify_locations(cafile=config.ca_certs)
        except (ssl.SSLError, OSError) as error:
            raise ConfigError([f"ca_certs: {_why(config.ca_certs, error, 'no certificate in PEM form')}"]) from None
    made.verify_mode = _VERIFY[config.verify_client]
    return made


def _load_certificate(made: ssl.SSLContext, config: ServerConfig) -> None:
    certfile, keyfile = config.certfile, config.keyfile
    assert certfile is not None
    asked = False

    def password() -> str:
        nonlocal asked
        asked = True
        return config.keyfile_password or ""

    _readable("certfile", certfile, "CERTIFICATE")
    _readable("keyfile" if keyfile is not None else "certfile", keyfile or certfile, "PRIVATE KEY")
    try:
        made.load_cert_chain(certfile, keyfile, password)
    except (ssl.SSLError, OSError, ValueError) as error:
        name, path = ("keyfile", keyfile) if keyfile is not None else ("certfile", certfile)
        if asked:
            what = "is not right" if config.keyfile_password else "is needed"
            raise ConfigError([f"{name}: {path}: its key is encrypted, and keyfile_password {what}"]) from None
        if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
            raise ConfigError([f"{name}: {path}: the key is not that of the certificate in {certfile}"]) from None
        where = certfile if keyfile is None else f"{certfile}, {keyfile}"
        raise ConfigError([f"certfile: {_why(where, error, 'no valid certificate and key in PEM form')}"]) from None


def _readable(name: str, path: str, kind: str) -> None:
    try:
        with open(path, "rb") as file:
            text = file.read()
    except OSError as error:
        raise ConfigError([f"{name}: {path}: {error.strerror}"]) from None
    if b"-----BEGIN" not in text or kind.encode() + b"-----" not in text:
        raise ConfigError([f"{name}: {path}: there is no {kind.lower()} in PEM form in it"])


def _why(path: str, error: Exception, otherwise: str) -> str:
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) and error.strerror:
        return f"{path}: {error.strerror}"
    reason = getattr(error, "reason", None)
    return f"{path}: {otherwise}" + (f" ({reason.lower().replace('_', ' ')})" if reason else "")


def certificate(path: str) -> str | None:
    """The first certificate of a PEM file: the one that is served."""
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            text = file.read()
    except OSError:
        return None
    _, found, rest = text.partition(begin)
    return begin + rest.partition(end)[0] + end + "\n" if found else None


def extension(connection: Any, server_cert: str | None) -> dict[str, Any]:
    """What the extension "tls" says (ASGI TLS Extension 0.2). `connection`: an `SSLObject` after its handshake."""
    chain = [ssl.DER_cert_to_PEM_cert(der) for der in connection.get_verified_chain() or []]
    peer = connection.getpeercert() or {}
    return {
        "server_cert": server_cert,
        "client_cert_chain": chain,
        "client_cert_name": _distinguished(peer["subject"]) if "subject" in peer else None,
        "client_cert_error": None,  # a client with a wrong one gets no connection
        "tls_version": _NUMBERS.get(connection.version() or ""),
        "cipher_suite": _suite(connection),
    }


_suites: dict[str, int] = {}


def _suite(connection: Any) -> int | None:
    """The number of IANA for the cipher suite, for which OpenSSL has a name."""
    cipher = connection.cipher()
    if cipher is None:
        return None
    if cipher[0] not in _suites:
        _suites.update((one["name"], one["id"] & 0xFFFF) for one in connection.context.get_ciphers())
    return _suites.get(cipher[0])


def _distinguished(subject: tuple[tuple[tuple[str, str], ...], ...]) -> str:
    """A subject as a string (RFC 4514): the last name first."""
    return ",".join(
        "+".join(f"{_NAMES.get(name, name)}={_escaped(value)}" for name, value in names) for names in reversed(subject)
    )


def _escaped(value: str) -> str:
    """A value as RFC 4514, section 2.4, has it."""
    out = "".join("\\" + char if char in '"+,;<>\\' else "\\00" if char == "\0" else char for char in value)
    if out[:1] in ("#", " "):
        out = "\\" + out
    if len(value) > 1 and value.endswith(" "):
        out = out[:-1] + "\\ "
    return out


class TLSConnection(asyncio.Protocol):
    """A connection until its handshake is over; then `h1` or `H2`, as the client chose by ALPN."""

    __slots__ = ("_front", "_h1", "_listener_for")

    def __init__(self, front: Front, listener_for: Callable[[Any], Listener], h1: type[H1]) -> None:
        self._h1 = h1
        self._front = front
        self._listener_for = listener_for

    def __repr__(self) -> str:
        return "<TLSConnection>"

    def connection_made(self, transport: Any) -> None:
        connection = transport.get_extra_info("ssl_object")
        chosen = connection.selected_alpn_protocol()
        if chosen is None:  # it knows no ALPN
            offered = self._front.config.http_version
            chosen = "http/1.1" if "http/1.1" in offered else "h2"
        listener = self._listener_for(connection)
        protocol: asyncio.Protocol
        if chosen == "h2":
            from .h2 import H2

            protocol = H2(self._front, listener)
        else:
            protocol = self._h1(self._front, listener)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)


def negotiated(front: Front, listener: Listener, h1: type[H1]) -> Callable[[], asyncio.Protocol]:
    """The protocol factory of a listener with TLS."""
    certfile = front.config.certfile
    server_cert = certificate(certfile) if certfile is not None else None
    known: OrderedDict[tuple[Any, ...], Listener] = OrderedDict()

    def listener_for(connection: Any) -> Listener:
        """The listener as this kind of connection has it: what differs is what the extension "tls" says."""
        said = extension(connection, server_cert)
        key = (said["tls_version"], said["cipher_suite"], *said["client_cert_chain"])
        found = known.get(key)
        if found is None:
            found = known[key] = Listener(listener.name, listener.scheme, listener.server, said)
            if len(known) > KINDS:
                known.popitem(last=False)
        else:
            known.move_to_end(key)
        return found

    return lambda: TLSConnection(front, listener_for, h1)
