"""learn/past.py: what a row may know of the labels before it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampiped.learn.past import LAGS, MEMORIES, Looks, Past


def walked(labels: np.ndarray, known: np.ndarray, cuts: list[int]) -> tuple[Past, list[np.ndarray]]:
    past, parts = Past(), []
    for start, stop in zip([0, *cuts], [*cuts, len(labels)], strict=True):
        looks = past.follow(labels[start:stop], known[start:stop])
        parts.append(np.column_stack([getattr(looks, name) for name in Looks.__slots__]))
    return past, parts


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.booleans()), min_size=1, max_size=40), st.data())
def test_cutting_changes_nothing(rows: list[tuple[float, bool]], data: st.DataObject) -> None:
    """However the stream is cut, every row looks back at the same values, to rounding in the mean and exactly else."""
    labels, known = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=4)))
    whole, parts = walked(labels, known, [])[1], walked(labels, known, cuts)[1]
    np.testing.assert_allclose(np.concatenate(parts), whole[0], rtol=1e-9, atol=1e-6)


def test_against_a_plain_loop() -> None:
    """Lags, mean, discounted means and range are those of a loop over the known labels before each row."""
    rng = np.random.default_rng(1)
    labels, known = rng.normal(size=60), rng.random(60) < 0.7
    looks = Past().follow(labels, known)
    for row in range(1, 60):
        before = labels[:row][known[:row]]
        if not len(before):
            continue
        lags = [*before[::-1][:LAGS], *[before[0]] * max(0, LAGS - len(before))]
        assert looks.count[row] == len(before)
        assert looks.lags[row].tolist() == lags
        assert looks.mean[row] == pytest.approx(before.mean())
        assert (looks.low[row], looks.high[row]) == (before.min(), before.max())
        for place, memory in enumerate(MEMORIES):
            weights = np.exp(-np.arange(len(before))[::-1] / memory)
            assert looks.discounted[row, place] == pytest.approx(np.average(before, weights=weights))


def test_what_comes_next_knows_all_labels() -> None:
    """`now` is what the next row of `follow` sees; a copy and a restored one see the same."""
    past = Past()
    past.follow(np.array([3.0, 1.0, 4.0]), np.ones(3, dtype=bool))
    twin = Past()
    twin.restore(past.state())
    for each in (past, twin, past.copy()):
        now, then = each.now(1), each.copy().follow(np.array([9.0]), np.ones(1, dtype=bool))
        for name in Looks.__slots__:
            assert getattr(now, name).tolist() == getattr(then, name).tolist()
