"""How long it takes to come back: each built-in stage, the launcher and the supervisor, killed under load.

PYTHONPATH=tests .venv/bin/python -m support.recovery --kills 40

The default chain at 100,000 records/s with SQLite; a stage's recovery is from the signal to the news of the first batch
of the new generation that the last stage has processed. Ends with 1 when a promise is broken: the machine should have
nothing else to do.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from support.daemon import Daemon, chain, children, comm, running, wait_for
from support.law import STAGES

OBSERVED_S: Final = 0.1
"""Between two looks at a daemon that recovers: reading its log every few milliseconds costs it a third of a core."""
TEXT: Final = '[supervision]\nmax_restarts = 1000000\nwindow = "1s"\nstable_after = "1ms"\n' + chain('rate = "100k/s"')


@dataclass(frozen=True, slots=True)
class Promise:
    """Seconds, at most."""

    what: str
    median: float
    p99: float

    def judge(self, seconds: Sequence[float]) -> bool:
        """Prints what was measured beside it; whether it is kept."""
        ordered = sorted(seconds)
        median, p99 = statistics.median(ordered), ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
        kept = median <= self.median and p99 <= self.p99
        print(
            f"{self.what}: median {median * 1e3:.0f} of {self.median * 1e3:.0f} ms, "
            f"p99 {p99 * 1e3:.0f} of {self.p99 * 1e3:.0f} ms, worst {ordered[-1] * 1e3:.0f} ms "
            f"({len(ordered)}): {'kept' if kept else 'BROKEN'}",
            flush=True,
        )
        return kept


class Kept:
    """Counts what the consumer has committed; each look goes on where the last one ended."""

    def __init__(self) -> None:
        self.rows = 0
        self._id, self._position = 0, -1

    def more(self, daemon: Daemon) -> tuple[int, int]:
        """Behind an epoch that begins now: positions that are missing, and rows too many."""
        epoch = daemon.status()["epoch"] or 0
        wait_for(lambda: (daemon.status()["epoch"] or 0) > epoch + 1, "two more epochs")
        return self.look(daemon.state / "stages" / "consumer" / "records.sqlite")

    def look(self, file: Path) -> tuple[int, int]:
        """In a sink's file, which may be written to meanwhile."""
        new = "count(DISTINCT position) FILTER (WHERE position > ?)"
        query = f"SELECT count(*), {new}, max(position), max(id) FROM committed_records WHERE id > ?"
        with contextlib.closing(sqlite3.connect(file)) as db:
            rows, distinct, last, newest = db.execute(query, (self._position, self._id)).fetchone()
        assert rows, "the sink has got no rows since the last look"
        lost, doubled = last - self._position - distinct, rows - distinct
        self.rows, self._id, self._position = self.rows + rows, newest, last
        return lost, doubled


def stage_promise(what: str) -> Promise:
    return Promise(f"kill -9 of {what}", 0.1, 0.3)


LAUNCHER: Final = Promise("kill -9 of the launcher, until forks work", 3.0, 3.0)
SUPERVISOR: Final = Promise("kill -9 of the supervisor, restarted at once", 2.0, 2.0)


def stage(daemon: Daemon, name: str) -> float:
    """Kill it, and wait until the data flows again."""
    generation = daemon.wait_running()["generation"]
    daemon.wait_progress(20_000)
    seen, others = len(daemon.events("first_batch_seen")), daemon.pids()
    began = time.time()
    os.kill(others.pop(name), signal.SIGKILL)
    back = wait_for(lambda: daemon.events("first_batch_seen")[seen:], "the data flows again", step=OBSERVED_S)
    seconds = float(back[0]["ts"]) - began
    daemon.wait_running(generation + 1)
    assert {n: pid for n, pid in daemon.pids().items() if n != name} == others
    return seconds


def launcher(daemon: Daemon) -> float:
    """Kill it; seconds until the next one can fork. The stages run on."""
    before, seen = daemon.pids(), len(daemon.events("pipeline_ready"))
    old = daemon.launcher_pid()
    began = time.monotonic()
    os.kill(old, signal.SIGKILL)
    wait_for(lambda: [p for p in children(daemon.process.pid) if comm(p) == "launcher" and p != old], "a new launcher")
    os.kill(before["evaluator"], signal.SIGKILL)  # its successor is the proof that forks work
    wait_for(lambda: daemon.pids().get("evaluator") not in (None, before["evaluator"]), "a fork")
    assert len(daemon.events("pipeline_ready")) == seen
    return time.monotonic() - began


def supervisor(directory: Path) -> float:
    """Kill it and start it again at once, as systemd would without a delay; seconds to the first batch at the end."""
    daemon = Daemon(TEXT, directory)
    try:
        daemon.wait_running()
        daemon.wait_progress(50_000)
        began = time.monotonic()
        daemon.process.kill()
        daemon.process.wait(10.0)
        again = Daemon(TEXT, directory)
        try:
            again.wait_running()
            again.wait_progress(1)
            return time.monotonic() - began
        finally:
            again.close()
    finally:
        daemon.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=40)
    kills = parser.parse_args().kills
    everything: list[float] = []
    kept = []
    with running(TEXT) as daemon:
        for name in STAGES:
            found = [stage(daemon, name) for _ in range(kills)]
            everything += found
            kept.append(stage_promise(name).judge(found))
        kept.append(stage_promise("any stage").judge(everything))
        kept.append(LAUNCHER.judge([launcher(daemon) for _ in range(5)]))
    found = []
    for _ in range(7):
        with tempfile.TemporaryDirectory(prefix="streampipe-recovery-") as directory:
            found.append(supervisor(Path(directory)))
    kept.append(SUPERVISOR.judge(found))
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
