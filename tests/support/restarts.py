"""Planned restarts of one stage, and how long the operator waits for each."""

from __future__ import annotations

import statistics
import time

import pytest

from support.daemon import Daemon


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
