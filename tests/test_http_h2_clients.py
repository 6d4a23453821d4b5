"""HTTP/2 with real clients: httpx, curl, h2load. What is not installed is skipped."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from conftest import DEADLINE, Fifo, eventually

pytest.importorskip("h2")
pytest.importorskip("httptools")
pytest.importorskip("pydantic")
pytest.importorskip("httpx")

import httpx
from h2_kit import calls, port, script, serving

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module", params=[("asgi", False), ("wsgi", False), ("asgi", True)], ids=["asgi", "wsgi", "tls"])
async def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, anyio_backend: str
) -> AsyncIterator[tuple[Any, str, str]]:  # fmt: skip
    """A server, its URL, and the certificate to trust."""
    interface, secure = request.param
    options: dict[str, Any] = {"workers": 2}
    if secure:
        if shutil.which("openssl") is None:
            pytest.skip("openssl makes the certificate")
        folder = tmp_path_factory.mktemp("clients")
        made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=a.test",
                "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"]  # fmt: skip
        await asyncio.to_thread(subprocess.run, made, check=True, capture_output=True, timeout=25, cwd=folder)
        options |= {"certfile": str(folder / "cert.pem"), "keyfile": str(folder / "key.pem")}
    app = "http_app:app" if interface == "asgi" else "http_wsgi:app"
    async with serving("subinterpreter", app, **options) as server:
        scheme = "https" if secure else "http"
        yield server, f"{scheme}://127.0.0.1:{port(server)}", options.get("certfile", "")


async def run(*command: str) -> tuple[int, bytes, bytes]:
    """Status, output and errors of a program."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    async with asyncio.timeout(DEADLINE):
        out, errors = await process.communicate()
    return process.returncode or 0, out, errors


def client(site: tuple[Any, str, str]) -> Any:
    import ssl

    verify: Any = ssl.create_default_context(cafile=site[2]) if site[2] else True
    how = {"http1": False, "http2": True, "verify": verify, "trust_env": False, "timeout": DEADLINE}
    return httpx.AsyncClient(base_url=site[1], **how)


async def test_httpx(site: Any) -> None:
    async with client(site) as web:
        answers = await asyncio.gather(*[web.get("/hello") for _ in range(30)])
        assert {(one.status_code, one.text, one.http_version) for one in answers} == {(200, "Hello, World!", "HTTP/2")}
        body = bytes(range(256)) * 4096
        assert (await web.post("/echo", content=body)).content == body

        async def pieces() -> AsyncIterator[bytes]:
            for at in range(0, len(body), 100_000):
                yield body[at : at + 100_000]

        assert (await web.post("/echo", content=pieces())).content == body
        assert (await web.head("/hello")).content == b""
        assert (await web.get("/raise")).status_code == 500
        assert (await web.post("/hello", content=body)).text == "Hello, World!"  # it sends all before it reads
        with pytest.raises(httpx.RemoteProtocolError):
            await web.get("/raise-half")
        assert (await web.get("/hello")).status_code == 200


async def test_httpx_streams(site: Any, tmp_path: Path) -> None:
    gate = Fifo(tmp_path / "gate")
    async with client(site) as web:
        path = script(["start", 200], ["body", "one", True], ["wait", str(gate)], ["body", "two"])
        async with web.stream("GET", path) as answer:
            got = [await anext(pieces := answer.aiter_raw())]
            assert got == [b"one"]
            gate.release()
            assert [piece async for piece in pieces] == [b"two"]
    await eventually(lambda: not calls(site[0]))
    gate.close()


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
async def test_curl(site: Any, tmp_path: Path) -> None:
    _, url, cert = site
    how = ["--cacert", cert, "--http2"] if cert else ["--http2-prior-knowledge"]
    curl = ["curl", "--silent", "--show-error", "--noproxy", "*", *how]
    urls = [f"{url}/hello"] * (2 if cert else 1)  # in clear, curl 7.88 cannot use a connection again
    status, out, errors = await run(*curl, "--include", *urls)
    assert status == 0, errors
    assert out.count(b"HTTP/2 200") == len(urls)
    assert out.endswith(b"Hello, World!")
    body = tmp_path / "body"
    body.write_bytes(b"x" * 3_000_000)
    status, out, errors = await run(*curl, f"{url}/echo", "--upload-file", str(body))
    assert (status, len(out)) == (0, 3_000_000), errors
    status, out, errors = await run(*curl, f"{url}/echo", "--data", "abc", "--header", "expect: 100-continue")
    assert (status, out) == (0, b"abc"), errors
    status, out, errors = await run(*curl, "--head", f"{url}/hello")
    assert (status, out[:10]) == (0, b"HTTP/2 200"), errors
    status, out, errors = await run(*curl, f"{url}/raise-half")
    assert status == 92, errors  # not closed cleanly


@pytest.mark.skipif(shutil.which("h2load") is None, reason="there is no h2load (Debian package nghttp2-client)")
@pytest.mark.parametrize(("path", "size"), [("/hello", 13), ("/big?70000", 70000)])
async def test_h2load(site: Any, path: str, size: int) -> None:
    server, url, _ = site
    requests = 600
    status, out, errors = await run("h2load", "-n", str(requests), "-c", "4", "-m", "32", url + path)
    text = out.decode()
    assert status == 0, errors
    assert f"{requests} succeeded, 0 failed, 0 errored, 0 timeout" in text
    assert f"({requests * size}) data" in text
    await eventually(lambda: not server.front.connections and not calls(server))


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
async def test_curl_is_told_that_its_body_is_too_large(tmp_path: Path) -> None:
    body = tmp_path / "body"
    body.write_bytes(b"x" * 3_000_000)
    async with serving("subinterpreter", max_body=1_000_000) as server:
        command = ["curl", "--silent", "--noproxy", "*", "--http2-prior-knowledge", "--write-out", "%{json}"]
        url = f"http://127.0.0.1:{port(server)}/echo"
        status, out, errors = await run(*command, "--output", "/dev/null", "--upload-file", str(body), url)
        assert status == 0, errors
        assert json.loads(out)["http_code"] == 413
