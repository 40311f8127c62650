"""learn/scaling.py: standardising, limits, and the shifts that are believed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streampiped.learn.estimators import equal
from streampiped.learn.scaling import LIMIT, LIMIT_AFTER, REBASE_ROWS, Standardiser

RNG = np.random.default_rng(0)


def warm(limit: float = LIMIT, rows: int = 1000) -> Standardiser:
    result = Standardiser(1, limit)
    result.learn(np.random.default_rng(7).normal(size=(1, rows)))
    return result


@settings(max_examples=60, deadline=None)
@given(st.floats(-1e12, 1e12), st.lists(st.integers(1, 9), min_size=1, max_size=12))
def test_a_constant_column_becomes_zero(value: float, sizes: list[int]) -> None:
    """A constant column is scaled to exactly 0, in any cutting, whatever rounding leaves in its moments."""
    scaler = Standardiser(1)
    for size in sizes:
        table = scaler.learn(np.full((1, size), value))
        shift, factor = scaler.scale()
        assert ((table - shift[:, None]) * factor[:, None] == 0).all()


def test_rounding_errors_are_no_deviations() -> None:
    """A column that differs only in its last bits is constant too, and not blown up to deviation 1."""
    scaler = Standardiser(1)
    table = np.array([[0.3, 0.1 + 0.2, 0.3, 0.1 + 0.2]])
    assert table.std() > 0
    scaler.learn(table)
    assert scaler.scale()[1].tolist() == [0.0]


def test_small_deviations_at_a_large_mean_are_no_constants() -> None:
    """Values 1e9 apart from 0 and 1 apart from each other are scaled to deviation 1."""
    scaler = Standardiser(1)
    table = 1e9 + RNG.normal(size=(1, 5000))
    scaler.learn(table)
    shift, factor = scaler.scale()
    assert ((table - shift[:, None]) * factor[:, None]).std() == pytest.approx(1.0, rel=1e-9)


def test_a_spike_does_not_flatten_its_column() -> None:
    """One value of 1e6 in 1000 moves the deviation by less than a tenth; without a limit it is lost."""
    for limit, below in ((LIMIT, 1.1), (0.0, 1e9)):
        scaler = warm(limit)
        before = scaler.deviation()[0]
        scaler.learn(np.array([[1e6]]))
        assert (scaler.deviation()[0] < 1.1 * before) == (below == 1.1)
        assert scaler.outside.tolist() == [1 if limit else 0]


@pytest.mark.parametrize("batch", [1, 10, 500])
def test_a_lasting_shift_is_believed(batch: int) -> None:
    """After a shift by 1000 deviations that lasts, the column is centred anew within a few hundred rows."""
    scaler = warm(rows=20_000)
    shifted = 1000.0 + RNG.normal(size=(1, 500))
    for start in range(0, 500, batch):
        scaler.learn(shifted[:, start : start + batch])
    assert scaler.rebased.tolist() == [1]
    assert scaler.moments.mean[0] > 800


def test_spikes_that_come_singly_are_never_believed() -> None:
    """One spike in ten, for much longer than REBASE_ROWS, stays outside."""
    scaler = warm()
    for _ in range(3 * REBASE_ROWS):
        table = RNG.normal(size=(1, 10))
        table[0, 4] = 1e6
        scaler.learn(table)
    assert scaler.rebased.tolist() == [0]
    assert scaler.outside.tolist() == [3 * REBASE_ROWS]


def test_nothing_is_limited_before_enough_was_seen() -> None:
    """Below LIMIT_AFTER rows the array comes back as it is."""
    scaler = warm(rows=LIMIT_AFTER - 1)
    table = np.array([[1e6]])
    assert scaler.learn(table) is table


def test_missing_values_stay_missing() -> None:
    """NaN passes through a limited batch and reaches no moment."""
    scaler = warm()
    count = scaler.moments.count[0]
    seen = scaler.learn(np.array([[np.nan, 1e6, 0.5]]))
    assert np.isnan(seen[0, 0])
    assert seen[0, 1] < 100
    assert scaler.moments.count[0] == count + 2


def test_the_state_continues_bit_for_bit() -> None:
    """A restored standardiser goes on exactly, also in the middle of a streak."""
    scaler = warm()
    scaler.learn(np.full((1, REBASE_ROWS - 1), 1e6))
    twin = Standardiser(1)
    twin.restore(scaler.state())
    for each in (scaler, twin):
        each.learn(np.full((1, 1), 1e6))
    assert scaler.rebased.tolist() == [1]
    assert equal(scaler.state(), twin.state())
