"""measure/metrics.py and measure/window.py: scores against scikit-learn and against exact arithmetic."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

from streampiped.measure.metrics import Guesses, Scores, scores_of, skill
from streampiped.measure.window import Window

numbers = st.floats(-1e6, 1e6, allow_nan=False)
pairs = st.lists(st.tuples(numbers, numbers), min_size=2, max_size=80)


def fed(targets: np.ndarray, predictions: np.ndarray, batch: int) -> Scores:
    result = Scores()
    for start in range(0, len(targets), batch):
        result.add(targets[start : start + batch], predictions[start : start + batch])
    return result


@pytest.mark.parametrize("offset", [0.0, 1.0, 1e9, -1e9])
@pytest.mark.parametrize("batch", [1, 16, 4096])
def test_scores_equal_scikit_learn(offset: float, batch: int) -> None:
    """MSE, RMSE, MAE and R2 equal scikit-learn's to 1e-9, in any cutting and also at y = 1e9."""
    rng = np.random.default_rng(5)
    targets = offset + rng.normal(size=4000)
    predictions = targets + rng.normal(size=4000) / 2
    got = fed(targets, predictions, batch).values()
    assert got["rows"] == 4000
    assert got["mse"] == pytest.approx(mean_squared_error(targets, predictions), rel=1e-9)
    assert got["rmse"] == pytest.approx(mean_squared_error(targets, predictions) ** 0.5, rel=1e-9)
    assert got["mae"] == pytest.approx(mean_absolute_error(targets, predictions), rel=1e-9)
    assert got["r2"] == pytest.approx(r2_score(targets, predictions), rel=1e-9)


@pytest.mark.parametrize("batch", [1, 64])
def test_r2_is_exact_at_1e9(batch: int) -> None:
    """At y = 1e9 R2 equals exact rational arithmetic to 1e-9, in any cutting."""
    rng = np.random.default_rng(6)
    targets = 1e9 + rng.normal(size=600)
    predictions = targets + rng.normal(size=600) / 2
    exact, guessed = ([Fraction(v) for v in values.tolist()] for values in (targets, predictions))
    mean = sum(exact) / 600
    squared = sum((a - b) ** 2 for a, b in zip(exact, guessed, strict=True))
    wanted = 1 - squared / sum((a - mean) ** 2 for a in exact)
    assert fed(targets, predictions, batch).r2() == pytest.approx(float(wanted), rel=1e-9)


@settings(max_examples=80, deadline=None)
@given(pairs, st.integers(1, 20))
def test_merged_parts_are_the_whole(rows: list[tuple[float, float]], batch: int) -> None:
    """Scores merged from parts are those of all rows at once."""
    targets, predictions = np.array(rows).T.copy()
    parts, whole = fed(targets, predictions, batch).values(), scores_of(targets, predictions).values()
    for name in ("rows", "mse", "mae"):
        assert parts[name] == pytest.approx(whole[name], rel=1e-9)
    if targets.std() > 1e-3:
        assert 1 - parts["r2"] == pytest.approx(1 - whole["r2"], rel=1e-6)


@pytest.mark.parametrize("predictions", [[5.0, 5.0], [5.0, 6.0]])
def test_a_constant_target_has_no_r2(predictions: list[float]) -> None:
    """Over a constant target nothing can be explained, however right the predictions are."""
    assert scores_of(np.array([5.0, 5.0]), np.array(predictions)).r2() is None


def test_what_cannot_be_said_is_none() -> None:
    """No rows, one row and overflow give None, never NaN or an exception."""
    assert Scores().values() == {"rows": 0, "mse": None, "rmse": None, "mae": None, "r2": None}
    assert scores_of(np.array([1.0]), np.array([2.0])).r2() is None
    assert scores_of(np.array([1.0, 2.0]), np.array([1e200, 2.0])).mse() is None
    assert skill(Scores(), Scores()) is None


@settings(max_examples=60, deadline=None)
@given(st.lists(numbers, min_size=1, max_size=60), st.integers(1, 20))
def test_the_guesses_know_only_what_came_before(targets: list[float], batch: int) -> None:
    """Running mean and last value are, row by row and in any cutting, those of the targets before the row."""
    guesses = Guesses()
    got: list[tuple[float, float]] = []
    for start in range(0, len(targets), batch):
        by_mean, by_last = guesses.follow(np.array(targets[start : start + batch]))
        got += zip(by_mean.tolist(), by_last.tolist(), strict=True)
    for place, (by_mean_one, by_last_one) in enumerate(got):
        before = targets[:place]
        assert by_last_one == (before[-1] if before else 0.0)
        assert by_mean_one == pytest.approx(np.mean(before) if before else 0.0, rel=1e-9, abs=1e-6)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(0, 17), max_size=12))
def test_the_window_holds_the_newest_rows_in_order(sizes: list[int]) -> None:
    """However the rows come, and through a restore after each batch, the window is the last seven of them."""
    window, everything = Window(7, 1), np.zeros((0, 1))
    for size in sizes:
        rows = np.arange(len(everything), len(everything) + size, dtype=float)[:, None]
        everything = np.concatenate((everything, rows))
        window.append(rows)
        assert np.array_equal(window.rows(), everything[-7:])
        twin = Window(7, 1)
        twin.restore(window.rows())
        window = twin
