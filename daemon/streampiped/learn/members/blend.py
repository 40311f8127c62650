"""The guesses together: their mean with weights that follow how each of them has fared.

To choose among guesses is dear on a short stream, where the choice goes back and forth; a mean of them is seldom worse
than the best, and often better than all. The weights are those of Bernstein online aggregation (Wintenberger, "Optimal
learning with Bernstein online aggregation", 2017): exponential in the *regret*, what was lost by following the blend
rather than that guess (by the derivative of the loss), less its square, at a rate for each guess that goes by the
squares so far. Regrets are counted in the largest of each guess, so that nothing depends on the label's unit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp, isfinite, log, sqrt
from typing import Any, Final

import numpy as np

from streampiped.learn.members.base import Inputs, Member
from streampiped.learn.past import MEMORIES
from streampiped.records import Array

GUESSES: Final = 2 + len(MEMORIES)  # the mean, the discounted ones, the newest label
PARTS: Final = 8  # of a block, after each of which the weights follow
LONG_ROWS: Final = 256  # of a longer block two parts are enough: it comes late, when weights hardly move any more
PART_ROWS_MIN: Final = 8
RATE: Final = sqrt(log(GUESSES))
LEAST: Final = 1e-300  # a regret below is none: of numbers that have lost digits no rate could be made
STICKY: Final = 0.5  # weight of the newest label from which the blend goes by that


class Blend(Member):
    """As long as nothing tells the guesses apart it is the newest label: of labels that stay where they are that is the
    only guess which follows when one day they do not."""

    kind = "blend"
    trivial = True
    stands_for_guesses = True

    def __init__(self) -> None:
        self._weights = [0.0] * (GUESSES - 1) + [1.0]
        # Of each guess: the largest regret so far, and in its unit the regrets' sum and that of their squares.
        self._largest, self._regret, self._squares = ([0.0] * GUESSES for _ in range(3))

    @property
    def looks_back(self) -> bool:  # type: ignore[override]  # what it goes by changes as it learns
        return self._weights[-1] > STICKY

    def predict(self, inputs: Inputs) -> Array:
        looks = inputs.looks
        mean, *discounted, newest = self._weights
        if newest == 1.0:
            return looks.lags[:, 0]
        answer = mean * looks.mean + newest * looks.lags[:, 0]
        for place, weight in enumerate(discounted):
            answer += weight * looks.discounted[:, place]
        return answer

    def learn(self, inputs: Inputs, labels: Array) -> bool:
        told = inputs.looks.count > 0
        looks, labels = (inputs.looks, labels) if told.all() else (inputs.looks[told], labels[told])
        if not len(labels):
            return True
        guesses = np.column_stack((looks.mean, looks.discounted, looks.lags[:, 0]))
        size = max(PART_ROWS_MIN, -(-len(labels) // (PARTS if len(labels) <= LONG_ROWS else 2)))
        for start in range(0, len(labels), size):
            part = guesses[start : start + size]
            answer = part @ self._weights
            apart = (part - answer[:, None]) * (answer - labels[start : start + size])[:, None]
            if not self._take(apart):
                return False
        return True

    def _take(self, apart: Array) -> bool:
        """The derivatives of the loss `(rows, guesses)`, each the regret with its sign turned."""
        sizes = np.abs(apart).max(axis=0)
        sizes = np.where(sizes < LEAST, 0.0, sizes).tolist()
        largest = [max(before, size) for before, size in zip(self._largest, sizes, strict=True)]
        if not all(map(isfinite, largest)):
            return False
        unit = [size or 1.0 for size in largest]
        apart = apart / unit
        lost, squares = apart.sum(axis=0).tolist(), np.square(apart).sum(axis=0).tolist()
        shrunk = [before / now for before, now in zip(self._largest, unit, strict=True)]
        self._largest = largest
        self._squares = [s * k * k + new for s, k, new in zip(self._squares, shrunk, squares, strict=True)]
        rates = [min(1.0, RATE / sqrt(s)) if s else 1.0 for s in self._squares]
        regret = zip(self._regret, shrunk, lost, rates, squares, strict=True)
        self._regret = [r * k - loss - rate * square for r, k, loss, rate, square in regret]
        if all(largest[:-1]):
            self._weights = self._weighted(rates)
        return True

    def _weighted(self, rates: Sequence[float]) -> list[float]:
        """Nothing was ever lost by the blend's not having followed a guess without a largest regret: its rate is the
        quickest of the others."""
        speeds = [rate / size if size else 0.0 for rate, size in zip(rates, self._largest, strict=True)]
        quickest = max(speeds)
        powers = [
            rate * regret + log(speed or quickest)
            for rate, regret, speed in zip(rates, self._regret, speeds, strict=True)
        ]
        most = max(powers)
        parts = [exp(power - most) for power in powers]
        whole = sum(parts)
        return [part / whole for part in parts]

    def state(self) -> dict[str, Any]:
        return {
            "weights": self._weights,
            "largest": self._largest,
            "regret": self._regret,
            "squares": self._squares,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self._weights, self._largest = list(state["weights"]), list(state["largest"])
        self._regret, self._squares = list(state["regret"]), list(state["squares"])

    def fresh(self) -> Blend:
        return Blend()

    def parameters(self) -> dict[str, Any]:
        mean, *discounted, newest = self._weights
        return {"mean": mean, **{f"mean_{m:.0f}": w for m, w in zip(MEMORIES, discounted, strict=True)}, "last": newest}
