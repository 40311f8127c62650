"""learn/model.py: scaling of the target, bounds, and the guard against divergence."""

from __future__ import annotations

import numpy as np
import pytest

from streampiped.learn.estimators import Recipe, equal
from streampiped.learn.model import STRIKES, OnlineModel

RNG = np.random.default_rng(0)
SGD = "sklearn.linear_model.SGDRegressor"


def model(limit: float = 10.0, *, scale_target: bool = True, step: float = 0.01) -> OnlineModel:
    recipe = Recipe(SGD, {"learning_rate": "constant", "eta0": step}, 1)
    return OnlineModel(recipe, scale_target=scale_target, limit=limit)


def taught(batches: int = 50) -> OnlineModel:
    result = model()
    for _ in range(batches):
        features = RNG.normal(size=(20, 3))
        assert result.learn(features, 500.0 + 40.0 * features[:, 0])
    return result


def test_before_anything_is_learned_the_prediction_is_zero() -> None:
    """A new model predicts 0.0 for every row."""
    predictions, fallbacks = model().predict(np.ones((4, 3)))
    assert (predictions.tolist(), fallbacks) == ([0.0] * 4, 0)


def test_predictions_come_in_the_unit_of_the_target() -> None:
    """A target around 500 with deviation 40 is learned and given back in that unit."""
    features = RNG.normal(size=(200, 3))
    predictions, _ = taught().predict(features)
    assert np.abs(predictions - (500.0 + 40.0 * features[:, 0])).mean() < 5.0


def test_a_constant_target_is_predicted_as_it_is() -> None:
    """Rows that all have one target are predicted with it, without division by their deviation of 0."""
    constant = model()
    for _ in range(5):
        assert constant.learn(RNG.normal(size=(8, 2)), np.full(8, 7.25))
    predictions, _ = constant.predict(RNG.normal(size=(8, 2)))
    assert predictions == pytest.approx(7.25, abs=1e-12)


@pytest.mark.parametrize("scale_target", [True, False])
def test_a_prediction_stays_within_the_limit(scale_target: bool) -> None:
    """However extreme a row is, its prediction is at most `limit` deviations from the mean."""
    wild = model(limit=3.0, scale_target=scale_target)
    for _ in range(30):
        features = RNG.normal(size=(20, 2))
        wild.learn(features, features[:, 0])
    predictions, _ = wild.predict(np.array([[1e9, 0.0], [-1e9, 0.0]]))
    bound = 3.0 * wild.spread
    assert predictions == pytest.approx([wild.mean + bound, wild.mean - bound], rel=1e-9)


def test_a_prediction_that_is_not_finite_falls_back_to_the_mean() -> None:
    """Where the estimator overflows, the target's mean is predicted and counted; the other rows are untouched."""
    learned = taught()
    vars(learned.estimator)["coef_"] = np.array([1e200, -1e200, 0.0])
    predictions, fallbacks = learned.predict(np.array([[1e200, 1e200, 0.0], [0.0, 0.0, 0.0]]))
    assert fallbacks == 1
    assert predictions[0] == learned.mean
    assert np.isfinite(predictions[1])


def test_a_batch_that_diverges_is_undone() -> None:
    """When learning leads to what is not finite, estimator and target moments are as before, and it is counted."""
    learned = taught()
    before = learned.state()
    assert not learned.learn(np.full((5, 3), 1e300), RNG.normal(size=5))
    after = learned.state()
    assert (after.pop("rollbacks"), after.pop("strikes")) == (1, 1)
    assert (before.pop("rollbacks"), before.pop("strikes")) == (0, 0)
    assert equal(before, after)
    assert learned.last_fault


def test_a_model_that_only_diverges_begins_anew() -> None:
    """After STRIKES failed batches in a row the estimator is a fresh one and the mean is predicted."""
    learned = taught()
    for _ in range(STRIKES):
        learned.learn(np.full((5, 3), 1e300), RNG.normal(size=5))
    assert (learned.rollbacks, learned.resets, learned.fitted) == (STRIKES, 1, False)
    assert learned.predict(np.ones((1, 3)))[0].tolist() == [learned.mean]


def test_an_absurd_target_moves_nothing() -> None:
    """One target of 1e12 among thousands changes a prediction by less than a deviation."""
    learned = taught(100)
    features = RNG.normal(size=(100, 3))
    before, _ = learned.predict(features)
    spread = learned.spread
    learned.learn(RNG.normal(size=(1, 3)), np.array([1e12]))
    after, _ = learned.predict(features)
    assert np.abs(after - before).max() < spread


def test_a_copy_is_independent_and_equal() -> None:
    """A copy predicts the same bits, and keeps doing so while the original learns."""
    learned = taught()
    features = RNG.normal(size=(9, 3))
    copy = learned.copy()
    wanted = learned.predict(features)[0].tobytes()
    learned.learn(features, RNG.normal(size=9))
    assert copy.predict(features)[0].tobytes() == wanted != learned.predict(features)[0].tobytes()
