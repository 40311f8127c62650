"""Least squares with a ridge, solved exactly from discounted co-moments: no learning rate, no epochs, mergeable.

Hoerl and Kennard, "Ridge regression: biased estimation for nonorthogonal problems" (1970), on standardised columns,
so that the penalty means the same whatever their units are.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Any, Final

import numpy as np

from streampiped.learn.comoments import Comoments
from streampiped.learn.definite import solved
from streampiped.learn.members.base import Inputs, Member
from streampiped.learn.members.bases import Basis, anchor_of, columns_of, moved, usable_of
from streampiped.records import Array

PENALTY: Final = 1.0  # rows' worth: with n rows seen the ridge is PENALTY / n of a standardised column's variance
PENALTY_MIN: Final = 1e-9  # of a variance: two columns that are the same leave no matrix without it
FLAT: Final = 1e-10  # deviation over the largest of |mean| and deviation: what is flatter is a constant, and left out
ROWS_MIN: Final = 3  # below there is no slope to be had


class Ridge(Member):
    """`memory` in rows: see `Comoments.merged`."""

    kind = "ridge"

    def __init__(self, basis: Basis = "linear", memory: float = inf, penalty: float = PENALTY) -> None:
        self.basis: Basis = basis
        self.looks_back = basis == "lagged"
        self.memory = memory
        self.penalty = penalty
        self._seen: Comoments | None = None
        self._solved: tuple[Array, float] | None = None  # slopes and intercept; None: to be had of what was seen

    def predict(self, inputs: Inputs) -> Array:
        if self._seen is None or self._seen.weight < ROWS_MIN:
            return np.full(len(inputs), np.nan)
        slopes, shift = self._solved or self._solve(self._seen)
        result: Array = columns_of(self.basis, inputs) @ slopes
        result += shift
        return result + anchor_of(self.basis, inputs)

    def learn(self, inputs: Inputs, labels: Array) -> bool:
        block = inputs.shared(f"comoments of {self.basis}", lambda: self._block(inputs, labels))
        if block is None:
            return True
        seen = block if self._seen is None else self._seen.merged(block, self.memory)
        if not (np.isfinite(seen.products).all() and np.isfinite(seen.offset).all()):
            return False
        self._seen, self._solved = seen, None
        return True

    def move(self, scale: Array, shift: Array) -> None:
        if self._seen is None:
            return
        matrix, constant = moved(self.basis, scale, shift)
        width = len(constant)
        whole = np.eye(width + 1)
        whole[:width, :width] = matrix
        self._seen = self._seen.mapped(whole, np.append(constant, 0.0))
        self._solved = None

    def state(self) -> dict[str, Any]:
        return {"seen": self._seen.state() if self._seen else None}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._seen = Comoments.from_state(state["seen"]) if state["seen"] is not None else None
        self._solved = None

    def fresh(self) -> Ridge:
        return Ridge(self.basis, self.memory, self.penalty)

    def copy(self) -> Ridge:
        twin = self.fresh()
        twin._seen, twin._solved = self._seen, self._solved
        return twin

    def parameters(self) -> dict[str, Any]:
        if self._seen is None:
            return {}
        slopes, shift = self._solved or self._solve(self._seen)
        return {"basis": self.basis, "slopes": slopes.tolist(), "intercept": shift, "weight": self._seen.weight}

    def _block(self, inputs: Inputs, labels: Array) -> Comoments | None:
        """None: no row has what this basis is made of."""
        usable = usable_of(self.basis, inputs)
        if not usable.all():
            if not usable.any():
                return None
            inputs, labels = inputs[usable], labels[usable]
        answers = labels - anchor_of(self.basis, inputs)
        return Comoments.of(columns_of(self.basis, inputs).T, answers[None, :])

    def _solve(self, seen: Comoments) -> tuple[Array, float]:
        mean = seen.mean
        products = seen.products[:-1, :-1]
        deviation = np.sqrt(np.maximum(products.diagonal(), 0.0) / seen.weight)
        flat = deviation <= FLAT * np.maximum(np.abs(mean[:-1]), FLAT)
        factor = np.where(flat, 0.0, 1.0 / np.where(flat, 1.0, deviation))
        scaled = products * factor[:, None]
        scaled *= factor / seen.weight
        scaled.reshape(-1)[:: len(scaled) + 1] += max(self.penalty / seen.weight, PENALTY_MIN) + flat
        slopes = solved(scaled, seen.products[:-1, -1] * (factor / seen.weight)) * factor
        self._solved = slopes, float(mean[-1] - mean[:-1] @ slopes)
        return self._solved
