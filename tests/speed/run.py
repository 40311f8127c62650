"""What the pipeline costs, beside a loop in one process and other people's ways to run the same stages.

    make bench                                                # all of it, into docs/performance.md
    make bench ARGS=--long                                    # and the memory up to 100 million records
    make bench ARGS=--quick                                   # a minute of it, nothing written
    PYTHONPATH=tests .venv/bin/python -m speed.run --only head,latency

Ends with 1 when a target is missed, or somebody has not done the same work as the others, and with 0 otherwise.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from bench.page import Page
from speed import contest, head, sink_alone, sweeps, timely
from speed.bench import Bench
from speed.contest import FailedError, UnequalError

BEGIN: Final = "<!-- written by make bench: begin -->"
END: Final = "<!-- written by make bench: end -->"
PARTS: Final[dict[str, Callable[[Bench], None]]] = {
    "head": head.head_to_head,
    "lines": head.lines,
    "sink": sink_alone.sink,
    "latency": timely.latencies,
    "start": timely.starts,
    "recovery": timely.recoveries,
    "idle": timely.idle,
    "batches": sweeps.batches,
    "columns": sweeps.columns,
    "length": sweeps.length,
    "memory": sweeps.memory,
}
LIBRARIES: Final = ("numpy", "scikit-learn", "pyzmq", "bytewax", "ray")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="small works, one run each")
    parser.add_argument("--long", action="store_true", help="the memory up to 100 million records; minutes more")
    parser.add_argument("--pathway", type=Path, metavar="PYTHON", help="of an environment that has Pathway")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the page there, when all of it was run")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every single run there")
    wanted = parser.parse_args(arguments)
    parts = wanted.only.split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"no part {sorted(unknown)}; there are {', '.join(PARTS)}")
    try:
        writable(wanted.json, wanted.markdown)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    bench, began = Bench(wanted), time.monotonic()
    broken = measured(bench, parts)
    minutes = (time.monotonic() - began) / 60
    verdict = Page()
    verdict.add(*bench.verdict())
    if wanted.json:
        told = {"machine": machine(), "broken": broken, **bench.told()}
        wanted.json.write_text(json.dumps(told, indent=1) + "\n")
    if broken:
        print(f"The run has failed: {broken}", file=sys.stderr)
        return 1
    if wanted.markdown and not bench.quick and parts == list(PARTS):
        text = f"{introduced(wanted, minutes)}\n\n{verdict.text()}\n{bench.page.text()}"
        wanted.markdown.write_text(between(wanted.markdown, text))
    return 0 if all(target.kept for target in bench.targets) else 1


def measured(bench: Bench, parts: Sequence[str]) -> str | None:
    """These parts, up to the first figure that says nothing: why it does not, or None."""
    try:
        for part in parts:
            PARTS[part](bench)
    except (UnequalError, FailedError) as error:
        return str(error)
    return None


def writable(report: Path | None, page: Path | None) -> None:
    """Both can be written when all is measured, which takes a while: OSError or ValueError now instead."""
    if report:
        report.parent.mkdir(parents=True, exist_ok=True)
        there = report.exists()
        report.open("a").close()
        if not there:
            report.unlink()
    if page:
        between(page, "")
        page.open("a").close()


def between(path: Path, text: str) -> str:
    """The page with `text` between its marks; what a person wrote around them stays."""
    before, mark, rest = path.read_text().partition(BEGIN)
    _, other, behind = rest.partition(END)
    if not mark or not other:
        raise ValueError(f"{path} has not the marks {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{text.strip()}\n\n{END}{behind}"


def machine() -> dict[str, str]:
    """What the figures are of."""
    model = next((x for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("model name")), ": ?")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    found = {
        "CPU": f"{os.cpu_count()} x {model.partition(':')[2].strip()}",
        "memory": f"{memory:.0f} GiB",
        "Linux": platform.release(),
        "Python": platform.python_version(),
    }
    found |= {name: _version(name) for name in LIBRARIES}
    return found | {"pathway": _pathway()}


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _pathway() -> str:
    code = "import importlib.metadata as m; print(m.version('pathway'))"
    done = subprocess.run([contest.python_of("pathway"), "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "not installed"


def introduced(wanted: argparse.Namespace, minutes: float) -> str:
    about = ", ".join(f"{name} {value}" for name, value in machine().items())
    command = "make bench" + (" ARGS=--long" if wanted.long else "")
    return INTRODUCTION.format(command=command, date=datetime.date.today().isoformat(), minutes=minutes, about=about)


INTRODUCTION: Final = """Written by `{command}` on {date}, in {minutes:.0f} minutes: {about}. Libraries for linear
algebra have one thread each, for everybody. Every contestant is a file `tests/speed/peer_*.py`, a process of its own
for every run; the work is `tests/speed/work.py`. Quix Streams takes no part: it does not run without a broker."""

if __name__ == "__main__":
    sys.exit(main())
