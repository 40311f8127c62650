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


@pytest.mark.parametrize("growth", [50.0, 1.0, 0.02])
def test_intervals_follow_an_error_that_grows(growth: float) -> None:
    """A short stream whose error becomes fifty times as large, or as small, by and by: nine of ten rows are covered all
    the same, and not less by the misses that a width of one step a miss takes to grow."""
    rng = np.random.default_rng(3)
    every = np.ones(500, dtype=bool)
    found = []
    for _ in range(20):
        residuals = rng.normal(size=500) * np.geomspace(1.0, growth, 500)
        found.append(float(np.mean(np.abs(residuals) <= Intervals().follow(residuals, every))))
    assert np.mean(found) == pytest.approx(COVERAGE, abs=0.015)


def test_an_interval_goes_on_bit_for_bit() -> None:
    """Cut anywhere, saved and restored there, the widths are the same."""
    residuals = np.random.default_rng(5).normal(size=200)
    known = np.arange(200) % 7 > 0
    whole = Intervals().follow(residuals, known)
    for cut in (0, 3, 9, 11, 40, 60, 199):
        first, second = Intervals(), Intervals()
        begin = first.follow(residuals[:cut], known[:cut])
        second.restore(first.state())
        end = second.follow(residuals[cut:], known[cut:])
        assert np.array_equal(np.concatenate((begin, end)), whole, equal_nan=True)


@pytest.mark.parametrize("unknown", [0, 1, 30])
def test_before_the_first_residual_no_width_is_known(unknown: int) -> None:
    """Up to the row of the first residual there is no interval; behind it there is one, as wide as if no row had come
    before that one, and where all residuals are 0 one of no width."""
    residuals = np.random.default_rng(5).normal(size=200)
    known = np.arange(200) >= unknown
    intervals = Intervals()
    assert np.isnan(intervals.width)
    widths = intervals.follow(residuals, known)
    assert np.flatnonzero(np.isnan(widths)).tolist() == [*range(unknown + 1)]
    assert widths[unknown + 1] == abs(residuals[unknown])
    plain = Intervals().follow(residuals[unknown:], known[unknown:])
    assert np.array_equal(widths[unknown:], plain, equal_nan=True)
    assert Intervals().follow(np.zeros(3), np.ones(3, dtype=bool))[1:].tolist() == [0.0, 0.0]
    unmoved = Intervals()
    unmoved.follow(residuals, np.zeros(200, dtype=bool))
    assert unmoved.state() == Intervals().state()


def test_an_interval_of_an_older_version_is_gone_on_with() -> None:
    """Its width is the one that was saved, and it goes on covering what it should."""
    intervals = Intervals()
    intervals.restore({"width": 1.7, "first": [1.0] * 10})
    assert intervals.width == 1.7
    residuals = np.random.default_rng(6).normal(size=5000)
    widths = intervals.follow(residuals, np.ones(5000, dtype=bool))
    assert np.mean(np.abs(residuals) <= widths) == pytest.approx(COVERAGE, abs=0.01)


def test_an_interval_is_not_lost_where_most_labels_are_exact() -> None:
    """While nineteen of twenty residuals are 0 every width covers enough, and it becomes less and less; once they are
    not it is back within a hundred rows."""
    rng = np.random.default_rng(7)
    residuals = np.concatenate((rng.normal(size=20_000) * (rng.uniform(size=20_000) < 0.05), rng.normal(size=1000)))
    covered = np.abs(residuals) <= Intervals().follow(residuals, np.ones(len(residuals), dtype=bool))
    assert covered[20_100:].mean() == pytest.approx(COVERAGE, abs=0.02)


def test_an_interval_of_an_exact_model_opens_again() -> None:
    """A width that has come to nothing is not stuck there: a hundred rows later nine of ten are covered again."""
    intervals = Intervals()
    every = np.ones(400, dtype=bool)
    intervals.follow(np.zeros(400), every)
    assert intervals.width == 0.0
    widths = intervals.follow(np.full(400, 5.0), every)
    assert np.mean(widths[100:] >= 5.0) == pytest.approx(COVERAGE, abs=0.03)
