"""TLS: certificates, the choice of the protocol, what apps see of it, and mistakes in the configuration."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
from ast import literal_eval
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conftest import APPS, DEADLINE, Fifo, eventually

pytest.importorskip("h2")
pytest.importorskip("httptools")
pytest.importorskip("pydantic")
if shutil.which("openssl") is None:
    pytest.skip("openssl makes the certificates", allow_module_level=True)

import http_kit
from h2_kit import NO_ERROR, Client, port, serving
from h2_kit import frame as h2_frame

from subpool.errors import ConfigError
from subpool.http import tls
from subpool.http.config import ServerConfig

pytestmark = pytest.mark.anyio

KIND = "subinterpreter"


class Files(NamedTuple):
    """PEM files, all made for these tests."""

    ca: str
    cert: str
    key: str
    both: str  # key and certificate
    locked: str  # the key, with the password "secret"
    other_key: str
    client: str  # a client's certificate and key, by the CA
    stranger: str  # the same, by itself


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("tls")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=25, cwd=folder)

    def signed(name: str, subject: str, *more: str) -> None:
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                "-subj", subject, "-keyout", f"{name}.key", "-out", f"{name}.pem", *more)  # fmt: skip

    by = ["-CA", "ca.pem", "-CAkey", "ca.key"]
    signed("ca", "/CN=The CA", "-addext", "keyUsage=critical,keyCertSign")
    leaf = ["-addext", "basicConstraints=critical,CA:FALSE"]
    signed("server", "/CN=a.test", *by, *leaf, "-addext", "subjectAltName=IP:127.0.0.1,DNS:a.test")
    signed("client", "/C=CH/O=Us\\, Them/CN=someone", *by, *leaf, "-addext", "extendedKeyUsage=clientAuth")
    signed("stranger", "/CN=stranger")
    openssl("ec", "-in", "server.key", "-aes256", "-passout", "pass:secret", "-out", "locked.key")
    for name in ("server", "client", "stranger"):
        both = (folder / f"{name}.key").read_text() + (folder / f"{name}.pem").read_text()
        (folder / f"{name}-both.pem").write_text(both)
    names = "ca.pem", "server.pem", "server.key", "server-both.pem", "locked.key", "stranger.key"
    return Files(*(str(folder / name) for name in (*names, "client-both.pem", "stranger-both.pem")))


def secure(files: Files, **options: Any) -> Any:
    """A server with TLS."""
    return serving(KIND, certfile=files.cert, keyfile=files.key, **options)


def trusting(files: Files, *protocols: str, cert: str | None = None) -> ssl.SSLContext:
    """A client's context."""
    context = ssl.create_default_context(cafile=files.ca)
    if protocols:
        context.set_alpn_protocols(list(protocols))
    if cert is not None:
        context.load_cert_chain(cert)
    return context


@pytest.fixture(scope="module")
async def server(files: Files, anyio_backend: str) -> AsyncIterator[Any]:
    async with secure(files) as server:
        yield server


async def over_h2(server: Any, context: ssl.SSLContext) -> Client:
    loop = asyncio.get_running_loop()
    authority = f"127.0.0.1:{port(server)}"
    _, client = await loop.create_connection(lambda: Client(authority), "127.0.0.1", port(server), ssl=context)
    assert client.transport.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
    return client


async def over_h1(server: Any, context: ssl.SSLContext, path: str = "/scope") -> tuple[bytes, bytes]:
    """Head and body of a response of HTTP/1.1."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port(server), ssl=context)
    writer.write(b"GET %s HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n" % path.encode())
    async with asyncio.timeout(DEADLINE):
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return head, body


# the protocol


@pytest.mark.parametrize(
    ("offered", "asked", "chosen"),
    [
        (["h2", "http/1.1"], ["http/1.1", "h2"], "2"),
        (["http/1.1", "h2"], ["h2", "http/1.1"], "1.1"),
        (["h2", "http/1.1"], ["http/1.1"], "1.1"),
        (["h2", "http/1.1"], [], "1.1"),
        (["h2", "http/1.1"], ["spdy/3"], "1.1"),
        (["http/1.1"], ["h2", "http/1.1"], "1.1"),
        (["h2"], ["h2", "http/1.1"], "2"),
    ],
)
async def test_the_servers_order_decides(files: Files, offered: list[str], asked: list[str], chosen: str) -> None:
    async with secure(files, http_version=offered) as server:
        context = trusting(files, *asked)
        if chosen == "2":
            async with await over_h2(server, context) as client:
                body = (await client.get("/scope")).body
        else:
            head, body = await over_h1(server, context)
            assert head.startswith(b"HTTP/1.1 200 ")
        scope = literal_eval(body.decode())
        assert (scope["http_version"], scope["scheme"]) == (chosen, "https")
    await eventually(lambda: not server.front.connections)


async def test_prior_knowledge_within_tls(files: Files) -> None:
    """A client that knows no ALPN, where there is nothing but HTTP/2."""
    async with secure(files, http_version=["h2"]) as server:
        loop = asyncio.get_running_loop()
        _, client = await loop.create_connection(
            lambda: Client("a.test"), "127.0.0.1", port(server), ssl=trusting(files)
        )
        assert (await client.get("/hello")).status == 200
        client.close()


async def test_much_both_ways(server: Any, files: Files) -> None:
    async with await over_h2(server, trusting(files, "h2")) as client:
        body = bytes(range(256)) * 8192
        number = client.request("/echo", method="POST", end=False)
        await client.upload(number, body)
        assert (await client.answer(number)).body == body
    _, body = await over_h1(server, trusting(files), "/big?3000000")
    assert body == b"b" * 3_000_000


async def test_files(files: Files, isolation: str, tmp_path: Path) -> None:
    """Copied where the kernel cannot send them: whole, or as much as Content-Length says, from the position on."""
    data = os.urandom(1_000_003) * 2
    file = tmp_path / "file"
    file.write_bytes(data)
    paths = {f"/real-file?path={file}": data, f"/real-file?path={file}&again": data}
    for offset, length in ((0, 0), (0, 1), (10, 8192), (10, 8193), (1_000_000, 500_000), (5, len(data) - 5)):
        path = f"/file-part?path={file}&offset={offset}&length={length}"
        paths[path] = data[offset : offset + length]
    paths |= {f"/file-like?size=20000&length={length}": b"f" * length for length in (0, 9000, 20_000)}
    too_long = f"/file-part?path={file}&length={len(data) + 1}"
    options = {"certfile": files.cert, "keyfile": files.key}
    async with serving(isolation, "http_wsgi:app", **options) as server:
        async with await over_h2(server, trusting(files, "h2")) as client:
            for path, expected in paths.items():
                answer = await client.get(path)
                assert (answer.status, answer.ended) == (200, True)
                assert answer.body == expected
            answer = await client.get(too_long)
            assert answer.reset is not None
            assert (await client.get("/hello")).status == 200
        for path, expected in paths.items():
            head, body = await over_h1(server, trusting(files), path)
            assert head.startswith(b"HTTP/1.1 200 ")
            assert b"content-length: %d" % len(expected) in head.lower() or "length=" not in path
            assert body == expected
        _, body = await over_h1(server, trusting(files), too_long)
        assert body == data


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_requests_on_one_connection(files: Files, loop: str, tmp_path: Path) -> None:
    """Each after the answer before it, and all at once."""
    data = os.urandom(1_000_003) * 2
    file = tmp_path / "file"
    file.write_bytes(data)
    asked = [(f"/real-file?path={file}", data), ("/hello", b"Hello, World!"), ("/file", b"f" * 100_000)]
    asked = [one for one in asked for _ in range(3)] + asked * 2
    with http_kit.serving("wsgi", "thread", loop, certfile=files.cert, keyfile=files.key) as site:
        for at_once in (False, True):
            with site.peer() as peer:
                peer.socket = trusting(files).wrap_socket(peer.socket, server_hostname="127.0.0.1")
                if at_once:
                    peer.send(b"".join(http_kit.get(path) for path, _ in asked))
                for path, body in asked:
                    if not at_once:
                        peer.send(http_kit.get(path))
                    assert peer.reply().body == body


async def test_draining(files: Files) -> None:
    async with secure(files) as server:
        client = await over_h2(server, trusting(files, "h2"))
        assert (await client.get("/hello")).status == 200
        (connection,) = server.front.connections
        connection.drain()
        await client.ended()
        assert client.goaway == (NO_ERROR, 1)
        client.close()


async def test_no_room_for_a_connection(files: Files, tmp_path: Path) -> None:
    gate = Fifo(tmp_path / "gate")
    async with secure(files, max_connections=1) as server:
        first = await over_h2(server, trusting(files, "h2"))
        number = first.request(f"/gate?gate={gate}")
        await eventually(lambda: any(not one.idle() for one in server.front.connections))
        second = await over_h2(server, trusting(files, "h2"))
        await second.ended()
        assert second.goaway is not None
        assert second.goaway[1] == 0
        gate.release()
        assert (await first.answer(number)).status == 200
        first.close()
        second.close()
    gate.close()


async def test_a_mistake_of_the_client_ends_the_connection(server: Any, files: Files) -> None:
    client = await over_h2(server, trusting(files, "h2"))
    await client.get("/hello")
    client.raw(h2_frame(9, 4, 1, b"x"))
    await client.ended()
    assert client.goaway is not None
    client.close()


async def test_what_is_no_tls_harms_nobody(server: Any, files: Files) -> None:
    for garbage in (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"\x16\x03\x01\xff\xff", b"\0" * 1000):
        with socket.create_connection(("127.0.0.1", port(server)), timeout=DEADLINE) as sock:
            sock.sendall(garbage)
            sock.shutdown(socket.SHUT_WR)
            await asyncio.to_thread(sock.recv, 1000)
    async with await over_h2(server, trusting(files, "h2")) as client:
        assert (await client.get("/hello")).status == 200
    await eventually(lambda: not server.front.connections)


# what is agreed on


async def test_old_versions_are_refused(files: Files) -> None:
    async with secure(files, tls_min_version="1.3") as server:
        old = trusting(files, "h2")
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await over_h2(server, old)
        async with await over_h2(server, trusting(files, "h2")) as client:
            assert (await client.get("/hello")).status == 200


async def test_version_1_2_is_good_enough_for_http_2(server: Any, files: Files) -> None:
    """With what RFC 9113, section 9.2, asks for: no compression, no renegotiation, ephemeral keys, AEAD."""
    context = trusting(files, "h2")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with await over_h2(server, context) as client:
        assert (await client.get("/hello")).status == 200
        spoken = client.transport.get_extra_info("ssl_object")
        assert spoken.version() == "TLSv1.2"
        assert "GCM" in spoken.cipher()[0] or "POLY1305" in spoken.cipher()[0]
        assert spoken.cipher()[0].startswith("ECDHE")
        assert spoken.compression() is None
    weak = trusting(files, "h2")
    weak.maximum_version = ssl.TLSVersion.TLSv1_2
    weak.set_ciphers("ECDHE+AES:!AESGCM:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await over_h2(server, weak)


# certificates of clients


@pytest.mark.parametrize("protocol", ["h2", "http/1.1"])
async def test_what_the_extension_says(server: Any, files: Files, protocol: str) -> None:
    context = trusting(files, protocol)
    if protocol == "h2":
        async with await over_h2(server, context) as client:
            scope = literal_eval((await client.get("/scope")).body.decode())
    else:
        scope = literal_eval((await over_h1(server, context))[1].decode())
    said = scope["extensions"]["tls"]
    assert said["server_cert"].split() == Path(files.cert).read_text().split()
    assert (said["client_cert_chain"], said["client_cert_name"], said["client_cert_error"]) == ([], None, None)
    assert said["tls_version"] == 0x0304
    assert said["cipher_suite"] in (0x1301, 0x1302, 0x1303)


@pytest.mark.parametrize("protocol", ["h2", "http/1.1"])
@pytest.mark.parametrize("verify", ["optional", "required"])
async def test_a_client_with_a_certificate(files: Files, verify: str, protocol: str) -> None:
    async with secure(files, ca_certs=files.ca, verify_client=verify) as server:
        context = trusting(files, protocol, cert=files.client)
        context.maximum_version = ssl.TLSVersion.TLSv1_2 if protocol == "h2" else ssl.TLSVersion.TLSv1_3
        if protocol == "h2":
            async with await over_h2(server, context) as client:
                scope = literal_eval((await client.get("/scope")).body.decode())
        else:
            scope = literal_eval((await over_h1(server, context))[1].decode())
        said = scope["extensions"]["tls"]
        assert said["client_cert_name"] == "CN=someone,O=Us\\, Them,C=CH"
        leaf = Path(files.client).read_text().partition("-----BEGIN CERTIFICATE-----")
        assert said["client_cert_chain"][0].split() == (leaf[1] + leaf[2]).split()
        assert said["tls_version"] == (0x0303 if protocol == "h2" else 0x0304)
        assert said["cipher_suite"] in (0xC02B, 0xC02C, 0xCCA9, 0x1301, 0x1302, 0x1303)


async def test_no_client_sees_anothers_certificate(files: Files) -> None:
    async with secure(files, ca_certs=files.ca, verify_client="optional") as server:
        for cert in (files.client, None, files.client, None):
            async with await over_h2(server, trusting(files, "h2", cert=cert)) as client:
                said = literal_eval((await client.get("/scope")).body.decode())["extensions"]["tls"]
                assert (said["client_cert_name"] is None) is (cert is None)
                assert bool(said["client_cert_chain"]) is (cert is not None)


@pytest.mark.parametrize(("verify", "cert"), [("required", None), ("required", "other"), ("optional", "other")])
async def test_a_client_without_the_right_certificate(files: Files, verify: str, cert: str | None) -> None:
    async with secure(files, ca_certs=files.ca, verify_client=verify) as server:
        context = trusting(files, "h2", cert=files.stranger if cert else None)
        with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)):
            client = await over_h2(server, context)  # with TLS 1.3 the client hears of it later
            await client.get("/hello")
        await eventually(lambda: not server.front.connections)


# the configuration


def config(**options: Any) -> ServerConfig:
    return ServerConfig(app="m:a", **options)


def test_ways_to_give_a_certificate(files: Files) -> None:
    for options in (
        {"certfile": files.cert, "keyfile": files.key},
        {"certfile": files.both},
        {"certfile": files.cert, "keyfile": files.locked, "keyfile_password": "secret"},
        {"certfile": files.both, "ca_certs": files.ca, "verify_client": "required"},
    ):
        made = tls.context(config(**options))
        assert made.minimum_version == ssl.TLSVersion.TLSv1_2
        assert made.verify_mode is (ssl.CERT_REQUIRED if "ca_certs" in options else ssl.CERT_NONE)


def test_mistakes_name_the_file(files: Files, tmp_path: Path) -> None:
    empty, broken, gone = tmp_path / "empty.pem", tmp_path / "broken.pem", tmp_path / "gone.pem"
    empty.write_text("")
    broken.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    gone.write_text("x")
    nothing, mine = str(empty), {"certfile": files.cert}
    locked = {**mine, "keyfile": files.locked}
    cases = [
        ({"certfile": nothing, "keyfile": files.key}, f"certfile: {nothing}: there is no certificate in PEM form"),
        (mine, f"certfile: {files.cert}: there is no private key in PEM form"),
        ({**mine, "keyfile": nothing}, f"keyfile: {nothing}: there is no private key in PEM form"),
        ({"certfile": str(broken), "keyfile": files.key}, f"certfile: {broken}, {files.key}: no valid certificate"),
        ({**mine, "keyfile": files.other_key}, f"keyfile: {files.other_key}: the key is not that of"),
        (locked, f"keyfile: {files.locked}: its key is encrypted, and keyfile_password is needed"),
        ({**locked, "keyfile_password": "wrong"}, "its key is encrypted, and keyfile_password is not right"),
        ({"certfile": files.both, "ca_certs": nothing}, f"ca_certs: {nothing}: no certificate in PEM form"),
        ({"certfile": str(gone), "keyfile": files.key}, f"certfile: {gone}: No such file"),
    ]
    made = [(config(**options), text) for options, text in cases]
    gone.unlink()
    for one, text in made:
        with pytest.raises(ConfigError) as caught:
            tls.context(one)
        assert text in str(caught.value)
        assert "secret" not in str(caught.value)
        assert "wrong" not in str(caught.value)


async def test_a_mistake_ends_the_start(files: Files) -> None:
    with pytest.raises(ConfigError, match="there is no private key"):
        async with serving(KIND, certfile=files.cert):
            pass


@pytest.mark.parametrize(
    ("value", "said"),
    [("a,b", r"a\,b"), ("#x", r"\#x"), (" x ", "\\ x\\ "), ("a+b=c", r"a\+b=c"), ('<">;\\', r"\<\"\>\;\\"), ("é", "é")],
)
def test_names_are_escaped(value: str, said: str) -> None:
    """RFC 4514, section 2.4."""
    subject = ((("countryName", "CH"),), (("commonName", value), ("emailAddress", "a@b")))
    assert tls._distinguished(subject) == f"CN={said}+emailAddress=a@b,C=CH"


WITHOUT = """
import asyncio, json, sys
from subpool.http.config import ServerConfig
from subpool.http.server import Server

async def main():
    config = ServerConfig(app="http_app:app", bind=["127.0.0.1:0"], workers=1, pythonpath=[sys.argv[1]])
    server = Server(config)
    await server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", int(server.addresses[0].rpartition(":")[2]))
    writer.write(b"GET /hello HTTP/1.1\\r\\nHost: a\\r\\nConnection: close\\r\\n\\r\\n")
    assert b"Hello" in await reader.read()
    writer.close()
    await server.stop(1.0)

asyncio.run(main())
print(json.dumps(sorted(sys.modules)))
"""


def test_nothing_of_tls_or_http_2_is_imported_without_use() -> None:
    """`ssl` itself is: asyncio imports it."""
    command = [sys.executable, "-c", WITHOUT, APPS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=25, check=False)
    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stdout)
    unused = {"h2", "hpack", "hyperframe", "wsproto", "prometheus_client", "yaml", "click", "redis"}
    assert not {name.partition(".")[0] for name in loaded} & unused
    assert not [name for name in loaded if name.startswith(("subpool.http.h2", "subpool.http.tls", "subpool.http.ws"))]
