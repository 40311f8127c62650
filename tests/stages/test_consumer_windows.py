"""Rolling windows: equal to their definition, and independent of batch borders."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampiped.records import Array
from streampiped.stages.windows import Function, next_tail, rolling

FUNCTIONS: tuple[Function, ...] = ("mean", "std", "min", "max", "sum", "lag")

VALUES = st.one_of(st.just(float("nan")), st.just(float("inf")), st.floats(-1e6, 1e6))


def by_definition(function: Function, window: int, series: Array) -> Array:
    """Row by row, as the documentation says it."""
    if function == "lag":
        return np.concatenate([np.full(window, np.nan), series])[: len(series)]
    result = np.full(len(series), np.nan)
    for row in range(len(series)):
        seen = series[max(0, row + 1 - window) : row + 1]
        seen = seen[np.isfinite(seen)]
        if seen.size:
            result[row] = getattr(np, function)(seen)
    return result


def in_batches(function: Function, window: int, series: Array, cuts: list[int]) -> Array:
    tail = np.full(window, np.nan)
    parts = []
    for part in np.split(series, cuts):
        parts.append(rolling(function, window, tail, part))
        tail = next_tail(tail, part)
    return np.concatenate(parts)


@pytest.mark.parametrize("function", FUNCTIONS)
@given(series=st.lists(VALUES, min_size=1, max_size=60), window=st.integers(1, 70))
def test_windows_are_their_definition(function: Function, series: list[float], window: int) -> None:
    """Any window over any values is what its definition gives, missing and infinite values left out."""
    values = np.array(series)
    found = rolling(function, window, np.full(window, np.nan), values)
    assert found == pytest.approx(by_definition(function, window, values), nan_ok=True, rel=1e-9, abs=1e-3)


@pytest.mark.parametrize("function", FUNCTIONS)
@given(data=st.data())
def test_windows_do_not_depend_on_batches(function: Function, data: st.DataObject) -> None:
    """However the stream is cut, every value has the same bits."""
    series = np.array(data.draw(st.lists(VALUES, min_size=1, max_size=60)))
    window = data.draw(st.integers(1, 70))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(series)), max_size=5)))
    whole = in_batches(function, window, series, [])
    assert in_batches(function, window, series, cuts).tobytes() == whole.tobytes()


def test_deviation_holds_at_large_values() -> None:
    """The deviation of small steps at 1e9 is exact to six digits, where sums of squares would have none."""
    series = 1e9 + np.tile([0.0, 1.0], 500)
    assert rolling("std", 100, np.full(100, np.nan), series)[-1] == pytest.approx(0.5, rel=1e-6)


def test_a_window_forgets() -> None:
    """A value that has left the window leaves no trace, however large it was."""
    series = np.concatenate([[1e18], np.ones(300)])
    for function in ("mean", "sum", "std"):
        clean = rolling(function, 50, np.full(50, np.nan), np.ones(300))
        assert rolling(function, 50, np.full(50, np.nan), series)[-1] == clean[-1]
