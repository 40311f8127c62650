"""Streams that are made: each a function of its seed alone, the same on every machine.

`friedman_drift` gives the very numbers of River's `synth.FriedmanDrift`, and of `synth.Friedman` where there is no
position; tests/stages/test_bench_streams.py holds them to River where it is installed and to a digest where it is not.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Row = Sequence[float]


def _first(x: Row) -> float:
    return 10 * math.sin(math.pi * x[0] * x[1]) + 20 * (x[2] - 0.5) ** 2 + 10 * x[3] + 5 * x[4]


def _swapped(x: Row) -> float:
    return 10 * math.sin(math.pi * x[3] * x[5]) + 20 * (x[1] - 0.5) ** 2 + 10 * x[0] + 5 * x[2]


def _gradual_first(x: Row) -> float:
    return 10 * math.sin(math.pi * x[3] * x[4]) + 20 * (x[1] - 0.5) ** 2 + 10 * x[0] + 5 * x[2]


def _gradual_second(x: Row) -> float:
    return 10 * math.sin(math.pi * x[1] * x[4]) + 20 * (x[3] - 0.5) ** 2 + 10 * x[2] + 5 * x[0]


def gra(position: Sequence[int], seed: int) -> Callable[[Row, int], float]:
    """Global recurring abrupt drift: another law between the two positions."""
    return lambda x, row: _swapped(x) if position[0] <= row < position[1] else _first(x)


def gsg(position: Sequence[int], seed: int, window: int = 10_000) -> Callable[[Row, int], float]:
    """Global and slow gradual drift: in a window after each position both laws hold in turn, by chance."""
    laws = (_first, _gradual_first, _gradual_second)
    coin = random.Random(seed)

    def law(x: Row, row: int) -> float:
        regime = sum(row >= at for at in position)
        if regime and row < position[regime - 1] + window and coin.getrandbits(1):
            regime -= 1
        return laws[regime](x)

    return law


def lea(position: Sequence[int], seed: int) -> Callable[[Row, int], float]:
    """Local expanding abrupt drift: two corners of the space, wider after each of three positions, have other laws."""

    def law(x: Row, row: int) -> float:
        regime = sum(row >= at for at in position)
        low = x[1] < 0.3 and x[2] < 0.3 and (regime > 2 or x[3] > 0.7) and (regime > 1 or x[4] < 0.3)
        if regime and low:
            return 10 * x[0] * x[1] + 20 * (x[2] - 0.5) + 10 * x[3] + 5 * x[4]
        high = x[1] > 0.7 and x[2] > 0.7 and (regime > 2 or x[3] < 0.3) and (regime > 1 or x[4] > 0.7)
        if regime and high:
            return 10 * math.cos(x[0] * x[1]) + 20 * (x[2] - 0.5) + math.exp(x[3]) + 5 * x[4] ** 2
        return _first(x)

    return law


def recurring(position: Sequence[int], seed: int) -> Callable[[Row, int], float]:
    """The two laws of `gra` in turn, changing at every position."""
    return lambda x, row: _swapped(x) if sum(row >= at for at in position) % 2 else _first(x)


LAWS = {"recurring": recurring, "gra": gra, "gsg": gsg, "lea": lea}


def friedman_drift(kind: str, position: Sequence[int], seed: int, rows: int) -> dict[str, Floats]:
    """Columns x0 to x9, uniform in [0, 1), and y; no position: no drift."""
    rng = random.Random(seed)
    law = LAWS[kind](position, seed) if position else lambda x, row: _first(x)
    table = np.empty((rows, 11))
    for row in range(rows):
        x = [rng.random() for _ in range(10)]
        table[row, :10] = x
        table[row, 10] = law(x, row) + rng.gauss(0, 1)
    return {**{f"x{i}": table[:, i] for i in range(10)}, "y": table[:, 10]}


def walk(seed: int, rows: int, features: int = 5) -> dict[str, Floats]:
    """A random walk, and features that know nothing of it: the last value cannot be beaten."""
    random_ = np.random.default_rng(seed)
    x = random_.standard_normal((rows, features))
    return _named(x, np.cumsum(random_.standard_normal(rows)))


def drifting(seed: int, rows: int, features: int = 6) -> dict[str, Floats]:
    """A linear law whose coefficients walk."""
    random_ = np.random.default_rng(seed)
    x = random_.standard_normal((rows, features))
    coefficients = random_.standard_normal(features) + np.cumsum(
        random_.standard_normal((rows, features)) * 0.03, axis=0
    )
    return _named(x, (x * coefficients).sum(axis=1) + 0.5 * random_.standard_normal(rows))


def linear(seed: int, rows: int, features: int = 8, drift_at: int | None = None) -> dict[str, Floats]:
    """A linear law with noise 0.5; from `drift_at` on another one."""
    random_ = np.random.default_rng(seed)
    x = random_.standard_normal((rows, features))
    before, after = random_.standard_normal((2, features))
    y = (x * before).sum(axis=1)
    if drift_at is not None:
        y[drift_at:] = (x[drift_at:] * after).sum(axis=1)
    return _named(x, y + 0.5 * random_.standard_normal(rows))


def noise(seed: int, rows: int, features: int = 5) -> dict[str, Floats]:
    """Nothing to learn: a target far from 0, independent of everything. The mean cannot be beaten."""
    random_ = np.random.default_rng(seed)
    return _named(random_.standard_normal((rows, features)), 100 + 15 * random_.standard_normal(rows))


def steps(seed: int, rows: int, length: int = 700) -> dict[str, Floats]:
    """A level that jumps every `length` rows, and features that do not say when."""
    random_ = np.random.default_rng(seed)
    levels = np.repeat(random_.normal(0, 50, -(-rows // length)), length)[:rows]
    return _named(random_.standard_normal((rows, 4)), levels + random_.standard_normal(rows))


def heavy(seed: int, rows: int) -> dict[str, Floats]:
    """A linear law under noise with Student's t distribution of 2.5 degrees: its outliers own the squared error."""
    random_ = np.random.default_rng(seed)
    x = random_.lognormal(0, 0.7, (rows, 5))
    return _named(x, x @ np.array([3.0, -2.0, 1.0, 0.5, 0.0]) + random_.standard_t(2.5, rows))


def season(seed: int, rows: int) -> dict[str, Floats]:
    """Two seasons and a trend with autoregressive noise; the only feature is the time."""
    random_ = np.random.default_rng(seed)
    time = np.arange(rows, dtype=np.float64)
    rest = np.zeros(rows)
    for row in range(1, rows):
        rest[row] = 0.8 * rest[row - 1] + random_.standard_normal()
    y = 200 + 0.01 * time + 20 * np.sin(2 * np.pi * time / 24) + 8 * np.sin(2 * np.pi * time / 168) + rest
    return {"time": time, "hour": time % 24, "y": y}


def _named(x: Floats, y: Floats) -> dict[str, Floats]:
    return {**{f"x{i}": np.ascontiguousarray(x[:, i]) for i in range(x.shape[1])}, "y": y}
