"""measure/tally.py, curve.py, recent.py, discounted.py: merged sums, against plain arithmetic over all rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

from streampiped.measure.curve import BINS_MAX, WARM_UP_ROWS, Curve, pieces, places_of
from streampiped.measure.discounted import DISCOUNT, FULL_ROWS, STRETCH, DiscountedMean
from streampiped.measure.recent import RECENT_ROWS, Recent
from streampiped.measure.tally import Tally, from_state, merged, split, state_of, tally_of

FIGURES = {"mse": mean_squared_error, "mae": mean_absolute_error, "r2": r2_score}


@pytest.mark.parametrize("offset", [0.0, 1e9])
@pytest.mark.parametrize("share", [0.0, 0.02, 1.0])
def test_each_part_of_a_split_equals_scikit_learn(offset: float, share: float) -> None:
    """Learned, spared and both together equal scikit-learn's figures to 1e-9 for every predictor, also at y = 1e9."""
    rng = np.random.default_rng(2)
    y = offset + rng.normal(size=3000)
    predicted = y + rng.normal(size=(3, 3000)) * np.array([[0.3], [1.0], [5.0]])
    chosen = rng.random(3000) < share
    parts = [Tally(3), Tally(3)]
    for start in range(0, 3000, 170):
        part = slice(start, start + 170)
        for whole, piece in zip(
            parts, split(y[part], predicted[:, part], np.flatnonzero(chosen[part]), None), strict=True
        ):
            whole.merge(piece)
    for tally, rows in ((parts[0], ~chosen), (parts[1], chosen), (merged(parts, 3), np.full(3000, True))):
        assert tally.rows == np.count_nonzero(rows)
        for place in range(3 if tally.rows else 0):
            got = tally.scores(place).values()
            for name, figure in FIGURES.items():
                assert got[name] == pytest.approx(figure(y[rows], predicted[place, rows]), rel=1e-9), name


def test_a_spared_row_leaves_nothing_behind() -> None:
    """An absurd error on a held-out row is in its tally alone: the sums of the others keep every digit."""
    y, predicted = np.array([1.0, 2.0, 3.0]), np.array([[1.5, 1e30, 3.5]])
    learned, held = split(y, predicted, np.array([1]), None)
    assert learned.scores(0).values()["mse"] == 0.25
    assert held.scores(0).values()["mse"] == pytest.approx(1e60)


def test_intervals_are_counted_where_they_are() -> None:
    """-1 has no interval, 1 is inside, 0 is not, in both parts of a split."""
    inside = np.array([1, 0, -1, 1, 1], dtype=np.int8)
    learned, held = split(np.arange(5.0), np.zeros((1, 5)), np.array([3]), inside)
    assert (learned.intervals, learned.covered, held.intervals, held.covered) == (3, 2, 1, 1)
    assert Tally(1).coverage() is None


def test_a_state_is_the_tallies() -> None:
    """What was saved and restored is the same to the last bit and goes on the same."""
    rng = np.random.default_rng(4)
    tallies = [tally_of(rng.normal(size=9), rng.normal(size=(2, 9))) for _ in range(3)]
    again = from_state(state_of(tallies))
    assert state_of(again)["squared"].tolist() == state_of(tallies)["squared"].tolist()
    assert [t.scores(1) for t in again] == [t.scores(1) for t in tallies]
    assert (again[0].rows, again[0].covered) == (9, 0)
    assert isinstance(again[0].rows, int)


def fill(curve: Curve, y: np.ndarray, predicted: np.ndarray, batch: int) -> None:
    for start in range(0, len(y), batch):
        rows = min(batch, len(y) - start)
        for cut in pieces(curve.edges(start, start + rows), start, rows):
            part = slice(start + cut.start, start + cut.stop)
            curve.add(part.start, tally_of(y[part], predicted[:, part]))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 20_000), st.integers(1, 3000))
def test_the_curve_is_bounded_and_loses_nothing(rows: int, batch: int) -> None:
    """However many rows come and however they are cut: at most 128 bins, each of exactly its rows, whose width is 25
    doubled as often as needed; the last one may be part filled."""
    batch = max(batch, rows // 200)
    y = np.random.default_rng(rows).normal(size=rows)
    curve = Curve(1)
    fill(curve, y, np.zeros((1, rows)), batch)
    width = curve.rows_per_bin
    assert len(curve.bins) <= BINS_MAX
    assert width == 25 or rows > width // 2 * BINS_MAX
    for place, tally in enumerate(curve.bins):
        part = y[place * width : (place + 1) * width]
        assert tally.rows == len(part)
        assert tally.scores(0).mse() == pytest.approx(np.mean(part**2), rel=1e-9)


@pytest.mark.parametrize(("rows", "wanted"), [(50, 50), (100, 100), (442, 100), (1001, 100), (2000, 100), (3000, 150)])
def test_the_warm_up_is_the_first_rows(rows: int, wanted: int) -> None:
    """max(100, 5 %) rows, and what comes after them is the rest."""
    y = np.random.default_rng(1).normal(size=rows)
    curve = Curve(1)
    fill(curve, y, np.zeros((1, rows)), 64)
    before, after = curve.warm_up(rows)
    assert (before.rows, after.rows) == (wanted, rows - wanted)
    if after.rows:
        assert after.scores(0).mse() == pytest.approx(np.mean(y[wanted:] ** 2), rel=1e-9)


@pytest.mark.parametrize("rows", [5_000, 50_000, 200_000])
def test_the_warm_up_of_a_long_stream_is_5_percent_and_less_than_a_bin(rows: int) -> None:
    """Where bins are wide the warm-up ends at the first edge after 5 %."""
    curve = Curve(1)
    y = np.ones(rows)
    fill(curve, y, np.zeros((1, rows)), 1000)
    before, _ = curve.warm_up(rows)
    assert max(WARM_UP_ROWS, rows / 20) <= before.rows < rows / 20 + curve.rows_per_bin


def test_a_large_error_of_the_warm_up_does_not_drown_what_follows() -> None:
    """After-warm-up keeps its digits beside a start that is 1e20 times worse."""
    y = np.zeros(400)
    predicted = np.full((1, 400), 0.5)
    predicted[0, :10] = 1e15
    curve = Curve(1)
    fill(curve, y, predicted, 64)
    assert curve.warm_up(400)[1].scores(0).mse() == 0.25


def test_cuts_of_a_batch_find_the_rows_that_are_scored() -> None:
    """Places among chosen rows are those between the same edges."""
    cuts = pieces([103, 105], 100, 8)
    assert cuts == [slice(0, 3), slice(3, 5), slice(5, 8)]
    assert places_of(cuts, np.array([0, 2, 5, 7])) == [slice(0, 2), slice(2, 2), slice(2, 4)]


@pytest.mark.parametrize("offset", [0.0, 1e9])
@pytest.mark.parametrize("batch", [1, 7, 1000, STRETCH, 5000])
def test_the_discounted_mean_is_that_of_a_loop(offset: float, batch: int) -> None:
    """Row by row and in any cutting: the mean weighted by powers of the discount, of the targets before the row."""
    rows = FULL_ROWS + 2 * STRETCH
    y = offset + np.random.default_rng(8).normal(size=rows)
    guess = DiscountedMean()
    got = np.concatenate([guess.follow(y[start : start + batch]) for start in range(0, rows, batch)])
    total = weight = 0.0
    wanted = [0.0]
    for value in (y - offset).tolist():
        total, weight = DISCOUNT * total + value, DISCOUNT * weight + 1.0
        wanted.append(total / weight)
    assert got[0] == 0.0
    assert got[1:] - offset == pytest.approx(wanted[1:-1], abs=1e-9 if offset == 0 else 1e-5)


@pytest.mark.parametrize("batch", [1, 300, 9000])
def test_recent_scores_are_weighted_means(batch: int) -> None:
    """MSE, MAE and R2 with weights 0.999 to the power of the row's age, in any cutting, and through a restore."""
    rng = np.random.default_rng(9)
    y = 1e6 + rng.normal(size=9000)
    predicted = y + rng.normal(size=9000) / 2
    recent = Recent()
    for start in range(0, 9000, batch):
        recent.add(y[start : start + batch], predicted[start : start + batch])
        twin = Recent()
        twin.restore(recent.state())
        recent = twin
    weights = (1 - 1 / RECENT_ROWS) ** np.arange(9000)[::-1]
    got = recent.values()
    for name, figure in FIGURES.items():
        assert got[name] == pytest.approx(figure(y, predicted, sample_weight=weights), rel=1e-7), name
    assert got["rows"] == round(weights.sum())
    assert Recent().values()["mse"] is None


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid")
def test_an_absurd_row_is_not_remembered_for_ever() -> None:
    """After a target that overflows, what forgets goes on with the rows after it."""
    guess, recent = DiscountedMean(), Recent()
    for targets in (np.array([1e308, -1e308, 1e308]), np.array([2.0, 2.0, 2.0])):
        guessed = guess.follow(targets)
        recent.add(targets, np.zeros(3))
    assert guessed.tolist() == [0.0, 2.0, 2.0]
    assert recent.values()["mse"] == pytest.approx(4.0)
