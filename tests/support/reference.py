"""The whole pipeline's learning as one plain loop: scikit-learn's SGDRegressor and numpy, nothing of ours but the
choice of held-out rows, which is handed in. What the daemon reports must equal what this gives.

Left out is what a clean stream does not meet: missing values, and the rebasing of a column after a lasting shift.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import SGDRegressor

LIMIT, LIMIT_AFTER = 10.0, 100  # standard deviations, and rows before they are known well enough
DATA = Path(__file__).parent.parent / "data"
STREAMS = {"chick_weights.csv": "weight", "trump_approval.csv": "five_thirty_eight"}
"""File in tests/data -> name of its target."""

Floats = NDArray[np.float64]


def read_stream(name: str) -> dict[str, Floats]:
    """Columns of a CSV file in tests/data."""
    with (DATA / name).open(newline="") as file:
        header, *rows = list(csv.reader(file))
    return {column: np.array([float(row[i]) for row in rows]) for i, column in enumerate(header)}


def batches_of(rows: int, sizes: int | Sequence[int]) -> list[slice]:
    """Batches of one size, or of the given sizes with the last one repeated."""
    cycle = [sizes] if isinstance(sizes, int) else list(sizes)
    result: list[slice] = []
    start = 0
    while start < rows:
        size = cycle[min(len(result), len(cycle) - 1)]
        result.append(slice(start, min(rows, start + size)))
        start += size
    return result


def reference_scores(
    columns: Mapping[str, Floats],
    target: str,
    sizes: int | Sequence[int],
    *,
    held_out: NDArray[np.bool_],
    seed: int,
    warm_up: bool = True,
) -> dict[str, float]:
    """mse and r2 over all rows, test-then-train. `seed` is the trainer's own, `held_out` the rows never learned."""
    table = np.column_stack([values for name, values in columns.items() if name != target])
    wanted = columns[target]
    predictions = np.zeros(len(wanted))
    model = SGDRegressor(learning_rate="constant", eta0=0.01, random_state=seed)
    fitted = False
    learned = np.zeros((0, 1))
    seen = np.zeros((0, table.shape[1]))
    for batch in batches_of(len(wanted), sizes):
        features = _limited(table[batch], seen)
        seen = np.concatenate((seen, features))
        mean, deviation = _moments(seen)
        scaled = np.where(deviation > 0, (features - mean) / np.where(deviation > 0, deviation, 1.0), 0.0)
        scaled = np.clip(scaled, -LIMIT, LIMIT)
        for block in _blocks(batch, warm_up):
            rows = np.ascontiguousarray(scaled[block.start - batch.start : block.stop - batch.start])
            center, spread = _moments(learned)
            predictions[block] = center[0]
            if fitted:
                predictions[block] += np.clip(model.predict(rows), -LIMIT, LIMIT) * spread[0]
            keep = ~held_out[block]
            if not keep.any():
                continue
            targets = _limited(wanted[block][keep][:, None], learned)
            learned = np.concatenate((learned, targets))
            center, spread = _moments(learned)
            model.partial_fit(rows[keep], (targets[:, 0] - center[0]) / (spread[0] or 1.0))
            fitted = True
    errors = wanted - predictions
    apart = wanted - wanted.mean()
    return {"mse": float(np.mean(errors**2)), "r2": float(1 - np.sum(errors**2) / np.sum(apart**2))}


def _blocks(batch: slice, warm_up: bool) -> list[slice]:
    """A batch is learned in blocks of at most an eighth of the rows before them."""
    result: list[slice] = []
    start = batch.start
    while start < batch.stop:
        stop = min(batch.stop, start + max(1, start // 8)) if warm_up else batch.stop
        result.append(slice(start, stop))
        start = stop
    return result


def _limited(rows: Floats, before: Floats) -> Floats:
    """What is too far from all rows before counts as being at the limit."""
    mean, deviation = _moments(before)
    reach = np.where(deviation > 0, LIMIT * deviation, np.inf)
    return np.clip(rows, mean - reach, mean + reach) if len(before) >= LIMIT_AFTER else rows


def _moments(rows: Floats) -> tuple[Floats, Floats]:
    """Mean and standard deviation of all rows so far, from scratch; a constant column has exactly 0."""
    if len(rows) == 0:
        return np.zeros(rows.shape[1]), np.zeros(rows.shape[1])
    constant = rows.min(axis=0) == rows.max(axis=0)
    mean = np.where(constant, rows[0], rows.mean(axis=0))
    return mean, np.where(constant, 0.0, np.sqrt(np.mean((rows - mean) ** 2, axis=0)))
