"""learn/lookback.py: what the evaluator tells the trainer of the labels before a row is what the trainer knew."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streampiped.learn.lookback import Lookback
from streampiped.learn.past import Looks, Past


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(0, 400), max_size=6), st.floats(0, 1), st.sampled_from([0.0, 1e6]), st.integers(0, 99))
def test_some_rows_are_told_what_all_are(sizes: list[int], missing: float, level: float, seed: int) -> None:
    """Every field, of any rows, in any cutting, with labels missing, and through a restore, is that of `Past`."""
    rng = np.random.default_rng(seed)
    past, lookback = Past(), Lookback()
    for size in sizes:
        labels, known = level + rng.normal(size=size), rng.random(size) >= missing
        labels[~known] = np.nan
        places = np.flatnonzero(rng.random(size) < 0.3)
        wanted, got = past.follow(labels, known), lookback.follow(labels, known, places)
        for name in Looks.__slots__:
            assert getattr(got, name) == pytest.approx(getattr(wanted, name)[places], rel=1e-9, abs=1e-9), name
        twin = Lookback()
        twin.restore(lookback.state())
        lookback = twin
