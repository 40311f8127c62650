"""A planned restart on a machine that has nothing else to do: what an operator waits for, and what stays behind."""

from __future__ import annotations

import os
import time

import pytest

from support.daemon import chain, descriptors, rss_mib, running, simple, thread_count
from support.restarts import restarts

pytestmark = [pytest.mark.system, pytest.mark.timing]

RESTARTS = int(os.environ.get("STREAMPIPE_RESTARTS", "20"))
"""Of the leak test; 1000 is the figure in docs/operations."""


def test_restart_under_load(capsys: pytest.CaptureFixture[str]) -> None:
    """At 100,000 records/s, the default stream's rate, the stream stands still for at most 150 ms in the median when
    the normalizer is restarted, the operator waits for less than twice that, and every other pid stays."""
    with running(chain('rate = "100k/s"')) as daemon:
        times = restarts(daemon, capsys, "at 100,000 records/s")
        assert times.pause <= 0.15
        assert times.answer <= 0.3


@pytest.mark.slow
def test_many_restarts_leak_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """After many stage restarts the supervisor has as many descriptors and threads as before."""
    with running(simple()) as daemon:
        for name in ("count", "middle", "total"):  # what is opened once is opened now
            daemon.call("restart", stages=[name], timeout=30.0)
        before = (descriptors(daemon.process.pid), thread_count(daemon.process.pid))
        launcher = descriptors(daemon.launcher_pid())
        size_before = rss_mib(daemon.process.pid)
        began = time.monotonic()
        for number in range(RESTARTS):
            daemon.call("restart", stages=[("count", "middle", "total")[number % 3]], timeout=30.0)
        took = time.monotonic() - began
        after = (descriptors(daemon.process.pid), thread_count(daemon.process.pid))
        size = rss_mib(daemon.process.pid)
        assert after == before
        assert descriptors(daemon.launcher_pid()) == launcher
        assert size - size_before <= 2.0
        with capsys.disabled():
            print(
                f"\n{RESTARTS} restarts: {took / RESTARTS * 1e3:.0f} ms each, "
                f"descriptors and threads {after}, {size:.1f} MiB",
                end="",
            )
