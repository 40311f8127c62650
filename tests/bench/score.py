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


def figures(served: Mapping[str, Floats], labels: Floats, *, warm_up: int) -> Figures:
    """Against these labels, over the rows that were scored: label finite and believed, prediction finite."""
    predictions = served["prediction"]
    scored = np.isfinite(labels) & np.isfinite(predictions) & ~quarantined(served, len(labels))
    late = scored & (np.arange(len(labels)) >= warm_up)
    mse, r2 = mse_r2(labels[scored], predictions[scored])
    return Figures(int(scored.sum()), mse, r2, mse_r2(labels[late], predictions[late])[1])
