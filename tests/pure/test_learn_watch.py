"""Champion, drift and intervals: what watches over the members."""

from __future__ import annotations

import numpy as np
import pytest

from streampiped.learn.champion import LEADER_ROWS, Contest
from streampiped.learn.drift import PageHinkley
from streampiped.learn.intervals import COVERAGE, Intervals

STATIONARY_ROWS = 100_000
FOUND_WITHIN = 100


def fed(contest: Contest, losses: np.ndarray, block: int = 50) -> Contest:
    for start in range(0, len(losses), block):
        contest.score(losses[start : start + block])
    return contest


def test_the_better_one_becomes_champion() -> None:
    """A member whose loss is lower in the mean, though not on every row, is served before long."""
    rng = np.random.default_rng(1)
    losses = rng.normal(size=(2000, 2)) ** 2 * np.array([1.0, 0.8])
    contest = Contest((True, False))
    contest.seat(0)
    assert fed(contest, losses).champion == 1


def test_equal_members_do_not_take_turns() -> None:
    """Between members of the same quality the champion changes in few of a thousand blocks."""
    rng = np.random.default_rng(2)
    contest, changes = Contest((True, False, False)), 0
    for _ in range(1000):
        before = contest.champion
        contest.score(rng.normal(size=(20, 3)) ** 2)
        changes += contest.champion != before
    assert changes < 50


def test_guessing_is_served_when_nothing_beats_it() -> None:
    """A model that is worse than a trivial member loses its place, also where two sigma are out of reach."""
    rng = np.random.default_rng(3)
    noise = rng.normal(size=(400, 1)) ** 2
    losses = np.column_stack((noise, noise + 0.05 + rng.normal(size=(400, 1)) * 0.5))
    contest = Contest((True, False))
    contest.seat(1)
    assert fed(contest, losses).champion == 0


def test_few_rows_are_led_by_whoever_leads() -> None:
    """Before two sigma can be reached the least loss so far is served."""
    contest = Contest((True, False))
    contest.score(np.array([[1.0, 0.9]] * (LEADER_ROWS - 1)))
    assert contest.champion == 1


def test_a_pinned_champion_stays() -> None:
    """Whatever its losses are, until it is let go."""
    contest = Contest((True, False))
    contest.seat(1)
    contest.pinned = True
    losses = np.array([[0.0, 9.0]]) + np.random.default_rng(4).random((500, 2))
    assert fed(contest, losses).champion == 1
    contest.pinned = False
    assert fed(contest, losses).champion == 0


def watched(residuals: np.ndarray, block: int) -> list[int]:
    """Rows at which there was an alarm; as the pool does, what comes behind one is looked at anew."""
    drift, alarms, row = PageHinkley(), [], 0
    while row < len(residuals):
        part = residuals[row : row + block]
        place = drift.find(part)
        part = part if place is None else part[: place + 1]
        drift.learn(part)
        row += len(part)
        if place is not None:
            alarms.append(row - 1)
            drift.restart()
    return alarms


@pytest.mark.parametrize("block", [1, 64, 1024])
@pytest.mark.parametrize("tails", ["normal", "laplace", "student"])
def test_no_alarm_on_a_stationary_stream(tails: str, block: int) -> None:
    """100,000 rows of residuals of one distribution, heavy tails among them, give no alarm."""
    rng = np.random.default_rng(5)
    rows = STATIONARY_ROWS if block > 1 else STATIONARY_ROWS // 5
    draw = {"normal": rng.normal, "laplace": rng.laplace, "student": lambda size: rng.standard_t(4, size)}[tails]
    assert watched(np.asarray(draw(size=rows)), block) == []


@pytest.mark.parametrize("block", [1, 64, 1024])
@pytest.mark.parametrize("growth", [2.0, 4.0])
def test_an_abrupt_drift_is_found(growth: float, block: int) -> None:
    """Residuals that are twice as large, or more, are found within 100 rows, once."""
    rng = np.random.default_rng(6)
    residuals = rng.normal(size=4000)
    residuals[3000:] *= growth
    (alarm,) = watched(residuals, block)
    assert 3000 <= alarm < 3000 + FOUND_WITHIN


def test_single_spikes_are_no_drift() -> None:
    """Residuals of 1e6, one in 200 rows, give no alarm."""
    residuals = np.random.default_rng(7).normal(size=20_000)
    residuals[::200] = 1e6
    assert watched(residuals, 256) == []


def test_the_cut_into_blocks_does_not_matter() -> None:
    """The alarm comes at the same row, whatever blocks the residuals come in, as long as the mean is known alike."""
    rng = np.random.default_rng(8)
    residuals = np.concatenate((rng.normal(size=2000), rng.normal(size=200) * 5))
    assert max(np.ptp([watched(residuals, block)[0] for block in (1, 10, 100, 500)]), 0) <= 5


def test_intervals_cover_what_they_should() -> None:
    """90 % of the rows are covered, over all and in the 500 rows after the error has grown fourfold and come back."""
    rng = np.random.default_rng(9)
    residuals = rng.normal(size=10_000)
    residuals[5000:5200] *= 4
    intervals = Intervals()
    widths = np.concatenate(
        [intervals.follow(part, np.ones(len(part), dtype=bool)) for part in np.array_split(residuals, 77)]
    )
    covered = np.abs(residuals) <= widths
    assert covered.mean() == pytest.approx(COVERAGE, abs=0.005)
    assert 0.88 <= covered[5000:5500].mean() <= 0.92


def test_an_interval_of_an_exact_model_opens_again() -> None:
    """A width that has come to nothing is not stuck there."""
    intervals = Intervals()
    every = np.ones(400, dtype=bool)
    intervals.follow(np.zeros(400), every)
    intervals.follow(np.full(400, 5.0), every)
    assert intervals.width >= 5.0
