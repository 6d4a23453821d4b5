"""`serve --reload`: a real server whose app's files change."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
from pathlib import Path

import pytest
from guard_kit import until
from ops_kit import Served, clean, command, serve

pytest.importorskip("click")
pytest.importorskip("pydantic")
pytest.importorskip("yaml")
pytest.importorskip("httptools")
pytest.importorskip("watchfiles")

from subpool.http import watcher
from subpool.http.config import ServerConfig
from subpool.http.watcher import Wanted, described, folders, forget_bytecode

APP = """
async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d")]})
    await send({"type": "http.response.body", "body": b"%s"})
"""
RELOADED = "reloaded: 1 "


def write(file: Path, body: str) -> None:
    file.write_text(APP % (len(body), body))


def reloads(served: Served, times: int) -> None:
    """Wait until it has reloaded so often."""
    served.wait_for(f"(?s)(?:{RELOADED}.*){{{times}}}")


def watching(served: Served) -> None:
    served.wait_for("a change reloads")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with an app; `beside`, outside of it, is for files on their way."""
    folder = tmp_path / "site"
    folder.mkdir()
    (tmp_path / "beside").mkdir()
    write(folder / "page.py", "one")
    return folder


@pytest.mark.parametrize("guard", ["--guard", "--no-guard"])
def test_a_change_reloads_and_connections_stay(guard: str, site: Path) -> None:
    """A save that writes, one that renames, a syntax error that is mended, a new file, a deleted one."""
    with serve("--reload", guard, "--keepalive-timeout", "20", app="page:app", path=site) as served:
        watching(served)
        client = http.client.HTTPConnection(*served.address, timeout=20)
        client.connect()
        sock = client.sock

        def answer() -> str:
            client.request("GET", "/")
            return client.getresponse().read().decode()

        assert answer() == "one"
        write(site / "page.py", "two")
        reloads(served, 1)
        served.wait_for(r"page\.py modified: reloading")
        assert answer() == "two"
        beside = site.parent / "beside" / "page.py"
        write(beside, "three")
        os.replace(beside, site / "page.py")
        reloads(served, 2)
        assert answer() == "three"
        (site / "page.py").write_text("def app(:")
        served.wait_for("not reloaded, the old workers stay: cannot import 'page'.*SyntaxError")
        assert answer() == "three"
        write(site / "page.py", "four")
        reloads(served, 3)
        assert answer() == "four"
        write(site / "more.py", "five")
        reloads(served, 4)
        served.wait_for(r"more\.py added")
        (site / "more.py").unlink()
        reloads(served, 5)
        served.wait_for(r"more\.py deleted: reloading")
        assert answer() == "four"
        assert client.sock is sock, "the connection stayed open"
        client.close()
        assert served.get("/") == (200, "four")


def test_a_burst_is_one_reload_and_others_files_are_none(site: Path) -> None:
    beside = site.parent / "beside"
    (beside / "skipped").mkdir()
    options = ("--reload-include", "*.html", "--reload-exclude", "*_gen.py", "--reload-exclude", str(site / "cache"))
    (site / "cache").mkdir()
    with serve("--reload", *options, app="page:app", path=site) as served:
        watching(served)
        for name in ("notes.txt", "x_gen.py", ".hidden.py", "cache/c.py", "page.pyc"):
            (site / name).write_text("")
        (site / "__pycache__").mkdir(exist_ok=True)
        (site / "__pycache__" / "y.py").write_text("")
        for number in range(20):
            write(beside / f"m{number}.py", "x")
        for number in range(20):
            os.rename(beside / f"m{number}.py", site / f"m{number}.py")
        reloads(served, 1)
        served.wait_for(r"m0\.py added, m1\.py added, m10\.py added and 17 more: reloading")
        (site / "base.html").write_text("")
        reloads(served, 2)
        served.wait_for(r"base\.html added: reloading")
        (beside / "package").mkdir()
        write(beside / "package" / "__init__.py", "x")
        os.rename(beside / "package", site / "package")  # a change of the directory: nobody tells of its files
        reloads(served, 3)
        assert served.said.count(": reloading") == 3


def test_directories_of_ones_own(site: Path) -> None:
    other = site.parent / "other"
    other.mkdir()
    with serve("--reload", "--reload-dir", str(other), app="page:app", path=site) as served:
        watching(served)
        assert f"watching {other}: " in served.said
        write(site / "page.py", "two")
        (other / "x.py").write_text("")
        reloads(served, 1)
        assert served.said.count(": reloading") == 1
        assert "page.py" not in served.said


def test_threads_take_a_fresh_process_and_bad_code_leaves_the_old_one(site: Path) -> None:
    with serve("--reload", "--guard", "--isolation", "thread", app="page:app", path=site) as served:
        watching(served)
        (site / "page.py").write_text("def app(:")
        served.wait_for("ended with status 1; the one that it was to replace goes on")
        assert served.get("/") == (200, "one")
        write(site / "page.py", "two")
        served.wait_for("is ready")
        until(lambda: served.get("/") == (200, "two"))  # the old process may take a connection before it is told


def test_of_several_processes_one_watches_and_all_reload(site: Path) -> None:
    with serve("--reload", "--guard", "--processes", "2", app="page:app", path=site) as served:
        served.wait_for("is ready")
        write(site / "page.py", "two")
        reloads(served, 2)
        assert served.said.count(": reloading") == 1
        assert {served.get("/") for _ in range(8)} == {(200, "two")}


def test_the_same_second_and_the_same_size(site: Path) -> None:
    """Of which a cached module of the version before would look right."""
    with serve("--reload", app="page:app", path=site) as served:
        watching(served)
        os.utime(site / "page.py", (1e9, 1e9))
        reloads(served, 1)
        for times, body in enumerate(("two", "six"), 2):
            beside = site.parent / "beside" / "page.py"
            write(beside, body)
            os.utime(beside, (1e9, 1e9))
            os.replace(beside, site / "page.py")
            reloads(served, times)
            assert served.get("/") == (200, body)


def test_it_is_not_loaded_where_it_is_off(site: Path) -> None:
    code = (
        "import asyncio, sys\nfrom subpool import Server, ServerConfig\n"
        "async def main():\n"
        "    server = Server(ServerConfig(app='page:app', workers=1, bind=['127.0.0.1:0'], pythonpath=['.']))\n"
        "    await server.start()\n    await server.stop(1)\n"
        "asyncio.run(main())\nassert not {'watchfiles', 'subpool.http.watcher'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=25, cwd=site, env=clean())


@pytest.mark.parametrize("guard", ["--guard", "--no-guard"])
def test_without_watchfiles(guard: str, site: Path) -> None:
    (site / "sitecustomize.py").write_text("import sys\nsys.modules['watchfiles'] = None\n")
    status, _, err = command(
        "serve", "page:app", "--bind", "127.0.0.1:0", "--workers", "1", "--reload", guard, "--pythonpath", str(site),
        PYTHONPATH=str(site),
    )  # fmt: skip
    told = "reload: needs watchfiles, which is not installed: pip install 'subpool[reload]'"
    assert (status, err) == (1, f"subpool: error: {told}\n")


def test_a_directory_that_is_none() -> None:
    status, _, err = command("serve", "a:b", "--reload", "--reload-dir", "/nowhere", "--reload-include", "")
    assert status == 1
    assert "--reload-dir: is '/nowhere', and there is no such directory" in err
    assert "--reload-include: is empty; it must be a glob" in err


def test_an_embedded_server_ends_while_it_reloads(site: Path) -> None:
    import asyncio

    from subpool import Server

    async def main() -> None:
        options = {"app": "page:app", "workers": 1, "bind": ["127.0.0.1:0"], "pythonpath": [str(site)], "reload": True}
        server = Server(ServerConfig.model_validate(options))
        await server.start()
        begun = asyncio.Event()
        reload = server.reload

        async def slow() -> str | None:
            begun.set()
            return await reload()

        server.reload = slow  # type: ignore[method-assign]
        write(site / "page.py", "two")
        async with asyncio.timeout(20):
            await begun.wait()
            await server.stop(1.0)

    asyncio.run(main())


# which files


@pytest.mark.parametrize(
    ("included", "excluded", "path", "wanted"),
    [
        ([], [], "/w/a.py", True),
        ([], [], "/w/deep/er/a.py", True),
        ([], [], "/w/a.html", False),
        ([], [], "/w/.a.py", False),
        ([], [], "/w/.venv/lib/a.py", False),
        ([], [], "/w/node_modules/a.py", False),
        (["*.html"], [], "/w/a.html", True),
        (["*.html"], ["base*"], "/w/base.html", False),
        (["*.html"], ["*.py"], "/w/a.py", False),
        ([".env"], [], "/w/.env", True),
        ([".*"], [], "/w/.env", True),
        (["templates/*"], [], "/w/templates/x", True),
        (["templates/*"], [], "/w/x", False),
        ([], ["test_*.py"], "/w/test_a.py", False),
        ([], ["/w/*.py"], "/w/a.py", False),
    ],
)
def test_globs(included: list[str], excluded: list[str], path: str, wanted: bool) -> None:
    assert Wanted(["/w"], included, excluded)(None, path) is wanted


def test_a_root_may_have_any_name(tmp_path: Path) -> None:
    assert Wanted(["/x/.venv/src"], [], [])(None, "/x/.venv/src/a.py")


def test_which_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner, other = tmp_path / "inner", tmp_path.parent
    inner.mkdir()
    monkeypatch.chdir(tmp_path)
    assert folders(ServerConfig(app="a:a")) == [str(tmp_path)]
    assert folders(ServerConfig(app="a:a", pythonpath=["inner", ".", "/nowhere"])) == [str(tmp_path)]
    mounts = [{"prefix": "/", "app": "a:a", "pythonpath": ["inner"]}]
    assert folders(ServerConfig.model_validate({"mounts": mounts})) == [str(inner)]
    assert folders(ServerConfig(app="a:a", pythonpath=["."], reload_dir=["inner"])) == [str(inner)]
    assert described([("added", str(inner / "b")), ("deleted", str(tmp_path / "a"))]) == "a deleted, inner/b added"
    assert described([("added", "/z")]) == "/z added"
    assert watcher.shown(str(other)) == str(other)


def test_cached_modules_are_removed(tmp_path: Path) -> None:
    import py_compile

    (tmp_path / "a.py").write_text("")
    made = Path(str(py_compile.compile(str(tmp_path / "a.py"))))
    forget_bytecode([str(tmp_path / "a.py"), str(tmp_path / "gone.py"), str(tmp_path / "a.html")])
    assert not made.exists()


def test_the_system_has_no_watches_left(site: Path) -> None:
    import asyncio
    import resource

    async def main() -> None:
        looking = watcher.Watcher(ServerConfig(app="a:a", reload_dir=[str(site)]), lambda: asyncio.sleep(0))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        try:
            with pytest.raises(OSError, match=r"cannot watch .*site: "):
                await looking.start()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        await looking.close()

    import watchfiles  # its loading takes descriptors

    assert watchfiles
    asyncio.run(main())
