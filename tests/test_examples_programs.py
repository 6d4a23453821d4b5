"""The programs of examples/guides run; every module there has its command, and its place in the table."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import EXAMPLES

MODULES = sorted((EXAMPLES / "guides").glob("*.py"))


def run(*command: str) -> list[str]:
    """The lines that a program of ours prints; it ends well."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *command],
        cwd=EXAMPLES.parent, capture_output=True, text=True, timeout=25, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@contextmanager
def server(*command: str) -> Iterator[str]:
    """A program that serves: the address which it tells, on either of its streams."""
    with subprocess.Popen(
        [sys.executable, "-W", "error", *command],
        cwd=EXAMPLES.parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            found = None
            told = []
            while found is None:
                line = process.stdout.readline()
                told.append(line)
                assert line, "".join(told)
                found = re.search(r"http://127\.0\.0\.1:[1-9]\d*", line)
            yield found[0]
        finally:
            process.terminate()


def test_from_python() -> None:
    lines = run("examples/guides/from_python.py")
    assert lines[0].startswith("ASGI: 200 ")
    assert lines[1].startswith("ASGI: 200 b'2.33")
    assert lines[2].startswith("ASGI: 400 ")
    assert lines[3] == "ASGI: TypeError a bug in the middle"
    assert "You asked for /api/users" in lines[4]


def test_custom_runners() -> None:
    """The runner is tenant_runner."""
    assert run("examples/guides/custom_runners.py") == [
        "ASGI state: {'tenant': 'acme'}",
        "ASGI headers: [(b'content-type', b'application/json'), (b'x-tenant', b'acme')]",
        "WSGI environ: example.tenant = 'globex'",
        "WSGI headers: [('Content-Type', 'text/plain; charset=utf-8'), ('X-Tenant', 'globex')]",
        "without it: {} [(b'content-type', b'application/json')]",
    ]


def test_behind_uvicorn() -> None:
    pytest.importorskip("uvicorn")
    with (
        server("-m", "uvicorn", "behind_uvicorn:app", "--app-dir", "examples/guides", "--port", "0") as address,
        urllib.request.urlopen(address, timeout=10) as answer,
    ):
        assert answer.read() == b"Hello from ASGI!\n"


def test_behind_http_server() -> None:
    with server("examples/guides/behind_http_server.py", "0") as address:
        with urllib.request.urlopen(f"{address}/caf%C3%A9?x=1", timeout=10) as answer:
            assert answer.read().decode() == "You asked for /caf\u00e9\n"
        with urllib.request.urlopen(address, data=b"a body", timeout=10) as answer:
            assert answer.read() == b"You asked for /\n"


def test_ml_model() -> None:
    pytest.importorskip("numpy")
    assert run("examples/guides/ml_model.py", "green tee")[0].endswith(" green tea")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_docstrings_have_a_command(path: Path) -> None:
    """It names this module and something in it, or a program that is there; the module is in the table, and tested."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    commands = [
        line.split()
        for line in (ast.get_docstring(tree) or "").splitlines()
        if line.startswith(("subpool ", "python ", "uvicorn "))
    ]
    assert commands
    first = commands[0]
    if first[0] == "python":
        assert (EXAMPLES.parent / first[1]).is_file()
    else:
        assert first[:2] == ["subpool", "serve"] or first[0] == "uvicorn"
        app = next(word for word in first if ":" in word)
        module, name = app.split(":")
        if f"examples/guides/{path.stem}.yaml" in first:  # what the configuration names is beside the app
            module, name = path.stem, "limit"
        assert module == path.stem
        bound = {getattr(node, "name", "") for node in tree.body}
        for node in tree.body:
            if isinstance(node, ast.Assign):
                bound |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        assert name in bound
        assert " ".join(first).find("--pythonpath examples/guides") > 0 or first[0] == "uvicorn"
    assert f"guides/{path.name}" in (EXAMPLES / "README.md").read_text(encoding="utf-8")
    tests = "".join(file.read_text(encoding="utf-8") for file in Path(__file__).parent.glob("test_examples_*.py"))
    assert re.search(rf"\b{path.stem}\b", tests)


def test_the_table_leads_somewhere() -> None:
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#:]+)\)", text)
    assert targets
    for target in targets:
        assert (EXAMPLES / target).exists(), target
