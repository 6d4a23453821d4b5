"""Comparison runs: what subpool costs, beside what you have.

    python -m perf list
    python -m perf all | NAME ... [--fast | --rigorous] [-o FILE.json] [--only PART] [--isolation KIND]
                                  [--workers N] [--python PATH ...]
    python -m perf report FILE.json ... [--into docs/performance.md] [--plots FOLDER] [-o FILE.md]

The figures are JSON of pyperf: `python -m pyperf compare_to old.json new.json` compares two runs.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import os
import signal
import sys
import time
from pathlib import Path
from types import ModuleType

from perf import frame, machine, report, results


def bench(name: str) -> tuple[ModuleType | None, str]:
    """The module of a benchmark and its first line; without the module, why there is none."""
    if not (Path(__file__).parent / f"{name}.py").exists():
        return None, f"there is no perf/{name}.py yet"
    module = importlib.import_module(f"perf.{name}")
    if not hasattr(module, "run"):
        return None, f"perf/{name}.py has no run(session): it is a script of its own"
    return module, (module.__doc__ or "").strip().splitlines()[0]


async def run_all(session: frame.Session, names: list[str]) -> None:
    """The benchmarks, one after another. One that fails does not end the others."""
    for name in names:
        session.bench = name
        module, about = bench(name)
        if module is None:
            case = session.case("all", about)
            session.leave(case, name, about)
            continue
        began = time.monotonic()
        try:
            await module.run(session)
        except Exception as error:
            session.leave(session.case("all", about), name, f"{type(error).__name__}: {error}")
        session.say(f"  {name}: {time.monotonic() - began:.0f} s")


def interrupted(number: int, where: object) -> None:
    """SIGTERM ends a run as Ctrl-C does: at once, also in a turn that never comes back to the loop. (asyncio's own
    handler waits for the loop.) What was started is ended by the `async with` blocks on the way out."""
    raise KeyboardInterrupt


def measure(args: argparse.Namespace) -> int:
    names = list(dict.fromkeys(args.names))
    if "all" in names:
        names = [name for name in frame.BENCHMARKS if name not in frame.SOAK]
    unknown = [name for name in names if name not in frame.BENCHMARKS]
    if unknown:
        known = ", ".join(frame.BENCHMARKS)
        print(f"python -m perf: no benchmark {', '.join(unknown)}; there are {known}", file=sys.stderr)
        return 2
    if reason := machine.missing("pyperf"):
        print(f"python -m perf: {reason}", file=sys.stderr)
        return 2
    effort = frame.RIGOROUS if args.rigorous else frame.FAST if args.fast else frame.NORMAL
    session = frame.Session(effort, args.isolation, args.workers, tuple(args.python), args.only)
    about = machine.metadata(effort.name, args.isolation, args.workers)
    status = 0
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, interrupted)
    try:
        asyncio.run(run_all(session, names))
    except (KeyboardInterrupt, asyncio.CancelledError):
        session.say("ended before its time; what is there is kept")
        status = 130
    about["perf_load_after"] = round(os.getloadavg()[0], 2)
    for case in session.cases:
        case.machine = about
    text = report.markdown(session.cases, {})
    print(text)
    if args.output and results.store(args.output, session.cases, about):
        session.say(f"written: {args.output}")
    if not any(case.values for case in session.cases):
        status = status or 1
    sys.stdout.flush()
    os._exit(status) if status == 130 else None  # a worker that was cut off must not hold the process
    return status


def tell(args: argparse.Namespace) -> int:
    cases = []
    for path in args.files:
        try:
            cases += results.load(path)
        except (OSError, ValueError) as error:
            print(f"python -m perf report: {error}", file=sys.stderr)
            return 2
    folder = args.plots or (args.into.with_suffix("") if args.into else None)
    text = report.write(cases, args.into, folder)
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(text, encoding="utf-8")
    elif not args.into:
        print(text)
    return 0


def show(args: argparse.Namespace) -> int:
    for name in frame.BENCHMARKS:
        print(f"{name:10} {bench(name)[1]}{'  (run when named)' if name in frame.SOAK else ''}")
    return 0


def main() -> int:
    first = sys.argv[1] if len(sys.argv) > 1 else ""
    parser = argparse.ArgumentParser(
        prog="python -m perf", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if first == "report":
        parser.add_argument("report")
        parser.add_argument("files", type=Path, nargs="+", metavar="FILE.json")
        parser.add_argument("--into", type=Path, help="a page with the marks of the report")
        parser.add_argument("--plots", type=Path, help="a folder for SVG; with --into: the page's name")
        parser.add_argument("-o", "--output", type=Path, help="a file for the report")
        return tell(parser.parse_args())
    parser.add_argument("names", nargs="+", metavar="NAME", help="list, report, all, or benchmarks")
    effort = parser.add_mutually_exclusive_group()
    effort.add_argument("--fast", action="store_true", help="few short rounds: whether it runs, not what it costs")
    effort.add_argument("--rigorous", action="store_true", help="many long rounds")
    parser.add_argument("--only", default="", help="cases whose bench/name has this in it")
    parser.add_argument("--isolation", default="subinterpreter", choices=("subinterpreter", "thread", "process"))
    parser.add_argument("--workers", type=int, default=2, help="of the servers (default 2)")
    parser.add_argument("--python", action="append", default=[], help="a further interpreter that has subpool[server]")
    parser.add_argument("-o", "--output", type=Path, help="JSON of pyperf")
    args = parser.parse_args()
    return show(args) if args.names == ["list"] else measure(args)


if __name__ == "__main__":
    sys.exit(main())
