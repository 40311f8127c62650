"""Slow epochs: told by those before them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streampiped.core.epoch_commands import EpochTimes
from streampiped.core.pace import EPOCHS, EPOCHS_LEAST, FACTOR, LEAST_S, USUAL_AGAIN, Pace, Slow, Usual


def took(total: float, **parts: float) -> EpochTimes:
    zero = dict.fromkeys(("align", "snapshot", "fsync", "manifest", "sink_commit"), 0.0)
    return EpochTimes(**{**zero, **parts}, total=total)


def test_one_slow_epoch() -> None:
    """Among usual ones a slow epoch is told, with what is usual and what took longest; the next is usual again."""
    pace = Pace()
    assert [pace.judge(took(0.1)) for _ in range(EPOCHS_LEAST)] == [None] * EPOCHS_LEAST
    assert pace.judge(took(2.0, align=0.1, fsync=1.8)) == Slow(0.1, "fsync")
    assert pace.judge(took(0.1)) is None


def test_a_spell_is_told_once_and_its_end() -> None:
    """Of a hundred slow epochs in a row of a stream that settles one is told, one that takes twice as long again, and
    the end once, with the number and the slowest of the others; the next spell is told anew."""
    pace = Pace()
    for _ in range(EPOCHS):
        pace.judge(took(0.1))
    told = [pace.judge(took(seconds, align=1.0)) for seconds in (2.0, *[1.5] * 10, 4.0, *[3.0] * 8)]
    assert [(n, type(each)) for n, each in enumerate(told) if each] == [(0, Slow), (11, Slow)]
    ended = [pace.judge(took(0.1)) for _ in range(2 * USUAL_AGAIN)]
    assert [each for each in ended if each] == [ended[USUAL_AGAIN - 1]] == [Usual(18, 3.0)]
    assert isinstance(pace.judge(took(2.0)), Slow)


def test_a_single_usual_epoch_ends_no_spell() -> None:
    """Slow and usual ones by turns are one spell, and a single slow one has no end that is worth a word."""
    pace = Pace()
    for _ in range(EPOCHS):
        pace.judge(took(0.1))
    told = [pace.judge(took(seconds)) for seconds in (2.0, 0.1) * 10]
    assert sum(each is not None for each in told) == 1
    lone = Pace()
    for _ in range(EPOCHS):
        lone.judge(took(0.1))
    assert isinstance(lone.judge(took(2.0)), Slow)
    assert not any(lone.judge(took(0.1)) for _ in range(EPOCHS))


def test_nothing_is_slow_before_something_is_usual() -> None:
    """The first epochs, of a cold start, are no measure and are not measured."""
    pace = Pace()
    assert [pace.judge(took(10.0**-n)) for n in range(EPOCHS_LEAST)] == [None] * EPOCHS_LEAST


def test_what_stays_slow_becomes_usual() -> None:
    """A disk that stays slow is told about for half the epochs that make the median, and not for ever."""
    pace = Pace()
    for _ in range(EPOCHS):
        pace.judge(took(0.1))
    told = [pace.judge(took(2.0)) for _ in range(3 * EPOCHS)]
    slow = EPOCHS // 2
    assert told[0] == Slow(0.1, "align")
    (end,) = [each for each in told[1:] if each]
    assert isinstance(end, Usual)
    assert end.untold <= slow
    assert told.index(end) <= slow + USUAL_AGAIN


@given(st.lists(st.floats(0, 100), max_size=200))
def test_slow_is_slow(durations: list[float]) -> None:
    """What is told took longer than anybody notices, and than FACTOR times half of those before it."""
    pace = Pace()
    for number, seconds in enumerate(durations):
        before = durations[max(0, number - EPOCHS) : number]
        if isinstance(pace.judge(took(seconds)), Slow):
            assert seconds >= LEAST_S
            assert 2 * sum(each * FACTOR <= seconds for each in before) >= len(before) >= EPOCHS_LEAST
