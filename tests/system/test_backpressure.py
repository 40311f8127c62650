"""A slow stage: memory stays flat, everything answers, nobody is taken for hung."""

from __future__ import annotations

import os
import time

import pytest

from support.daemon import DEADLINE_S, Daemon, rss_mib, running, simple, wait_for

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timing]

SECONDS = float(os.environ.get("STREAMPIPE_BACKPRESSURE_SECONDS", "4"))
"""How long the memory is watched; 60 is the figure in docs/operations."""
GROWTH_MIB = 2.0  # of any process once its pipes are full; allocators and log buffers breathe a little

SLOW = 'max_rate = "10/s"'
BATCH_ROWS = 1024
BATCH_S = BATCH_ROWS / 10  # of the slow stage: whoever waited for it would take longer than DEADLINE_S
assert BATCH_S > 1.5 * DEADLINE_S


def sizes(daemon: Daemon) -> dict[str, float]:
    return {name: rss_mib(pid) for name, pid in {**daemon.pids(), "supervisor": daemon.process.pid}.items()}


def test_slow_reader_bounds_memory_and_time() -> None:
    """A stage limited to 10 records/s before a source of millions: memory of every process stays flat, `status`,
    `restart` and `stop` answer, a barrier that is merely slow kills nobody, and nothing is taken for hung although the
    source waits far beyond the hang timeout."""
    head = '\n[supervision]\ndrain_timeout = "1s"\n'
    hang = '\nhang_timeout = "2s"'
    stages = {"count": f"batch_max = {BATCH_ROWS}" + hang, "middle": SLOW + hang, "total": hang}
    with running(simple(head=head, **stages, rate="0/s")) as daemon:
        wait_for(lambda: daemon.process_status("count")["phase"] == "credits", "the source is held back")
        before = sizes(daemon)
        until = time.monotonic() + SECONDS
        wait_for(
            lambda: daemon.status() and time.monotonic() >= until, "the time is over", SECONDS + DEADLINE_S, step=0.5
        )
        after = sizes(daemon)
        assert {n: after[n] - before[n] for n in before if after[n] - before[n] > GROWTH_MIB} == {}
        assert not daemon.events("stage_hung")
        assert not daemon.events("stage_died")
        assert daemon.status()["generation"] == 1
        began = time.monotonic()
        assert daemon.ctl("status").returncode == 0
        patient = daemon.ctl("restart", "count", "--timeout", "500ms")
        assert patient.returncode == 8
        assert "aligning" in patient.stderr
        assert daemon.status()["generation"] == 1
        assert daemon.ctl("restart", "middle", "--force").returncode == 0
        assert not daemon.events("stage_died")
        assert time.monotonic() - began < DEADLINE_S
        assert daemon.stop(DEADLINE_S) == 0
