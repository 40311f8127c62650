"""measure/skill.py and measure/calibration.py: how sure a skill is, and whether predictions mean what they say."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from streampiped.measure.calibration import BINS, bins_of
from streampiped.measure.skill import FREEDOM, ROWS_MIN, T_95, compare, student

TRIALS = 400


@pytest.mark.parametrize("t", [-8.0, -1.0, 0.0, 0.3, 2.0, T_95, 5.0, 40.0])
def test_student_is_scipys(t: float) -> None:
    """The tail of Student's distribution equals scipy's, and 95 % is where the constant says."""
    assert student(t) == pytest.approx(stats.t.sf(t, FREEDOM), rel=1e-6, abs=1e-14)
    assert pytest.approx(stats.t.ppf(0.975, FREEDOM), rel=1e-12) == T_95


def noise(rng: np.random.Generator, rows: int, memory: float) -> np.ndarray:
    """An autoregression with standard deviation 1."""
    values = rng.normal(size=rows) * np.sqrt(1 - memory**2)
    for place in range(1, rows):
        values[place] += memory * values[place - 1]
    return values


@pytest.mark.parametrize("memory", [0.0, 0.8])
def test_the_interval_holds_the_true_skill_and_the_test_its_level(memory: float) -> None:
    """With errors that remember, 95 % intervals hold what is true in 90 to 98 % of 400 streams, and a model that is no
    better is called so in 2 to 8 % at p < 0.05; an interval that takes rows for independent would hold 50 %."""
    rng = np.random.default_rng(11)
    hits = alarms = 0
    for _ in range(TRIALS):
        scale = np.exp(0.5 * noise(rng, 1000, memory))
        other = np.exp(0.5 * noise(rng, 1000, memory))
        twice = compare(scale, 2 * other)
        hits += twice["low"] <= 0.5 <= twice["high"]
        alarms += compare(scale, other)["p"] < 0.05
    assert 0.90 <= hits / TRIALS <= 0.98
    assert 0.02 <= alarms / TRIALS <= 0.08


def test_what_is_better_is_called_so() -> None:
    """A clear advantage has a small p and an interval above 0, its mirror image a large p and one below."""
    rng = np.random.default_rng(12)
    small, large = rng.random(500), 2 * rng.random(500)
    good, bad = compare(small, large), compare(large, small)
    assert good["p"] < 1e-6 < 0 + good["low"] <= good["last"] <= good["high"]
    assert bad["p"] > 0.999
    assert bad["high"] < 0


def test_what_cannot_be_said_of_skill_is_none() -> None:
    """No rows, nothing to avoid, few rows and overflow give None, never NaN or an exception."""
    nothing = {"last": None, "low": None, "high": None, "p": None}
    assert compare(np.zeros(0), np.zeros(0)) == nothing
    assert compare(np.ones(90), np.zeros(90)) == nothing
    assert compare(np.ones(90), np.full(90, np.nan)) == nothing
    assert compare(np.ones(ROWS_MIN - 1), np.full(ROWS_MIN - 1, 2.0)) == nothing | {"last": 0.5}
    assert compare(np.ones(50), np.full(50, np.inf)) == nothing
    assert compare(np.ones(50), np.ones(50))["p"] == 1.0


def test_calibration_bins_hold_every_row_once() -> None:
    """About 20 bins of equally many predictions; their means weighted by their rows are those of all."""
    rng = np.random.default_rng(3)
    predicted = rng.normal(size=5000)
    actual = predicted + rng.normal(size=5000)
    bins = bins_of(predicted, actual)
    assert len(bins) == BINS
    assert [part["rows"] for part in bins] == [250] * BINS
    assert all(part["low"] <= part["predicted"] <= part["high"] for part in bins)
    assert [part["high"] for part in bins[:-1]] == [part["low"] for part in bins[1:]]
    for name, values in (("predicted", predicted), ("actual", actual)):
        assert sum(part[name] * part["rows"] for part in bins) / 5000 == pytest.approx(values.mean())


def test_equal_predictions_share_a_bin() -> None:
    """One value gives one bin, and none none."""
    assert bins_of(np.full(7, 2.0), np.arange(7.0)) == [
        {"low": 2.0, "high": 2.0, "rows": 7, "predicted": 2.0, "actual": 3.0}
    ]
    assert bins_of(np.zeros(0), np.zeros(0)) == []
