"""What a pipeline costs while nothing comes: CPU and wake-ups of every process of the default chain behind a file that
does not grow.

PYTHONPATH=tests .venv/bin/python -m support.idle --seconds 60
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import psutil

from support.daemon import Daemon, chain, running

RECORDS = 200


class Use(NamedTuple):
    """Of one process: the share of a core, and how often it went to sleep, which it does after every wake-up."""

    cpu: float
    wakes_per_s: float


def quiet_chain(path: Path) -> str:
    """The default chain behind a file that has a few records and gets no more."""
    lines = [f"{n % 7},{n % 5},{n % 7 + n % 5}" for n in range(RECORDS)]
    path.write_text("\n".join(["a,b,y", *lines]) + "\n")
    return chain(f'source = {{ type = "csv", path = "{path}", follow = true }}')


def processes(daemon: Daemon) -> dict[str, int]:
    """All pids by name. Asking wakes some of them up."""
    status = daemon.status()
    names = {process["pid"]: process["name"] for process in status["processes"]} | {status["pid"]: "supervisor"}
    pids = (status["pid"], *(child.pid for child in psutil.Process(status["pid"]).children(recursive=True)))
    return {names.get(pid) or Path(f"/proc/{pid}/comm").read_text().strip(): pid for pid in pids}


def look(pids: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """By name: nanoseconds on a CPU and voluntary context switches so far, of all threads."""
    found = {}
    for name, pid in pids.items():
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        ran = sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)
        slept = sum(_switches(task / "status") for task in tasks)
        found[name] = (ran, slept)
    return found


def _switches(path: Path) -> int:
    line = next(line for line in path.read_text().splitlines() if line.startswith("voluntary_ctxt_switches"))
    return int(line.split()[1])


def measure(pids: Mapping[str, int], seconds: float) -> dict[str, Use]:
    """Of every process over so many seconds."""
    before, began = look(pids), time.monotonic()
    time.sleep(seconds)
    after, took = look(pids), time.monotonic() - began
    return {
        name: Use((after[name][0] - before[name][0]) / 1e9 / took, (after[name][1] - before[name][1]) / took)
        for name in before
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    seconds = parser.parse_args().seconds
    with TemporaryDirectory() as directory, running(quiet_chain(Path(directory) / "quiet.csv")) as daemon:
        daemon.wait_progress(RECORDS)
        pids = processes(daemon)
        measure(pids, 5.0)  # the last epoch, and what the log extractor has to write
        uses = measure(pids, seconds)
    for name, use in uses.items():
        print(f"{name:16} {use.cpu * 100:6.3f} % of a core, {use.wakes_per_s:5.2f} wake-ups/s")
    print(f"{'in all':16} {sum(use.cpu for use in uses.values()) * 100:6.3f} %")


if __name__ == "__main__":
    main()
