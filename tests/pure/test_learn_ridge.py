"""Co-moments, frames and the least-squares members on them."""

from __future__ import annotations

from math import exp, inf
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression
from sklearn.linear_model import Ridge as Reference

from streampiped.learn.comoments import Comoments
from streampiped.learn.frame import Frame
from streampiped.learn.members.base import Inputs
from streampiped.learn.members.bases import Basis, columns_of, moved, width_of
from streampiped.learn.members.ridge import Ridge
from streampiped.learn.past import Past

BASES: tuple[Basis, ...] = ("linear", "squares", "lagged")


def inputs_of(features: np.ndarray, past: Past | None = None) -> Inputs:
    return Inputs(features, features, (past or Past()).now(len(features)))


def linear(rows: int, columns: int = 3, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(rows, columns))
    return features, features @ np.arange(1.0, columns + 1) + 5 + rng.normal(size=rows) / 10


@pytest.mark.parametrize("level", [0.0, 1e9])
def test_merged_comoments_are_those_of_all_rows(level: float) -> None:
    """Blocks of any size merged give numpy's covariance of all rows, also at a mean of 1e9."""
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(200, 4)) + level
    merged = Comoments.of(rows[:1].T)
    for start, stop in ((1, 3), (3, 50), (50, 200)):
        merged = merged.merged(Comoments.of(rows[start:stop].T))
    assert merged.weight == 200
    np.testing.assert_allclose(merged.mean, rows.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(merged.products / 200, np.cov(rows.T, bias=True), atol=1e-7)


def test_old_rows_count_less() -> None:
    """With a memory the merged moments are those of rows weighted by exp(-age in blocks of rows / memory)."""
    rng = np.random.default_rng(3)
    blocks = [rng.normal(size=(10, 2)) for _ in range(4)]
    merged = Comoments.of(blocks[0].T)
    for block in blocks[1:]:
        merged = merged.merged(Comoments.of(block.T), memory=20.0)
    weights = np.repeat([exp(-10 * (3 - place) / 20.0) for place in range(4)], 10)
    rows = np.concatenate(blocks)
    np.testing.assert_allclose(merged.mean, np.average(rows, axis=0, weights=weights))
    np.testing.assert_allclose(
        merged.products / merged.weight, np.cov(rows.T, aweights=weights, bias=True), rtol=1e-12, atol=1e-12
    )


def test_ridge_is_scikit_learns_on_standardised_columns() -> None:
    """Learned in blocks of any size, slopes and intercept are those of one closed-form fit to all rows."""
    features, labels = linear(300)
    features[:, 1] *= 1e4  # other units change nothing
    member = Ridge("linear", inf, penalty=3.0)
    for start, stop in ((0, 1), (1, 2), (2, 10), (10, 300)):
        member.learn(inputs_of(features[start:stop]), labels[start:stop])
    scaled = (features - features.mean(axis=0)) / features.std(axis=0)
    wanted = Reference(alpha=3.0).fit(scaled, labels)
    np.testing.assert_allclose(member.predict(inputs_of(features)), wanted.predict(scaled), rtol=1e-9)


def test_constant_and_equal_columns_do_no_harm() -> None:
    """A column that never varies and two that are the same leave the fit of the others as it is."""
    features, labels = linear(300)
    odd = np.column_stack((features, np.full(300, 7.0), features[:, 0]))
    member = Ridge("linear", inf, penalty=1e-6)
    member.learn(inputs_of(odd), labels)
    wanted = LinearRegression().fit(features, labels).predict(features)
    np.testing.assert_allclose(member.predict(inputs_of(odd)), wanted, rtol=1e-6)


def test_squares_learn_a_product() -> None:
    """What is linear in squares and products is found exactly."""
    rng = np.random.default_rng(4)
    features = rng.normal(size=(400, 3))
    labels = features[:, 0] * features[:, 1] - 2 * features[:, 2] ** 2 + features[:, 0]
    member = Ridge("squares", inf, penalty=1e-6)
    member.learn(inputs_of(features), labels)
    np.testing.assert_allclose(member.predict(inputs_of(features)), labels, atol=1e-4)


def test_lagged_follows_a_walk() -> None:
    """On a random walk the lagged member is nearly the last label, wherever the walk is."""
    rng = np.random.default_rng(5)
    labels, features = 1e6 + np.cumsum(rng.normal(size=800)), rng.normal(size=(800, 2))
    past, member = Past(), Ridge("lagged", inf, penalty=10.0)
    errors: list[float] = []
    for start in range(0, 800, 20):
        rows = slice(start, start + 20)
        inputs = Inputs(features[rows], features[rows], past.follow(labels[rows], np.ones(20, dtype=bool)))
        errors += (labels[rows] - member.predict(inputs)).tolist()
        member.learn(inputs, labels[rows])
    assert np.std(errors[400:]) < 1.1


@pytest.mark.parametrize("basis", BASES)
def test_moving_the_frame_changes_no_prediction(basis: Basis) -> None:
    """A member that was learned in one frame and is moved to another predicts the same rows alike, and goes on as if it
    had been in the new one all along (but for the ridge, which is on standardised columns of either)."""
    features, labels = linear(200)
    old, new = Frame(np.zeros(3), np.ones(3)), Frame(np.array([0.5, -2.0, 3.0]), np.array([2.0, 0.25, 10.0]))
    member = Ridge(basis, inf, penalty=1e-9)
    member.learn(inputs_of(features), labels)
    before = member.predict(inputs_of(features))
    scale, shift = old.map_to(new)
    member.move(scale, shift)
    there = inputs_of(new.place(features))
    np.testing.assert_allclose(member.predict(there), before, rtol=1e-6, atol=1e-6)
    matrix, constant = moved(basis, scale, shift)
    np.testing.assert_allclose(
        columns_of(basis, inputs_of(features)) @ matrix.T + constant, columns_of(basis, there), atol=1e-9
    )
    assert matrix.shape == (width_of(basis, 3),) * 2


def test_an_overflow_is_not_learned() -> None:
    """Rows whose co-moments are not finite are refused, and nothing of them stays."""
    features, labels = linear(50)
    member = Ridge("squares")
    member.learn(inputs_of(features), labels)
    before = member.predict(inputs_of(features)).tobytes()
    with np.errstate(all="ignore"):
        assert not member.learn(inputs_of(features * 1e200), labels)
    assert member.predict(inputs_of(features)).tobytes() == before


@pytest.mark.parametrize("basis", BASES)
def test_restored_and_copied_ones_go_on_alike(basis: Basis) -> None:
    """To the last bit; and a copy is not changed by what the other learns."""
    features, labels = linear(90)
    member = Ridge(basis, 50.0)
    member.learn(inputs_of(features[:40]), labels[:40])
    twins: list[Any] = [member.copy(), member.fresh()]
    twins[1].restore(member.state())
    kept = member.copy()
    frozen = kept.predict(inputs_of(features)).tobytes()
    for each in (member, *twins):
        each.learn(inputs_of(features[40:]), labels[40:])
    answers = {each.predict(inputs_of(features)).tobytes() for each in (member, *twins)}
    assert len(answers) == 1
    assert kept.predict(inputs_of(features)).tobytes() == frozen
