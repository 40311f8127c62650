"""Slow epochs: told by those before them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streampiped.core.epoch_commands import EpochTimes
from streampiped.core.pace import EPOCHS, EPOCHS_LEAST, FACTOR, LEAST_S, Pace, Slow


def took(total: float, **parts: float) -> EpochTimes:
    zero = dict.fromkeys(("align", "snapshot", "fsync", "manifest", "sink_commit"), 0.0)
    return EpochTimes(**{**zero, **parts}, total=total)


def test_one_slow_epoch() -> None:
    """Among usual ones a slow epoch is told, with what is usual and what took longest; the next is usual again."""
    pace = Pace()
    assert [pace.judge(took(0.1)) for _ in range(EPOCHS_LEAST)] == [None] * EPOCHS_LEAST
    assert pace.judge(took(2.0, align=0.1, fsync=1.8)) == Slow(0.1, "fsync")
    assert pace.judge(took(0.1)) is None


def test_nothing_is_slow_before_something_is_usual() -> None:
    """The first epochs, of a cold start, are no measure and are not measured."""
    pace = Pace()
    assert [pace.judge(took(10.0**-n)) for n in range(EPOCHS_LEAST)] == [None] * EPOCHS_LEAST


def test_what_stays_slow_becomes_usual() -> None:
    """A disk that stays slow is told about for half the epochs that make the median, and not for ever."""
    pace = Pace()
    for _ in range(EPOCHS):
        pace.judge(took(0.1))
    told = [pace.judge(took(2.0)) is not None for _ in range(3 * EPOCHS)]
    assert told.index(False) <= EPOCHS // 2 + 1
    assert not any(told[told.index(False) :])


@given(st.lists(st.floats(0, 100), max_size=200))
def test_slow_is_slow(durations: list[float]) -> None:
    """What is told took longer than anybody notices, and than FACTOR times half of those before it."""
    pace = Pace()
    for number, seconds in enumerate(durations):
        before = durations[max(0, number - EPOCHS) : number]
        if pace.judge(took(seconds)) is not None:
            assert seconds >= LEAST_S
            assert 2 * sum(each * FACTOR <= seconds for each in before) >= len(before) >= EPOCHS_LEAST
