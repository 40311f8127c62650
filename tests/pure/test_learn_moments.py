"""learn/moments.py: the moments of a whole, whatever it is cut into."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streampiped.learn.moments import Moments, moments_of

values = st.floats(-1e6, 1e6, allow_nan=False) | st.just(float("nan")) | st.just(float("inf"))


def fed(table: np.ndarray, cuts: list[int]) -> Moments:
    result = Moments(len(table))
    for part in np.split(table, sorted(cuts), axis=1):
        result.update(part)
    return result


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(values, values), min_size=1, max_size=60), st.lists(st.integers(0, 60), max_size=8))
def test_merged_parts_are_the_whole(rows: list[tuple[float, float]], cuts: list[int]) -> None:
    """In any cutting, count is exact and mean and variance are those of the finite values of each column."""
    table = np.array(rows).T.copy()
    moments = fed(table, [min(c, len(rows)) for c in cuts])
    for place, column in enumerate(table):
        finite = column[np.isfinite(column)]
        assert moments.count[place] == finite.size
        assert moments.mean[place] == pytest.approx(finite.mean() if finite.size else 0.0, rel=1e-9, abs=1e-9)
        assert moments.variance()[place] == pytest.approx(finite.var() if finite.size else 0.0, rel=1e-9, abs=1e-6)


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_the_variance_is_exact_far_from_zero(batch: int) -> None:
    """At a mean of 1e9 the variance equals exact rational arithmetic to 1e-12."""
    column = 1e9 + np.random.default_rng(1).normal(size=500)
    exact = [Fraction(v) for v in column.tolist()]
    mean = sum(exact) / len(exact)
    variance = sum((v - mean) ** 2 for v in exact) / len(exact)
    moments = fed(column[None, :], list(range(batch, 500, batch)))
    assert moments.variance()[0] == pytest.approx(float(variance), rel=1e-12)
    assert moments.mean[0] == pytest.approx(float(mean), rel=1e-15)


def test_a_clean_column_has_the_same_bits_beside_a_dirty_one() -> None:
    """A missing value in one column changes no bit of another column's moments."""
    table = np.random.default_rng(2).normal(size=(2, 999))
    clean = moments_of(table)
    table[1, 5] = np.nan
    dirty = moments_of(table)
    assert (clean.mean[0], clean.m2[0]) == (dirty.mean[0], dirty.m2[0])
    assert dirty.count.tolist() == [999, 998]


def test_the_state_continues_bit_for_bit() -> None:
    """Moments restored from their state go on exactly as the ones that were never saved."""
    table = np.random.default_rng(3).normal(size=(4, 300))
    moments = fed(table[:, :200], [50, 99])
    twin = Moments.from_state(moments.state())
    for each in (moments, twin):
        each.update(table[:, 200:])
    assert all(np.array_equal(moments.state()[k], twin.state()[k]) for k in moments.state())


def test_what_was_handed_out_does_not_change() -> None:
    """The arrays of a state stay as they are while learning goes on."""
    moments = Moments(1)
    moments.update(np.ones((1, 3)))
    state = moments.state()
    moments.update(np.full((1, 3), 9.0))
    assert Moments.from_state(state).mean.tolist() == [1.0]


def test_a_discount_keeps_mean_and_variance() -> None:
    """Discounted history has the same mean and variance and fewer rows, in the columns named only."""
    moments = fed(np.random.default_rng(4).normal(size=(2, 500)), [])
    mean, variance = moments.mean.copy(), moments.variance()
    moments.discount(np.array([True, False]), 64)
    assert moments.count.tolist() == [64, 500]
    assert moments.mean.tolist() == mean.tolist()
    assert moments.variance() == pytest.approx(variance, rel=1e-12)
