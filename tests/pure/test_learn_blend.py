"""The blend of the guesses: close to the best of them whichever that is, and better where they complete each other."""

from __future__ import annotations

import numpy as np
import pytest

from streampiped.learn.lineup import TRIVIAL
from streampiped.learn.members.base import Inputs
from streampiped.learn.members.blend import Blend
from streampiped.learn.past import Past
from streampiped.learn.pool import Pool
from streampiped.records import Array

ROWS = 2000


def served(labels: Array, block: int = 8, blend: Blend | None = None) -> Array:
    """Predicted block by block, and then learned."""
    blend = blend or Blend()
    looks = Past().follow(labels, np.ones(len(labels), dtype=bool))
    answers = []
    for start in range(0, len(labels), block):
        part = slice(start, start + block)
        inputs = Inputs(np.zeros((len(labels[part]), 1)), np.zeros((len(labels[part]), 1)), looks[part])
        answers.append(blend.predict(inputs))
        assert blend.learn(inputs, labels[part])
    return np.concatenate(answers)


def losses(labels: Array) -> dict[str, float]:
    """Of the blend and of each guess, from the second row on."""
    looks = Past().follow(labels, np.ones(len(labels), dtype=bool))
    by = {"blend": served(labels), "mean": looks.mean, "last": looks.lags[:, 0]}
    by |= {f"discounted {n}": looks.discounted[:, n] for n in range(looks.discounted.shape[1])}
    return {name: float(np.square(labels - guess)[1:].sum()) for name, guess in by.items()}


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_never_much_worse_than_the_best_guess(offset: float) -> None:
    """On noise, a random walk, a walk with noise, and levels that change, the squared error is at most 1.02 times that
    of the best guess."""
    rng = np.random.default_rng(3)
    noise, walk = rng.normal(size=ROWS), np.cumsum(rng.normal(size=ROWS))
    for labels in (noise, walk, walk + 2.0 * noise, np.repeat(rng.normal(size=40), 50)):
        found = losses(labels + offset)
        assert found["blend"] <= 1.02 * min(loss for name, loss in found.items() if name != "blend")


def test_better_than_every_guess_where_they_complete_each_other() -> None:
    """A walk below noise is neither its newest label nor a mean of old ones."""
    rng = np.random.default_rng(4)
    found = losses(np.cumsum(0.25 * rng.normal(size=ROWS)) + rng.normal(size=ROWS))
    assert found["blend"] < 0.97 * min(found["mean"], found["last"])


def test_labels_that_stay_are_followed_at_once() -> None:
    """As long as nothing told the guesses apart the first jump is followed in the row behind it."""
    labels = np.repeat([31.0, 0.0], 50)
    assert np.flatnonzero(served(labels) != labels).tolist() == [0, 50]


@pytest.mark.parametrize("unit", [2.0**-60, 2.0**80, 2.0**-400])
def test_units_mean_nothing(unit: float) -> None:
    """In another unit the predictions are the same in that unit."""
    labels = np.cumsum(np.random.default_rng(5).normal(size=300))
    assert served(labels * unit) == pytest.approx(served(labels) * unit, rel=1e-9)


def test_the_smallest_numbers_have_finite_answers() -> None:
    """Where squares are below what a double can hold, every prediction is finite, and nothing is refused."""
    labels = np.random.default_rng(5).normal(size=300) * 1e-155
    assert np.isfinite(served(labels)).all()


def test_what_is_not_finite_is_not_learned() -> None:
    """Labels beyond what can be squared are refused, and leave everything as it was."""
    blend, labels = Blend(), np.array([1.0, 2.0, 3.0, 4.0])
    served(labels, blend=blend)
    before = blend.state()
    wild = np.array([1.0, 1e200, -1e200])
    looks = Past().follow(wild, np.ones(3, dtype=bool))
    with np.errstate(over="ignore"):
        assert not blend.learn(Inputs(np.zeros((3, 1)), np.zeros((3, 1)), looks), wild)
    assert blend.state() == before


def test_goes_on_from_its_state() -> None:
    """A restored blend predicts and learns as the one that was saved, to the last bit."""
    rng = np.random.default_rng(6)
    first, second = Blend(), Blend()
    served(rng.normal(size=100), blend=first)
    second.restore(first.state())
    more = rng.normal(size=100)
    assert served(more, blend=first).tobytes() == served(more, blend=second).tobytes()
    assert first.state() == second.state()


def test_of_the_guesses_it_alone_is_served() -> None:
    """Whatever another guess's loss is, it does not become champion by itself."""
    pool = Pool({name: make() for name, make in TRIVIAL.items()}, 1)
    labels, every = np.cumsum(np.random.default_rng(7).normal(size=600)), np.ones(600, dtype=bool)
    row = 0
    while row < len(labels):
        forecast = pool.work(np.zeros((600 - row, 1)), labels[row:], every[row:], every[row:])
        assert pool.champion.name == "blend"
        row += len(forecast.prediction)


def test_a_guess_is_left_when_nobody_wants_it_any_more() -> None:
    """One that was pinned is served until it is unpinned; then the blend is, and its history says so. So is it behind a
    rollback to where it was pinned."""
    pool = Pool({name: make() for name, make in TRIVIAL.items()}, 1)
    pool.pin("last_label")
    assert pool.champion.name == "last_label"
    then = pool.state()
    pool.unpin()
    assert pool.champion.name == "blend"
    assert [term["member"] for term in pool.history.timeline()][-2:] == ["last_label", "blend"]
    pool.unpin()
    assert [term["reason"] for term in pool.history.timeline()][-2:] == ["pinned", "unpinned"]
    pool.go_back(then)
    assert (pool.champion.name, pool.pinned) == ("blend", False)


@pytest.mark.parametrize("pinned", [False, True])
def test_a_state_from_before_there_was_a_blend_is_gone_on_with(pinned: bool) -> None:
    """Who was pinned stays it; a guess that led is followed by the blend."""
    old = Pool({name: make() for name, make in TRIVIAL.items() if name != "blend"}, 1)
    old.promote("last_label")
    if pinned:
        old.pin("last_label")
    new = Pool({name: make() for name, make in TRIVIAL.items()}, 1)
    new.restore(old.state())
    assert (new.champion.name, new.pinned) == (("last_label", True) if pinned else ("blend", False))
