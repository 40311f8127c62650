"""A stream of questions whose labels come later, in rows of their own that have an id and no features."""

from __future__ import annotations

import csv
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
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

    names: tuple[str, ...] = ()
    """Of classes: the labels are places in it."""

    def label(self, value: float) -> float | str | None:
        """As it stands in the stream."""
        if not self.names:
            return value
        return None if np.isnan(value) else self.names[int(value)]

    def batches(self, *, size: int = 64, text: bool = False, start: int = 0) -> Iterator[Batch]:
        """Cut into batches of `size` rows; `text`: the ids are text."""
        for first in range(start, len(self.ids), size):
            rows = slice(first, first + size)
            ids: Any = [f"id-{key}" for key in self.ids[rows].tolist()] if text else self.ids[rows]
            columns = {f"x{n}": column for n, column in enumerate(self.features[rows].T)}
            spans = (Span("s", first, len(self.labels[rows])),)
            told = self.labels[rows]
            labels: Any = [self.label(value) for value in told.tolist()] if self.names else told
            yield Batch.build({**columns, "y": labels, "id": ids}, spans=spans)

    def write_csv(self, path: Path) -> None:
        """As a file with a header; what is missing is empty."""
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id", *(f"x{n}" for n in range(self.features.shape[1])), "y"])
            for key, features, label in zip(self.ids, self.features, self.labels, strict=True):
                told = label if not self.names else self.label(label)
                writer.writerow([int(key), *map(_cell, features), _cell(told)])


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
    return _told_late(x, y, delay, chance, answered, repeated)


def late_classes(
    questions: int, delay: float, *, seed: int = 1, answered: float = 0.9, repeated: float = 0.05, drift: int = 0
) -> Late:
    """As `late_labels`, of three classes about centres of their own; the third comes after a third of the questions,
    and from question `drift` on the first two have changed places."""
    rng, chance = np.random.default_rng(seed), random.Random(seed)
    y = np.where(
        np.arange(questions) < questions // 3, rng.integers(0, 2, size=questions), rng.integers(0, 3, questions)
    )
    centres = np.array([[-1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 3.0, 0.0]])
    x = centres[y] + 0.6 * rng.normal(size=(questions, 3))
    if drift:
        y[drift:] = np.array([1, 0, 2])[y[drift:]]
    late = _told_late(x, y.astype(np.float64), delay, chance, answered, repeated)
    return replace(late, names=("zebra", "ant", "mole"))


def _told_late(x: Array, y: Array, delay: float, chance: random.Random, answered: float, repeated: float) -> Late:
    questions = len(y)
    rows: list[tuple[float, int, bool]] = [(float(key), key, False) for key in range(questions)]
    for key in range(questions):
        if chance.random() < answered:
            times = 2 if chance.random() < repeated else 1
            rows += [(key + 1e-9 + chance.expovariate(1 / delay), key, True) for _ in range(times)]
    rows.sort()
    ids, told = np.array([row[1] for row in rows]), np.array([row[2] for row in rows])
    return Late(ids, np.where(told[:, None], np.nan, x[ids]), np.where(told, y[ids], np.nan))


def _cell(value: float | str | None) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None or np.isnan(value) else repr(float(value))
