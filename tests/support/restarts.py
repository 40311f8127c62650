"""Planned restarts of one stage: how long the operator waits for each, and for how long the stream stands still."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import pytest

from support.daemon import Daemon


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds in the median. `answer`: from the request to the answer; `pause`: from the moment at which the source is
    asked to hold to the first batch of the new generation that the last stage has processed."""

    answer: float
    pause: float


def restarts(daemon: Daemon, capsys: pytest.CaptureFixture[str], when: str) -> Times:
    """Seven restarts of one stage, by which every other pid stays."""
    answers, pauses = [], []
    for _ in range(7):
        daemon.wait_progress(10_000)
        before, seen = daemon.pids(), len(daemon.events("first_batch_seen"))
        began = time.monotonic()
        answer = daemon.call("restart", stages=["normalizer"], timeout=30.0)
        answers.append(time.monotonic() - began)
        assert answer["done"]
        after = daemon.pids()
        assert after["normalizer"] != before["normalizer"]
        assert {n: pid for n, pid in after.items() if n != "normalizer"} == {
            n: pid for n, pid in before.items() if n != "normalizer"
        }
        first = daemon.wait_event("first_batch_seen", seen + 1)
        assert first["since"] == "restart of normalizer"
        pauses.append(first["ts"] - held_at(daemon))
    with capsys.disabled():
        for what, times in (("answered after", answers), ("the stream stood still for", pauses)):
            median, worst = statistics.median(times) * 1e3, max(times) * 1e3
            print(f"\nrestart normalizer {when}, {what}: median {median:.0f} ms, worst {worst:.0f} ms", end="")
    return Times(statistics.median(answers), statistics.median(pauses))


def held_at(daemon: Daemon) -> float:
    """When the source was last asked to hold behind an epoch, on the clock of the log."""
    story = daemon.call("why", stage="normalizer")["story"]
    return max(float(line["ts"]) for line in story if "is to hold behind epoch" in line["what"])
