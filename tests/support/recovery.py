"""How long it takes to come back: each built-in stage, the launcher and the supervisor, killed under load.

PYTHONPATH=tests .venv/bin/python -m support.recovery --kills 40

The default chain at 100,000 records/s with SQLite; a stage's recovery is the daemon's own figure (`first_batch_seen`),
from the death to the first batch of the new generation that the last stage has processed.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from support.daemon import Daemon, chain, children, comm, running, wait_for
from support.law import STAGES

OBSERVED_S = 0.1
"""Between two looks at a daemon that recovers: reading its log every few milliseconds costs it a third of a core."""
TEXT = '[supervision]\nmax_restarts = 1000000\nwindow = "1s"\nstable_after = "1ms"\n' + chain('rate = "100k/s"')


def figures(what: str, seconds: Sequence[float]) -> str:
    ordered = sorted(seconds)
    p99 = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    median = statistics.median(ordered)
    times = f"median {median * 1e3:.0f} ms, p99 {p99 * 1e3:.0f} ms, worst {ordered[-1] * 1e3:.0f} ms"
    return f"{what}: {times} ({len(ordered)})"


def stage(daemon: Daemon, name: str) -> float:
    """Kill it, and wait until the data flows again."""
    generation = daemon.wait_running()["generation"]
    daemon.wait_progress(20_000)
    seen, others = len(daemon.events("first_batch_seen")), daemon.pids()
    os.kill(others.pop(name), signal.SIGKILL)
    back = wait_for(lambda: daemon.events("first_batch_seen")[seen:], "the data flows again", step=OBSERVED_S)
    seconds = float(back[0]["seconds"])
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=40)
    kills = parser.parse_args().kills
    everything: list[float] = []
    with running(TEXT) as daemon:
        for name in STAGES:
            found = [stage(daemon, name) for _ in range(kills)]
            everything += found
            print(figures(f"kill -9 {name}", found), flush=True)
        print(figures("kill -9 of any stage", everything), flush=True)
        print(figures("kill -9 of the launcher, until forks work", [launcher(daemon) for _ in range(5)]), flush=True)
    found = []
    for _ in range(7):
        with tempfile.TemporaryDirectory(prefix="streampipe-recovery-") as directory:
            found.append(supervisor(Path(directory)))
    print(figures("kill -9 of the supervisor, restarted at once", found))


if __name__ == "__main__":
    main()
