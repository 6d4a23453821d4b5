"""What the documents show is run.

In README.md and docs/*.md a fence's first line says what becomes of the block:

- ```python file=hello.py```   is written to that file in the document's own scratch folder
- ```python run```             is run there as a program, with warnings as errors; it must end with status 0
- ```text output```            right behind a run block: exactly what that printed

Other blocks are only parsed (Python) or left alone. A document's blocks share one folder, in their order.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(?P<info>[^`\n]*)\n(?P<text>.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block: its info string, its text and the line of the document where the text begins."""

    info: str
    text: str
    line: int


def blocks(document: Path) -> list[Block]:
    """All fenced blocks of a Markdown document, in order."""
    source = document.read_text(encoding="utf-8")
    return [
        Block(found["info"].strip(), found["text"], source.count("\n", 0, found.start("text")) + 1)
        for found in FENCE.finditer(source)
    ]


def run(folder: Path, *command: str) -> str:
    """Run Python in `folder`; what it printed. Fails with all it said unless it ends with status 0."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *command],
        cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=25, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def runnable(document: Path) -> list[int]:
    """The lines of a document's run blocks."""
    return [block.line for block in blocks(document) if block.info == "python run"]


@pytest.mark.parametrize(
    ("document", "line"),
    [pytest.param(doc, line, id=f"{doc.name}:{line}") for doc in DOCUMENTS for line in runnable(doc)],
)
def test_example_runs(document: Path, line: int, tmp_path: Path) -> None:
    every = blocks(document)
    for position, block in enumerate(every):
        words = block.info.split()
        if words[:1] == ["python"] and words[-1].startswith("file="):
            path = tmp_path / words[-1].removeprefix("file=")
            assert path.name == words[-1].removeprefix("file="), "a plain file name"
            path.write_text(block.text, encoding="utf-8")
        elif block.line == line:
            program = tmp_path / "program.py"
            # Line numbers in a traceback are those of the document.
            program.write_text("\n" * (line - 1) + block.text, encoding="utf-8")
            printed = run(tmp_path, program.name)
            follower = every[position + 1 : position + 2]
            if follower and follower[0].info == "text output":
                assert printed == follower[0].text
            return
    raise AssertionError(f"no block at line {line}")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_python_blocks_parse(document: Path) -> None:
    for block in blocks(document):
        if block.info.split()[:1] == ["python"]:
            tree = compile(
                block.text, f"{document.name}:{block.line}", "exec",
                ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
            )  # fmt: skip
            assert tree is not None


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    prose = FENCE.sub("", document.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if not re.match(r"[a-z]+:|#", target):
            assert (document.parent / target.partition("#")[0]).exists(), target


def test_documents_have_examples() -> None:
    assert any(runnable(document) for document in DOCUMENTS)


def test_demo() -> None:
    printed = run(ROOT, "examples/demo/demo.py")
    for part in ("ASGI app", "WSGI app", "ValueError: this handler always fails", "Statistics"):
        assert part in printed


def test_the_reference_lists_the_servers_methods() -> None:
    pytest.importorskip("pydantic")
    from subpool import Server

    text = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    section = text.partition("\n## Server\n")[2].partition("\n## ")[0]
    listed = set(re.findall(r"^\| `(?:await )?server\.(\w+)\(", section, re.MULTILINE))
    assert listed == {name for name in vars(Server) if not name.startswith("_")}
