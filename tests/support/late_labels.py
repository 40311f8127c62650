"""A stream of questions whose labels come later, in rows of their own that have an id and no features."""

from __future__ import annotations

import csv
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from streampiped.records import Array, Batch, IntArray, Span

COEFFICIENTS = (1.0, -2.0, 0.5)


@dataclass(frozen=True)
class Late:
    """Row by row: `ids`, `features` (NaN in a label's row) and `labels` (NaN in a question's)."""

    ids: IntArray
    features: Array
    labels: Array

    def batches(self, *, size: int = 64, text: bool = False, start: int = 0) -> Iterator[Batch]:
        """Cut into batches of `size` rows; `text`: the ids are text."""
        for first in range(start, len(self.ids), size):
            rows = slice(first, first + size)
            ids: Any = [f"id-{key}" for key in self.ids[rows].tolist()] if text else self.ids[rows]
            columns = {f"x{n}": column for n, column in enumerate(self.features[rows].T)}
            spans = (Span("s", first, len(self.labels[rows])),)
            yield Batch.build({**columns, "y": self.labels[rows], "id": ids}, spans=spans)

    def write_csv(self, path: Path) -> None:
        """As a file with a header; what is missing is empty."""
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id", *(f"x{n}" for n in range(self.features.shape[1])), "y"])
            for key, features, label in zip(self.ids, self.features, self.labels, strict=True):
                numbers = ("" if np.isnan(value) else repr(float(value)) for value in (*features, label))
                writer.writerow([int(key), *numbers])


def late_labels(
    questions: int, delay: float, *, seed: int = 1, answered: float = 0.9, repeated: float = 0.05, drift: int = 0
) -> Late:
    """Labels come exponentially late, `delay` questions on average; a share is never answered, a share twice. From
    question `drift` on the labels' law is another."""
    rng, chance = np.random.default_rng(seed), random.Random(seed)
    x = rng.normal(size=(questions, len(COEFFICIENTS)))
    y = 10 + x @ np.array(COEFFICIENTS) + 0.5 * rng.normal(size=questions)
    if drift:
        y[drift:] = 10 - 2 * (y[drift:] - 10)
    rows: list[tuple[float, int, bool]] = [(float(key), key, False) for key in range(questions)]
    for key in range(questions):
        if chance.random() < answered:
            times = 2 if chance.random() < repeated else 1
            rows += [(key + 1e-9 + chance.expovariate(1 / delay), key, True) for _ in range(times)]
    rows.sort()
    ids, told = np.array([row[1] for row in rows]), np.array([row[2] for row in rows])
    return Late(ids, np.where(told[:, None], np.nan, x[ids]), np.where(told, y[ids], np.nan))
