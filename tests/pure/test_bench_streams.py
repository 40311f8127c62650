"""The streams of the benchmark are what they are said to be."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from bench.generators import friedman_drift
from bench.streams import ALL, DEVELOPMENT, REPORTED, UNSEEN, load

CASES = {
    "gra": ((300, 700), 42, 1_000),
    "gsg": ((11_000, 22_000), 2, 33_000),
    "lea": ((1_000, 2_000, 3_000), 3, 4_000),
}


@pytest.mark.parametrize("kind", CASES)
def test_drift_streams_are_rivers(kind: str) -> None:
    """The generator gives River's FriedmanDrift bit by bit."""
    synth = pytest.importorskip("river.datasets.synth", reason="River is in the extra 'bench' alone")
    position, seed, rows = CASES[kind]
    ours = friedman_drift(kind, position, seed, rows)
    for row, (x, y) in enumerate(synth.FriedmanDrift(kind, position, seed=seed).take(rows)):
        assert list(x.values()) == [ours[f"x{i}"][row] for i in range(10)]
        assert y == ours["y"][row]


def test_the_long_stream_begins_as_river_had_it() -> None:
    """The first thousand rows of a gra stream with seed 42 have a digest that was taken from River's own."""
    columns = friedman_drift("gra", (300, 700), 42, 1_000)
    rounded = np.round(np.column_stack(list(columns.values())), 6) + 0.0
    assert hashlib.sha256(rounded.tobytes()).hexdigest() == (
        "ba6254f17a8ac168efecf58e099183bb89d0c3b95d5248051e1a73cf448272ec"
    )


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
