"""learn/pool.py: members side by side, the champion served, drifts, bounds and the law of snapshots."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from streampiped.learn.estimators import Recipe, equal
from streampiped.learn.lineup import RIDGES, SGD, TRIVIAL, lineup
from streampiped.learn.members.base import Inputs, Member
from streampiped.learn.members.estimator import EstimatorMember
from streampiped.learn.members.trivial import LastLabel, RunningMean
from streampiped.learn.pool import Pool
from streampiped.records import Array

Floats = np.ndarray


def pool(columns: int, names: list[str] | None = None) -> Pool:
    def estimator() -> Member:
        recipe = Recipe("sklearn.linear_model.SGDRegressor", {"learning_rate": "constant", "eta0": 0.01}, 1)
        return EstimatorMember(recipe, columns, scale_target=True, limit=8.0)

    return Pool(lineup(names, columns, estimator), columns)


def worked(model: Pool, features: Floats, labels: Floats, batch: int = 64) -> Floats:
    """(prediction, low, high) per row."""
    parts = [np.zeros((0, 3))]
    for start in range(0, len(labels), batch):
        row, stop = start, min(len(labels), start + batch)
        while row < stop:
            known = np.isfinite(labels[row:stop])
            forecast = model.work(np.ascontiguousarray(features[row:stop]), labels[row:stop], known, known)
            parts.append(np.column_stack((forecast.prediction, forecast.low, forecast.high)))
            row += len(forecast.prediction)
    return np.concatenate(parts)


def regression(rows: int, seed: int = 1, noise: float = 0.5) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(rows, 4))
    return features, 10 + features @ np.array([1.0, -2.0, 0.5, 0.0]) + noise * rng.normal(size=rows)


def error(predicted: Floats, labels: Floats) -> float:
    return float(np.mean((predicted[:, 0] - labels) ** 2))


def guessing(labels: Floats) -> float:
    """The least squared error of the trivial members."""
    features = np.zeros((len(labels), 1))
    return min(error(worked(Pool({name: make()}, 1), features, labels), labels) for name, make in TRIVIAL.items())


@pytest.mark.parametrize("kind", ["noise", "walk", "noisy walk", "constant", "steps"])
@pytest.mark.parametrize("seed", range(3))
def test_never_worse_than_guessing(kind: str, seed: int) -> None:
    """On streams whose features say nothing the error is at most 1.03 times that of the best guess of hindsight; 1.4
    times where the level jumps by five deviations every hundred rows, which nobody can know before."""
    rng = np.random.default_rng(100 + seed)
    features, noise = rng.normal(size=(1500, 5)), rng.normal(size=1500)
    labels = {
        "noise": noise,
        "walk": np.cumsum(noise),
        "noisy walk": np.cumsum(noise) * 0.1 + rng.normal(size=1500),
        "constant": np.full(1500, 7.0),
        "steps": np.repeat(rng.normal(size=15) * 5, 100) + noise,
    }[kind]
    assert error(worked(pool(5), features, labels), labels) <= (1.4 if kind == "steps" else 1.03) * guessing(labels)


def test_a_model_is_served_when_there_is_one_to_be_had() -> None:
    """On a linear stream the champion learns, and its error comes near the noise."""
    features, labels = regression(3000)
    model = pool(4)
    predicted = worked(model, features, labels)
    assert not model.fallback
    assert error(predicted[1000:], labels[1000:]) < 1.05 * 0.25


@pytest.mark.parametrize("offset", [1e6, 1e9, 1e12])
def test_an_offset_of_label_and_features_costs_nothing(offset: float) -> None:
    """Labels and features far from 0 are learned as those near it, by the same champions, with the same intervals, but
    for what a number of that size cannot show."""
    features, labels = regression(1500)
    near, far = pool(4), pool(4)
    one = worked(near, features, labels)[1:]  # the first row is predicted as 0 wherever labels are
    other = worked(far, features + offset, labels + offset)[1:] - offset
    assert far.champion.name == near.champion.name
    assert error(other[99:], labels[100:]) < 1.001 * error(one[99:], labels[100:])
    assert np.median(other[99:, 2] - other[99:, 1]) < 1.01 * np.median(one[99:, 2] - one[99:, 1])


def test_a_drift_is_followed() -> None:
    """Coefficients that change at once are noticed within 100 rows, and learned anew within some hundred."""
    features, labels = regression(4000)
    labels[2000:] = 10 - 2 * (labels[2000:] - 10)
    model = pool(4)
    predicted = worked(model, features, labels)
    (drift,) = model.history.drifts()
    assert 2000 <= drift["row"] < 2100
    assert error(predicted[2400:], labels[2400:]) < 1.3
    assert model.generation == 1


@pytest.mark.parametrize("cut", [0, 1, 700, 2150])
def test_a_restored_pool_goes_on_bit_for_bit(cut: int) -> None:
    """Snapshot at any row, across a drift: the same forecasts, history and state to the last bit; a copy too."""
    features, labels = regression(2600)
    labels[2100:] *= -3
    labels[::97] = np.nan
    whole = pool(4)
    worked(whole, features[:cut], labels[:cut])
    twin, copy = pool(4), whole.copy()
    twin.restore(whole.state())
    ours, theirs, copied = (worked(each, features[cut:], labels[cut:]) for each in (whole, twin, copy))
    assert ours.tobytes() == theirs.tobytes() == copied.tobytes()
    assert equal(whole.state(), twin.state())
    assert equal(whole.state(), copy.state())


def test_predict_changes_nothing() -> None:
    """However often it is asked, what is served and learned in band stays the same."""
    features, labels = regression(400)
    asked, plain = pool(4), pool(4)
    for start in range(0, 400, 40):
        rows = slice(start, start + 40)
        worked(asked, features[rows], labels[rows])
        worked(plain, features[rows], labels[rows])
        before = asked.state()
        asked.predict(features[:5])
        assert equal(asked.state(), before)
    assert equal(asked.state(), plain.state())


class Wild(Member):
    """Right until it is told not to be."""

    kind = "wild"

    def __init__(self, after: int) -> None:
        self.after = after
        self.rows = 0

    def predict(self, inputs: Inputs) -> Array:
        if self.rows > self.after:
            return np.full(len(inputs), 1e30)
        return np.asarray(inputs.features[:, 0])

    def learn(self, inputs: Inputs, labels: Array) -> bool:
        self.rows += len(labels)
        return True

    def fresh(self) -> Wild:
        return Wild(self.after)

    def state(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def restore(self, state: Any) -> None:
        self.rows = state["rows"]


def test_a_member_gone_astray_is_begun_anew_alone() -> None:
    """Predictions beyond all bounds are never served as they are; the member loses what it has learned, no other."""
    features, _ = regression(2000)
    labels = features[:, 0].copy()
    model = Pool({"mean": RunningMean(), "last": LastLabel(), "wild": Wild(1000)}, 4)
    predicted = worked(model, features, labels)
    wild, others = model.slots[2], model.slots[:2]
    assert wild.rollbacks > 0
    assert wild.rows < 1000
    assert all(slot.rollbacks == 0 for slot in others)
    assert np.abs(predicted[:, 0]).max() <= 1.5 * np.ptp(labels)


def test_labels_that_never_come() -> None:
    """Without any label every prediction is 0, with no interval as nothing is known of its error, and nothing is
    learned."""
    features, _ = regression(100)
    model = pool(4)
    predicted = worked(model, features, np.full(100, np.nan))
    assert not predicted[:, 0].any()
    assert np.isnan(predicted[:, 1:]).all()
    assert model.learned == 0


def test_another_level_has_no_interval_before_its_first_error() -> None:
    """Errors at the level that is over say nothing of it: of the row behind the shift nothing is known."""
    features, labels = regression(600)
    model = pool(4)
    worked(model, features[:400], labels[:400])
    model.label_shifted(labels[399:400] + 1000)
    behind = worked(model, features[400:], labels[400:] + 1000)
    assert np.flatnonzero(np.isnan(behind[:, 1])).tolist() == [0]
    assert np.flatnonzero(np.isnan(behind[:, 2])).tolist() == [0]
    assert np.isfinite(behind[:, 0]).all()


def test_promote_and_pin() -> None:
    """A promoted member is served until it is beaten, a pinned one until it is let go."""
    features, labels = regression(3000)
    model = pool(4)
    worked(model, features[:1000], labels[:1000])
    model.promote("last_label")
    assert model.champion.name == "last_label"
    worked(model, features[1000:2000], labels[1000:2000])
    assert model.champion.name != "last_label"
    model.pin("mean")
    worked(model, features[2000:], labels[2000:])
    assert (model.champion.name, model.pinned) == ("mean", True)
    model.unpin()
    worked(model, features, labels)
    assert model.champion.name != "mean"
    with pytest.raises(KeyError):
        model.promote("nobody")


def test_another_lineup_takes_over_what_it_knows() -> None:
    """Of a snapshot with other members the common ones go on, and the champion of then is served if it is there."""
    features, labels = regression(1000)
    old, new = pool(4), pool(4, ["ridge", "lagged"])
    worked(old, features, labels)
    old.promote("ridge")
    new.restore(old.state())
    assert new.champion.name == "ridge"
    assert new.rows == 1000
    worked(new, features, labels)
    assert not new.fallback


def test_many_columns_go_without_squares() -> None:
    """Squares and products are left out above 16 columns unless they are named."""
    assert "squares" in lineup(None, 16, RunningMean)
    assert "squares" not in lineup(None, 17, RunningMean)
    assert list(lineup(["squares"], 17, RunningMean)) == [*TRIVIAL, "squares"]
    assert set(lineup(None, 4, RunningMean)) == {*TRIVIAL, SGD, *RIDGES}
