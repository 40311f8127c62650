"""The streams of the benchmark are what they are said to be."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from bench.generators import friedman_drift
from bench.streams import ALL, DEVELOPMENT, REPORTED, UNSEEN, load

CASES = {
    # kind: drift rows, seed, rows, digest of what River 0.26.1 gives, rounded to six digits
    "gra": ((300, 700), 42, 1_000, "ba6254f17a8ac168efecf58e099183bb89d0c3b95d5248051e1a73cf448272ec"),
    "gsg": ((11_000, 22_000), 2, 33_000, "fc078ac43c6dfacdf6a2289ba623aeaae884ee16581a58034fed921e4f25f058"),
    "lea": ((1_000, 2_000, 3_000), 3, 4_000, "bd5607fee991a0db4eb5fab4381df4365183ab15802145cd013fe6c0c983a18a"),
}


@pytest.mark.parametrize("kind", CASES)
def test_drift_streams_are_rivers(kind: str) -> None:
    """The generator gives River's FriedmanDrift: rounded, it has the digest that was taken of River's own."""
    position, seed, rows, digest = CASES[kind]
    rounded = np.round(np.column_stack(list(friedman_drift(kind, position, seed, rows).values())), 6) + 0.0
    assert hashlib.sha256(rounded.tobytes()).hexdigest() == digest


def test_groups_are_apart() -> None:
    """No stream is in two groups: what defaults are chosen on is not what is reported."""
    assert len(ALL) == len(REPORTED) + len(DEVELOPMENT) + len(UNSEEN)
    makers = [repr(make) for _, make in ALL.values()]
    assert len(set(makers)) == len(makers)


@pytest.mark.parametrize(("name", "rows", "features"), [("trump", 1001, 6), ("chick", 578, 3), ("diabetes", 442, 10)])
def test_file_streams_have_their_rows(name: str, rows: int, features: int) -> None:
    """All rows, all features, every value finite, the target apart."""
    stream = load(name)
    assert (stream.rows, len(stream.features)) == (rows, features)
    assert all(np.isfinite(values).all() for values in stream.columns.values())
    assert stream.table().shape == (rows, features)
