"""turns.py: when a stage with `max_rate` goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from streampiped import turns
from streampiped.turns import LATE_S, TICK_S, Turns

LATENESS_S = 0.0009
"""By which the loop comes later than it was told to."""


class Clock:
    """Time that goes on only while a turn is waited for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(turns.time, "monotonic", lambda: self.now)

    def call_later(self, delay: float, run: Callable[[], Any]) -> Clock:
        self.now += delay + LATENESS_S
        return self

    def cancel(self) -> None:
        pass


def let_in(clock: Clock, planned: Turns, rows: int, seconds: float) -> int:
    """Records that are let in during so many seconds, in batches of `rows` that are always there."""
    until, count = clock.now + seconds, 0
    while clock.now < until:
        if not planned.throttled():
            planned.throttle(rows)
            count += rows
    return count


@pytest.mark.parametrize(("rate", "rows"), [(1000.0, 1), (5000.0, 1), (50_000.0, 64), (10.0, 1), (200_000.0, 1024)])
def test_max_rate_is_reached_though_every_turn_comes_late(
    rate: float, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop counts in milliseconds and comes late: what that has cost is made up by the next batches."""
    clock = Clock(monkeypatch)
    found = let_in(clock, Turns(clock, lambda: None, rate), rows, 10.0)  # type: ignore[arg-type]
    assert found == pytest.approx(10.0 * rate, rel=0.01, abs=2 * rows)


def test_what_was_not_used_is_not_saved_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind an hour of nothing there comes no flood: LATE_S of the rate at once, and no more."""
    clock = Clock(monkeypatch)
    planned = Turns(clock, lambda: None, 5000.0)  # type: ignore[arg-type]
    planned.throttle(1)
    clock.now += 3600.0
    at_once = 0
    while not planned.throttled():
        planned.throttle(1)
        at_once += 1
    assert at_once <= 5000.0 * (LATE_S + TICK_S) + 1
