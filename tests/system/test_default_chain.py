"""The default chain with its services, at a rate that leaves the processor room."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from streampipectl.client import Client
from support.daemon import Daemon, chain, running, wait_for

pytestmark = [pytest.mark.system, pytest.mark.timing]

REAL = ("generator", "normalizer", "consumer", "trainer", "evaluator", "log_extractor", "service_monitor")

STATUS_STARTS_MAX = 12.0
"""Of Python alone, that `status` may take on a machine that is slow to start anything."""


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running(chain('rate = "20k/s"')) as daemon:
        daemon.wait_progress(1000)
        yield daemon


def test_status_command_is_quick(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    """`streampipectl status`, the whole process from exec to exit, takes less than 100 ms on a pipeline that leaves the
    processor some room: the faster half of 15 runs does, since a neighbour's work only ever adds. Where to start Python
    alone takes more than it should, in turn with it, so may the tool (measured: 7 times as long)."""
    times, bare = [], []
    for _ in range(15):
        began = time.monotonic()
        subprocess.run([sys.executable, "-I", "-S", "-c", ""], check=True)
        bare.append(time.monotonic() - began)
        began = time.monotonic()
        done = daemon.ctl("status")
        times.append(time.monotonic() - began)
        assert done.returncode == 0, done.stderr
    with capsys.disabled():
        print(
            f"\nstreampipectl status: median {statistics.median(times) * 1e3:.0f} ms, "
            f"Python alone {statistics.median(bare) * 1e3:.0f} ms",
            end="",
        )
    assert "normalizer" in done.stdout
    assert statistics.mean(sorted(times)[:8]) < max(0.1, STATUS_STARTS_MAX * statistics.mean(sorted(bare)[:8]))


def test_killed_process_comes_back(daemon: Daemon) -> None:
    """After SIGKILL of each process of the default chain in turn it runs again, the others keep their pids, a service's
    death begins no generation, the trainer's API answers, and SQLite holds every position up to the last once."""
    for name in REAL:
        status = daemon.wait_running()
        before = daemon.pids()
        os.kill(before[name], signal.SIGKILL)
        wait_for(lambda n=name, b=before: daemon.pids().get(n) not in (None, b[n]), f"a new {name}")  # type: ignore[misc]  # mypy cannot infer a lambda with defaults
        service = daemon.process_status(name)["role"] == "service"
        daemon.wait_running(status["generation"] + (not service))
        after = daemon.pids()
        assert {n: p for n, p in after.items() if n != name} == {n: p for n, p in before.items() if n != name}
        assert daemon.status()["generation"] == status["generation"] + (not service)
        daemon.wait_progress(2000)
    api = Client(str(daemon.run / "trainer.sock"))
    assert api.call("info", {})["features"]
    api.close()
    with contextlib.closing(sqlite3.connect(daemon.state / "stages" / "consumer" / "records.sqlite")) as store:

        def committed() -> list[tuple[int, int, int]]:
            return store.execute(
                "SELECT count(*), count(DISTINCT position), max(position) FROM committed_records "
                "HAVING count(*) > 10000"
            ).fetchall()

        [(rows, positions, last)] = wait_for(committed, "an epoch is visible in the store")
    assert rows == positions == last + 1
