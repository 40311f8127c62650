"""The arithmetic of the benchmark of learning."""

from __future__ import annotations

import doctest
import importlib

import numpy as np
import pytest

from bench.score import covered, figures, guesses, mse_r2
from bench.targets import at_least, at_most
from streampiped.measure.metrics import Guesses, scores_of


def labels(rows: int = 500) -> np.ndarray:
    return 50 + np.cumsum(np.random.default_rng(3).standard_normal(rows))


@pytest.mark.parametrize("module", ["page", "inline"])
def test_the_examples_are_right(module: str) -> None:
    """Every example in the docstrings of these modules gives what it says."""
    found = doctest.testmod(importlib.import_module(f"bench.{module}"))
    assert found.attempted
    assert not found.failed


def test_guesses_are_those_of_the_evaluator() -> None:
    """Running mean and last value, scored apart, have the squared errors of the evaluator's."""
    wanted = labels()
    by_mean, by_last = Guesses().follow(wanted)
    found = guesses(wanted)
    for name, values in {"running mean": by_mean, "last value": by_last}.items():
        scores = scores_of(wanted, values)
        assert found[name].mse == pytest.approx(scores.mse(), rel=1e-9)
        assert found[name].r2 == pytest.approx(scores.r2(), rel=1e-9)


def test_the_discounted_mean_follows_a_level() -> None:
    """It is the mean weighted by powers of the discount, of the labels before the row."""
    wanted = labels(50)
    last = wanted[:-1] @ 0.9 ** np.arange(48, -1, -1) / (0.9 ** np.arange(49)).sum()
    served = guesses(np.concatenate((wanted[:-1], [last])), 0.9)["discounted mean"]
    whole = guesses(wanted[:-1], 0.9)["discounted mean"]
    assert served.mse is not None
    assert whole.mse is not None
    assert served.mse * 50 == pytest.approx(whole.mse * 49)  # the last row was guessed exactly


def test_rows_without_a_prediction_do_not_count() -> None:
    """Neither does one without a label, nor one that is left out; one behind the warm-up counts in both."""
    wanted, given = np.arange(6.0), np.arange(6.0) + 1
    wanted[1], given[2] = np.nan, np.nan
    left_out = np.arange(6) == 3
    found = figures({"prediction": given}, wanted, warm_up=4, leave_out=left_out)
    assert (found.rows, found.mse) == (3, 1.0)
    assert found.r2_after == mse_r2(wanted[4:], given[4:])[1]


def test_an_interval_that_was_not_served_covers_nothing_known() -> None:
    """None, not 0, where there are no intervals; else the share of labels inside, ends included."""
    wanted = np.array([0.0, 1.0, 2.0, 3.0])
    assert covered({"prediction": wanted}, wanted) is None
    bounds = {"prediction_low": np.array([0.0, 2.0, 0.0, np.nan]), "prediction_high": np.full(4, 2.0)}
    assert covered(bounds, wanted) == pytest.approx(2 / 3)
    assert covered(bounds, wanted, slice(3, None)) is None


def test_what_is_not_reported_is_not_kept() -> None:
    """A target without a figure is neither kept nor missed, and says so."""
    for target in (at_least("x", None, 1.0), at_most("x", None, 1.0)):
        assert target.kept is None
        assert target.found == "not reported"
    assert at_least("x", 1.0, 1.0).kept is True
    assert at_most("x", 1.1, 1.0).kept is False
    assert at_most("x", float("inf"), 1.0).kept is False
    assert at_least("x", float("nan"), 1.0).kept is False
