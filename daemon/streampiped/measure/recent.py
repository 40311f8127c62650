"""Exponentially weighted scores: how good the model is now."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite, sqrt
from typing import Any, Final

import numpy as np

from streampiped.measure.metrics import Scores, number
from streampiped.records import Array

RECENT_ROWS: Final = 1000
"""Rows that the exponentially weighted scores remember, about."""
_FADE: Final = 1.0 - 1.0 / RECENT_ROWS
STRETCH: Final = 4096  # rows at a time
_FADES: Final = (_FADE ** np.arange(STRETCH))[::-1].copy()


class Recent:
    """Scores in which a row counts 0.999 times what the next one does."""

    __slots__ = ("absolute", "m2", "mean", "rows", "squared", "weight")

    def __init__(self) -> None:
        self.rows = 0
        self.weight = 0.0
        self.mean = 0.0
        self.m2 = 0.0
        self.squared = 0.0
        self.absolute = 0.0

    def add(self, targets: Array, predictions: Array) -> None:
        """Score rows whose targets and predictions are finite."""
        for start in range(0, len(targets), STRETCH):
            self._add(targets[start : start + STRETCH], predictions[start : start + STRETCH])

    def _add(self, targets: Array, predictions: Array) -> None:
        rows = len(targets)
        weights, fade = _FADES[-rows:], _FADE**rows
        errors = np.abs(targets - predictions)
        lost = weights * errors
        self.absolute = fade * self.absolute + float(lost.sum())
        lost *= errors
        self.squared = fade * self.squared + float(lost.sum())
        origin = self.mean if self.rows else float(targets[0])
        weight = RECENT_ROWS * (1.0 - fade)
        apart = targets - origin
        offset = float((weights * apart).sum()) / weight
        apart -= offset
        old, total = fade * self.weight, fade * self.weight + weight
        apart *= apart
        apart *= weights
        self.m2 = fade * self.m2 + float(apart.sum()) + offset * offset * (old * (weight / total))
        self.mean = origin + offset * (weight / total)
        self.weight = total
        self.rows += rows
        if not isfinite(self.squared + self.m2):  # an absurd row would be remembered for ever
            self.restore(Recent().state())

    def values(self) -> dict[str, Any]:
        """As those of `Scores`; `rows` is the weight of all, in rows."""
        if not self.rows:
            return Scores().values()
        scores = Scores(self.rows, 0.0, 0.0, self.m2, self.squared, self.absolute).values()
        mse = number(self.squared / self.weight)
        means = {"mse": mse, "rmse": None if mse is None else sqrt(mse), "mae": number(self.absolute / self.weight)}
        return {**scores, **means, "rows": round(self.weight)}

    def state(self) -> dict[str, Any]:
        """Portable and exact: the argument of `restore`."""
        return {name: getattr(self, name) for name in self.__slots__}

    def restore(self, state: Mapping[str, Any]) -> None:
        for name in self.__slots__:
            setattr(self, name, state[name])
