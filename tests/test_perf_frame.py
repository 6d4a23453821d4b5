"""The frame of the measurements: turns, what is kept, what is reported. The figures are of stubs, and known."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import DEADLINE, eventually

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from perf import frame, machine, peers, plot, promises, report, results  # noqa: E402
from perf.results import Case  # noqa: E402

pytestmark = pytest.mark.anyio
Turn = Callable[[float], Awaitable[dict[str, float]]]
RUN = {**os.environ, "PYTHONPATH": str(ROOT)}


def session(**fields: Any) -> frame.Session:
    made = frame.Session(frame.NORMAL, **fields)
    made.bench = "stub"
    return made


def stub(name: str, said: list[str], cost: Callable[[int], float]) -> Turn:
    count = 0

    async def turn(seconds: float) -> dict[str, float]:
        nonlocal count
        said.append(name)
        count += 1
        return {"time": cost(count)}

    return turn


async def test_contestants_take_turns_and_what_slows_a_round_slows_all() -> None:
    said: list[str] = []

    def slow_at_times(count: int) -> float:
        return 1.0 if count % 2 else 9.0

    one = session()
    await one.compare(
        "case",
        "A title.",
        {"ours": stub("ours", said, slow_at_times), "theirs": stub("theirs", said, lambda n: 3 * slow_at_times(n))},
        warm=False,
    )
    (case,) = one.cases
    rounds = [set(said[i : i + 2]) for i in range(0, len(said), 2)]
    assert rounds == [{"ours", "theirs"}] * frame.NORMAL.rounds
    assert len({tuple(said[i : i + 2]) for i in range(0, len(said), 2)}) == 2, "the order never changes"
    assert case.ratios("theirs") == [3.0] * frame.NORMAL.rounds
    assert case.spread("ours", "time") > results.NOISY


async def test_one_that_fails_is_left_out_with_its_reason() -> None:
    async def fails(seconds: float) -> dict[str, float]:
        raise ValueError("no\nsuch thing")

    async def cannot(seconds: float) -> dict[str, float]:
        raise frame.Left("has no HTTP/2")

    one = session()
    turns = {"ours": stub("ours", [], lambda n: 1.0), "fails": fails, "cannot": cannot}
    await one.compare("case", "A title.", turns, left={"gone": "not installed: gone"})
    (case,) = one.cases
    assert case.left == {"fails": "ValueError: no such thing", "cannot": "has no HTTP/2", "gone": "not installed: gone"}
    assert case.contestants() == ["ours"]
    text = report.table(case)
    assert "- gone: left out, not installed: gone" in text
    assert "| ours | 1 s | 5 |" in text


async def test_turns_of_calls_find_their_number_and_patches_are_undone() -> None:
    calls = 0

    def call() -> None:
        nonlocal calls
        calls += 1

    found = await frame.loop(call)(0.02)
    assert 0 < found["time"] < 0.001
    assert calls > 20

    class Owner:
        value = 1

    seen = []

    async def turn(seconds: float) -> dict[str, float]:
        seen.append(Owner.value)
        return {}

    await frame.patched_turn(turn, (Owner, "value", 2))(0.1)
    assert (seen, Owner.value) == ([2], 1)
    with pytest.raises(AttributeError):
        await frame.patched_turn(turn, (Owner, "valeu", 2))(0.1)


def measured() -> list[Case]:
    """A case of a promise, one of growth, one that nobody could take part in."""
    hello = Case("calls", "hello", "Hello.", order=["run_asgi", "pool.call"])
    for turn in range(5):
        hello.add("run_asgi", "time", turn, 20e-6 * (1 + turn))
        hello.add("pool.call", "time", turn, 30e-6 * (1 + turn))
        hello.add("InterpreterPoolExecutor", "time", turn, 70e-6 * (1 + turn))
    hello.left["ProcessPoolExecutor"] = "OSError: no processes"
    grown = Case("growth", "headers", "So many headers.", growth="headers")
    for number in (1, 10, 100):
        grown.add(str(number), "time", 0, (10 + 2 * number) * 1e-6)
    return [hello, grown, Case("servers", "all", "Servers.", left={"servers": "there is no wrk here"})]


def test_what_is_kept_is_a_file_of_pyperf_and_comes_back(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    about = machine.metadata("fast", "thread", 2)
    assert results.store(file, measured(), about)
    back = {case.name: case for case in results.load(file)}
    assert list(back) == ["hello", "headers", "all"]
    for case in measured():
        assert back[case.name].values == case.values
        assert back[case.name].left == case.left
    assert back["hello"].machine["perf_isolation"] == "thread"
    assert back["hello"].machine["perf_effort"] == "fast"
    done = subprocess.run(
        [sys.executable, "-m", "pyperf", "compare_to", str(file), str(file)],
        capture_output=True,
        text=True,
        timeout=25,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "calls/hello/run_asgi/time" in done.stdout
    assert not results.store(tmp_path / "none.json", [Case("a", "b", "c")], about), "no figure, no file"


def test_promises_are_met_not_met_or_not_measured() -> None:
    said = {verdict.promise.text: verdict for verdict in promises.verdicts(measured())}
    call = said["run_asgi beside pool.call of the same app"]
    assert (call.met, call.found) == (True, "1.50 × (1.50 to 1.50)")
    executor = said["run_asgi beside InterpreterPoolExecutor"]
    assert (executor.met, executor.best) == (False, "3.50 × InterpreterPoolExecutor")
    process = said["run_asgi beside ProcessPoolExecutor"]
    assert (process.met, process.found) == (None, "OSError: no processes")
    assert said["state get, median"].found == "not measured"
    for promise in promises.PROMISES:
        assert promise.bench in frame.BENCHMARKS


def test_a_report_has_ratios_slopes_reasons_and_the_machine(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{report.BEGIN}old\n{report.END}after\n", encoding="utf-8")
    cases = measured()
    for case in cases:
        case.machine = {"cpu_model_name": "<a & b>", "perf_revision": "abc"}
    report.write(cases, page, tmp_path / "page")
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "| pool.call | **1.50 ×** 90 us (11,111/s) | 5 |" in text
    assert re.search(r"\| run_asgi \| 60 us .* \| 5, noisy: an operation ± \d+% \|", text)
    assert "Slope of an operation: 2 us for one more (headers), from 10 us." in text
    assert "- servers: left out, there is no wrk here" in text
    assert text.count("revision abc") >= 3
    assert "](page/calls.svg)" in text
    for drawn in (tmp_path / "page").glob("*.svg"):
        assert ET.parse(drawn).getroot().tag == "{http://www.w3.org/2000/svg}svg"
    assert {file.name for file in (tmp_path / "page").iterdir()} == {"calls.svg", "growth.svg"}
    assert plot.draw([cases[2]]) == ""
    with pytest.raises(ValueError, match="no place for the report"):
        report.write(cases, ROOT / "README.md", None)


def test_every_benchmark_is_there_or_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "perf", "list"], cwd=ROOT, capture_output=True, text=True, timeout=25, check=True
    )
    said = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert list(said) == list(frame.BENCHMARKS)
    own = [name for name, line in said.items() if "script of its own" in line or "there is no" in line]
    assert set(own) <= {"services"}


async def test_a_server_that_does_not_start_says_its_last_words() -> None:
    with pytest.raises(frame.Left, match=r"did not start, status \d+: .*no_such_app"):
        async with peers.Serving(peers.Peer("uvicorn", app="no_such_app:app", workers=1)):
            raise AssertionError("it started")
    with pytest.raises(frame.Left, match="cannot be run"):
        async with peers.Serving(peers.Peer("subpool", python="/no/such/python")):
            raise AssertionError("it started")


async def test_all_processes_of_a_server_end() -> None:
    async with peers.Serving(peers.Peer("uvicorn", workers=2)) as server:
        family = peers.born(server.pid)
        assert len(family) >= 3
        assert peers.pss(server.pid) > 1e6
    left = {pid for pid, when in family.items() if peers.birth(pid) == when}
    await eventually(lambda: not any(peers.birth(pid) == family[pid] for pid in left))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_run_that_is_interrupted_ends_what_it_started(number: signal.Signals, tmp_path: Path) -> None:
    """Also while it is in a turn that does not come back to the loop by itself."""
    process = subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-m", "perf", "channels", "codec", "--rigorous", "-o", str(tmp_path / "run.json")],
        cwd=ROOT, env=RUN, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        first = process.stderr.readline()
        assert first.startswith("channels/")
        family = peers.born(process.pid)
        assert len(family) >= 3, "two kinds have a process on the other side"
        process.send_signal(number)
        process.communicate(timeout=DEADLINE)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130
    await eventually(lambda: not [pid for pid, when in family.items() if peers.birth(pid) == when])


def test_every_switch_finds_what_it_switches_off() -> None:
    """In a process of its own: a patch that misses its mark raises."""
    for module in sorted(path.stem for path in (ROOT / "perf" / "off").glob("[a-z]*.py")):
        command = [sys.executable, "-c", f"import perf.off.{module}"]
        done = subprocess.run(command, env=RUN, capture_output=True, text=True, timeout=25, check=False)
        assert done.returncode == 0, done.stderr
