"""A planned restart: what an operator waits for, at the default rate and as fast as the machine goes."""

from __future__ import annotations

import statistics
import time

import pytest

from support.daemon import Daemon, chain, running

pytestmark = [pytest.mark.system, pytest.mark.timing]


def restarts(daemon: Daemon, capsys: pytest.CaptureFixture[str], when: str) -> list[float]:
    """Seven restarts of one stage; seconds each, for the operator who asked."""
    times = []
    for _ in range(7):
        daemon.wait_progress(10_000)
        before = daemon.pids()
        began = time.monotonic()
        answer = daemon.call("restart", stages=["normalizer"], timeout=30.0)
        times.append(time.monotonic() - began)
        assert answer["done"]
        after = daemon.pids()
        assert after["normalizer"] != before["normalizer"]
        assert {n: p for n, p in after.items() if n != "normalizer"} == {
            n: p for n, p in before.items() if n != "normalizer"
        }
    with capsys.disabled():
        print(
            f"\nrestart normalizer {when}: median {statistics.median(times) * 1e3:.0f} ms, "
            f"worst {max(times) * 1e3:.0f} ms",
            end="",
        )
    return times


def test_restart_under_load(capsys: pytest.CaptureFixture[str]) -> None:
    """At 100,000 records/s, the default stream's rate, `restart normalizer` takes less than 150 ms, and every other pid
    stays."""
    with running(chain('rate = "100k/s"')) as daemon:
        assert statistics.median(restarts(daemon, capsys, "at 100,000 records/s")) < 0.15


def test_restart_at_full_speed(capsys: pytest.CaptureFixture[str]) -> None:
    """At whatever speed the machine has, the restart waits for what the disk has to write of the last second, and no
    longer."""
    with running(chain()) as daemon:
        assert statistics.median(restarts(daemon, capsys, "at full speed")) < 1.0
