"""Scores of rows that were served, from the rows themselves: what the evaluator's report is held against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.generators import Floats

QUARANTINED = 1
"""The bit of `marks`: the label was not believed, so it is neither learned nor scored."""


@dataclass(frozen=True, slots=True)
class Figures:
    """None: cannot be said."""

    rows: int
    """That were scored."""
    mse: float | None
    r2: float | None
    r2_after: float | None
    """Over the rows behind the warm-up."""

    def ratio(self, mse: float | None) -> float | None:
        """Own squared error, as a multiple of another one."""
        return self.mse / mse if self.mse is not None and mse else None


def quarantined(served: Mapping[str, Floats], rows: int) -> NDArray[np.bool_]:
    """Which rows' labels the gate did not believe; none where nothing is marked."""
    if "marks" not in served:
        return np.zeros(rows, dtype=np.bool_)
    found: NDArray[np.bool_] = (served["marks"].astype(np.int64) & QUARANTINED) != 0
    return found


def mse_r2(labels: Floats, predictions: Floats) -> tuple[float | None, float | None]:
    """Over rows where both are finite; R2 about the mean of these labels."""
    if len(labels) < 2:
        return None, None
    errors, apart = labels - predictions, labels - labels.mean()
    return float(np.mean(errors**2)), float(1 - (errors @ errors) / (apart @ apart))


def figures(
    served: Mapping[str, Floats], labels: Floats, *, warm_up: int, leave_out: NDArray[np.bool_] | None = None
) -> Figures:
    """Against these labels, over every row whose label and prediction are finite, believed by the gate or not: what was
    served is judged, not what was thought of it. `leave_out`: rows that do not count all the same."""
    predictions = served["prediction"]
    scored = np.isfinite(labels) & np.isfinite(predictions)
    if leave_out is not None:
        scored &= ~leave_out
    late = scored & (np.arange(len(labels)) >= warm_up)
    mse, r2 = mse_r2(labels[scored], predictions[scored])
    return Figures(int(scored.sum()), mse, r2, mse_r2(labels[late], predictions[late])[1])


def guesses(labels: Floats, discount: float = 0.99) -> dict[str, Figures]:
    """Running mean, discounted mean and last value as predictors, row by row, each 0 before the first label, of the
    labels that are there. They do not wait for a batch: that makes them a little harder to beat than a model that
    does."""
    labels = labels[np.isfinite(labels)]
    count = np.arange(len(labels))
    sums = np.concatenate(([0.0], np.cumsum(labels)[:-1]))
    discounted, weight, total = np.zeros(len(labels)), 0.0, 0.0
    for row, label in enumerate(labels[:-1].tolist()):
        weight, total = discount * weight + 1.0, discount * total + label
        discounted[row + 1] = total / weight
    by = {
        "running mean": sums / np.maximum(count, 1),
        "discounted mean": discounted,
        "last value": np.concatenate(([0.0], labels[:-1])),
    }
    warm_up = max(100, int(0.05 * len(labels)))
    return {name: figures({"prediction": values}, labels, warm_up=warm_up) for name, values in by.items()}


def covered(served: Mapping[str, Floats], labels: Floats, rows: slice = slice(None)) -> float | None:
    """The share of these rows whose label lies in its interval; None when none was served."""
    if "prediction_low" not in served or "prediction_high" not in served:
        return None
    low, high, wanted = served["prediction_low"][rows], served["prediction_high"][rows], labels[rows]
    known = np.isfinite(low) & np.isfinite(high) & np.isfinite(wanted)
    return float(np.mean((low <= wanted) & (wanted <= high), where=known)) if known.any() else None
