"""The built-in SGD takes scikit-learn's steps: SGDRegressor itself is what it is held to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import SGDRegressor

from streampiped.errors import OptionError
from streampiped.learn.estimators import equal
from streampiped.learn.sgd import ROWS_MAX, SgdRecipe, Steps
from streampiped.records import Array
from streampiped.stages.learning_tasks import Regression
from streampiped.stages.trainer import TrainerOptions

EXACT = 1e-12
PENALTIES: list[dict[str, Any]] = [
    {},
    {"penalty": None},
    {"penalty": "l1", "alpha": 0.01},
    {"penalty": "elasticnet", "alpha": 0.01, "l1_ratio": 0.4},
    {"alpha": 0.5},
    {"alpha": 60.0},  # a step that scales the weights to nothing
]
RATES: list[dict[str, Any]] = [
    {"learning_rate": "constant", "eta0": 0.01},
    {"learning_rate": "invscaling", "eta0": 0.05, "power_t": 0.3},
    {"learning_rate": "optimal", "alpha": 30.0},  # with a small alpha its first steps diverge, and roundings with them
    {"learning_rate": "adaptive", "eta0": 0.02},
]
LOSSES: list[dict[str, Any]] = [
    {},
    {"loss": "huber", "epsilon": 0.3},
    {"loss": "epsilon_insensitive", "epsilon": 0.2},
    {"loss": "squared_epsilon_insensitive", "epsilon": 0.2},
    {"fit_intercept": False},
    {"shuffle": False},
]
LEFT: list[dict[str, Any]] = [{"average": True}, {"average": 3, "learning_rate": "constant"}]
"""Whose steps are left to scikit-learn."""


def rows_of(seed: int, rows: int, columns: int) -> tuple[Array, Array]:
    generator = np.random.Generator(np.random.PCG64(seed))
    features = np.clip(generator.standard_normal((rows, columns)), -3.0, 3.0)
    return features, features @ np.linspace(-1.0, 1.0, columns) + 0.3 * generator.standard_normal(rows)


def taught(recipe: SgdRecipe, blocks: list[tuple[Array, Array]], monkeypatch: pytest.MonkeyPatch, most: int) -> Any:
    """The estimator after these blocks, those of up to `most` rows by the steps taken here."""
    monkeypatch.setattr("streampiped.learn.sgd.ROWS_MAX", most)
    estimator = recipe.make()
    for features, targets in blocks:
        recipe.learn(estimator, features, targets)
    return estimator


def apart(one: Any, other: Any) -> float:
    """The greatest difference of two estimators' parameters, by their size where that is above 1."""
    mine, its = (np.concatenate((each.coef_, each.intercept_)) for each in (one, other))
    return float(np.max(np.abs(mine - its) / np.maximum(1.0, np.abs(its))))


@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize("rate", RATES, ids=str)
@pytest.mark.parametrize("penalty", PENALTIES, ids=str)
def test_the_same_steps(
    penalty: dict[str, Any], rate: dict[str, Any], loss: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the loss, the penalty and the rate: after blocks of 1 to 250 rows, whose steps were all taken here, the
    parameters are scikit-learn's to 1e-12, and so is what it counts."""
    for seed, columns in enumerate((1, 3, 16, 40)):
        recipe = SgdRecipe(penalty | rate | loss, seed * 977)
        blocks = [rows_of(seed * 100 + rows, rows, columns) for rows in (2, 1, 1, 7, 64, 1, 250)]
        ours, theirs = (taught(recipe, blocks, monkeypatch, most) for most in (10**9, 0))
        assert apart(ours, theirs) <= EXACT
        assert (ours.t_, ours.n_iter_) == (theirs.t_, theirs.n_iter_)


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 16, 63, 64, 65, ROWS_MAX, ROWS_MAX + 1, 500, 1000])
def test_every_length_of_block(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block is learned in scikit-learn's order, shuffled by its seed, however long it is, over many seeds."""
    for seed in range(30):
        recipe = SgdRecipe({"learning_rate": "constant", "eta0": 0.03}, seed * 7919)
        blocks = [rows_of(seed * 10 + n, rows, 5) for n in range(3)]
        ours, theirs = (taught(recipe, blocks, monkeypatch, most) for most in (10**9, 0))
        assert apart(ours, theirs) <= EXACT


@pytest.mark.parametrize("params", [penalty | rate for penalty in PENALTIES for rate in RATES] + LOSSES, ids=str)
def test_one_goes_on_from_the_other(params: dict[str, Any]) -> None:
    """Blocks that change between both, frozen and thawed in between: the parameters are scikit-learn's to 1e-12, and
    what was thawed goes on to the last bit."""
    recipe, its = SgdRecipe(params, 5), SGDRegressor(**params, random_state=5)
    estimator = recipe.make()
    for turn, rows in enumerate((1, ROWS_MAX + 1, 1, 2, ROWS_MAX, 300, 1, 1)):
        features, targets = rows_of(turn, rows, 6)
        twin = recipe.thaw(recipe.freeze(estimator))
        its.partial_fit(features, targets)
        for each in (estimator, twin):
            recipe.learn(each, features, targets)
        assert apart(estimator, its) <= EXACT
        assert equal(recipe.freeze(estimator), recipe.freeze(twin))


def test_predictions_are_its_own() -> None:
    """`predict` answers what SGDRegressor.predict does, to the last bit, for any number of rows."""
    recipe = SgdRecipe({}, 1)
    estimator = recipe.make()
    recipe.learn(estimator, *rows_of(0, 200, 16))
    for rows in (1, 2, 3, 64, 1000):
        features = rows_of(rows, rows, 16)[0]
        assert recipe.predict(estimator, features).tobytes() == estimator.predict(features).tobytes()


@pytest.mark.parametrize("rows", [1, 8])
def test_an_overflow_is_said_as_scikit_learn_says_it(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parameters that are not finite are a ValueError here as there, and after `back` nothing of the block is left."""
    recipe = SgdRecipe({"learning_rate": "constant", "eta0": 1e200}, 1)
    features, targets = rows_of(1, rows, 4)
    for most in (10**9, 0):
        estimator = taught(recipe, [(np.zeros((1, 4)), np.zeros(1))], monkeypatch, most)
        before, mark = recipe.freeze(estimator), recipe.mark(estimator)
        with np.errstate(all="ignore"), pytest.raises(ValueError, match=r"finite|overflow"):
            recipe.learn(estimator, features * 1e160, targets * 1e300)
        assert equal(recipe.freeze(recipe.back(mark)), before)


@pytest.mark.parametrize(("params", "takes_steps"), [*((params, True) for params in LEFT), ({}, False)], ids=str)
def test_what_is_left_to_scikit_learn(params: dict[str, Any], takes_steps: bool) -> None:
    """With parameters whose steps are not taken here, or where none is to be, the member is SGDRegressor to the last
    bit, in blocks of one; and a mark is what it was at that place, whatever comes behind."""
    recipe, its = SgdRecipe(params, 3, takes_steps=takes_steps), SGDRegressor(**params, random_state=3)
    assert not takes_steps or Steps.of(its.get_params()) is None
    estimator = recipe.make()
    marks = []
    for turn in range(5):
        features, targets = rows_of(turn, 1, 4)
        marks.append((recipe.mark(estimator), recipe.freeze(estimator)))
        recipe.learn(estimator, features, targets)
        its.partial_fit(features, targets)
    assert estimator.coef_.tobytes() == its.coef_.tobytes()
    assert all(equal(recipe.freeze(recipe.back(mark)), frozen) for mark, frozen in marks)


@pytest.mark.parametrize(("estimator", "taken_here"), [("auto", 5), ("sklearn.linear_model.SGDRegressor", 0)])
def test_who_names_scikit_learns_gets_its_steps(
    estimator: str, taken_here: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a named SGDRegressor no step is taken here: it is for comparing. Of `sgd` all are but the first."""
    taken: list[int] = []
    take = Steps.take
    monkeypatch.setattr(Steps, "take", lambda *given: (taken.append(1), take(*given))[1])
    recipe = Regression(TrainerOptions(estimator=estimator), 3).recipe(4)
    made = recipe.make()
    for turn in range(6):
        recipe.learn(made, *rows_of(turn, 1, 4))
    assert len(taken) == taken_here


def test_it_can_be_tried_out() -> None:
    """What can be used is, and a parameter that SGDRegressor has not is refused by name."""
    SgdRecipe({"learning_rate": "constant"}, 1).try_out()
    with pytest.raises(OptionError, match="does not take params"):
        SgdRecipe({"steps": 1}, 1)
