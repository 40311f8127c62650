"""A ridge on one-hot labels, read as a linear discriminant: no learning rate, and probabilities that mean something.

Least squares on one-hot labels and Fisher's discriminant have the same directions (Hastie, Tibshirani, Friedman, "The
elements of statistical learning", 4.3), and the discounted co-moments of features and one-hot labels hold all that the
latter needs: shares, means per class, and the covariance within the classes. Where the features are no Gaussians, its
probabilities are too bold; how bold they may be is found out by their own log-loss, among BOLDNESS. At boldness 0 it
answers with the shares: the features say nothing then.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import exp, inf
from typing import Any, Final

import numpy as np

from streampiped.classes import Codes
from streampiped.learn.class_members.base import ClassInputs, ClassMember
from streampiped.learn.comoments import Comoments
from streampiped.learn.definite import solved
from streampiped.learn.members.bases import Basis, moved, width_of, with_squares
from streampiped.learn.members.ridge import FLAT, PENALTY_MIN
from streampiped.records import Array

ROWS_MIN: Final = 3  # below there is no direction to be had
BOLDNESS: Final[Array] = np.array([0.0, 0.1, 0.2, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 3.0])
BOLDNESS_MEMORY: Final = 500.0  # rows that the comparison of them remembers
LEAST: Final = -7.0  # logarithm of a probability in that comparison: one row at -20 is no reason to be timid for long
PENALTY: Final = 1.0  # rows' worth for each column, else as of a `Ridge`: 10 in all lose on 30 columns, 30 on 4
PRIOR_ROWS: Final = 1.0  # by which a class's mean is drawn to that of all


class Discriminant(ClassMember):
    """`memory` in rows: see `Comoments.merged`; `penalty` in rows for each column."""

    kind = "discriminant"

    def __init__(self, columns: int, basis: Basis, memory: float = inf, penalty: float = PENALTY) -> None:
        self.columns = columns
        self.basis: Basis = basis
        self.memory = memory
        self.penalty = penalty
        self._width = width_of(basis, columns)
        self._seen: Comoments | None = None
        self._losses: Array = np.zeros(len(BOLDNESS))
        self._solved: tuple[Array, Array, Array] | None = None  # see `_parts`; None: to be had of what was seen

    def predict(self, inputs: ClassInputs) -> Array:
        if self._seen is None or self._seen.weight < ROWS_MIN or self._classes < 2:
            return np.full((len(inputs), self._classes), np.nan)
        with np.errstate(all="ignore"):
            shares, slopes, shift = self._parts()
            evidence = np.ascontiguousarray((self._table(inputs) @ slopes + shift).T)
            return np.exp(_log_softmax(shares[:, None] + self._bold * evidence)).T

    def learn(self, inputs: ClassInputs, codes: Codes) -> bool:
        with np.errstate(all="ignore"):
            return self._learn(inputs, codes)

    def _learn(self, inputs: ClassInputs, codes: Codes) -> bool:
        block = inputs.shared(f"comoments of {self.basis}", lambda: self._block(inputs, codes))
        seen, losses = self._seen, self._losses
        if seen is not None and (more := inputs.classes - self._classes) > 0:
            seen = seen.widened(more)
        if self._seen is not None and self._seen.weight >= ROWS_MIN and self._classes >= 2:
            losses = losses * exp(-len(codes) / BOLDNESS_MEMORY) + self._lost(inputs, codes)
        seen = block if seen is None else seen.merged(block, self.memory)
        if not (np.isfinite(seen.products).all() and np.isfinite(seen.offset).all() and np.isfinite(losses).all()):
            return False
        self._seen, self._losses, self._solved = seen, losses, None
        return True

    def move(self, scale: Array, shift: Array) -> None:
        if self._seen is None:
            return
        matrix, constant = moved(self.basis, scale, shift)
        whole = np.eye(self._width + self._classes)
        whole[: self._width, : self._width] = matrix
        self._seen = self._seen.mapped(whole, np.concatenate((constant, np.zeros(self._classes))))
        self._solved = None

    def state(self) -> dict[str, Any]:
        return {"seen": self._seen.state() if self._seen else None, "losses": self._losses}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._seen = Comoments.from_state(state["seen"]) if state["seen"] is not None else None
        self._losses = np.array(state["losses"], dtype=np.float64)
        self._solved = None

    def fresh(self) -> Discriminant:
        return Discriminant(self.columns, self.basis, self.memory, self.penalty)

    def copy(self) -> Discriminant:
        twin = self.fresh()
        twin._seen, twin._losses, twin._solved = self._seen, self._losses, self._solved
        return twin

    def parameters(self) -> dict[str, Any]:
        if self._seen is None or self._seen.weight < ROWS_MIN or self._classes < 2:
            return {}
        shares, slopes, shift = self._parts()
        bold = self._bold
        return {
            "basis": self.basis,
            "slopes": (bold * slopes.T).tolist(),
            "intercepts": (shares + bold * shift).tolist(),
            "weight": self._seen.weight,
        }

    @property
    def _bold(self) -> float:
        return float(BOLDNESS[int(np.argmin(self._losses))])

    @property
    def _classes(self) -> int:
        return len(self._seen.offset) - self._width if self._seen is not None else 0

    def _table(self, inputs: ClassInputs) -> Array:
        if self.basis == "linear":
            return inputs.framed
        return inputs.shared("squares", lambda: with_squares(inputs.framed))

    def _block(self, inputs: ClassInputs, codes: Codes) -> Comoments:
        hot = np.zeros((inputs.classes, len(inputs)))
        hot[codes, np.arange(len(inputs))] = 1.0
        return Comoments.of(self._table(inputs).T, hot)

    def _parts(self) -> tuple[Array, Array, Array]:
        """Logarithms of the shares `(classes,)`, slopes `(width, classes)` and shifts `(classes,)` of what the features
        add to them."""
        if self._solved is None:
            assert self._seen is not None
            self._solved = self._solve(self._seen)
        return self._solved

    def _solve(self, seen: Comoments) -> tuple[Array, Array, Array]:
        width, weight = self._width, seen.weight
        rows = np.clip(seen.mean[width:], 0.0, 1.0) * weight  # of each class
        apart = seen.products[:width, width:]  # of class k: its rows times its mean's distance from that of all
        products = seen.products[:width, :width]
        deviation = np.sqrt(np.maximum(products.diagonal(), 0.0) / weight)
        flat = deviation <= FLAT * np.maximum(np.abs(seen.mean[:width]), FLAT)
        factor = np.where(flat, 0.0, 1.0 / np.where(flat, 1.0, deviation))
        there = rows > FLAT
        between = (apart / np.where(there, rows, np.inf)) @ apart.T
        within = (products - between) * np.outer(factor, factor / weight)
        within.reshape(-1)[:: width + 1] += max(self.penalty * width / weight, PENALTY_MIN) + flat
        distance = apart / (rows + PRIOR_ROWS) * factor[:, None]
        slopes = solved(within, distance)
        shift = -0.5 * (distance * slopes).sum(axis=0)
        slopes = slopes * factor[:, None]
        shares: Array = np.log((rows + 1.0) / (weight + len(rows)))
        return shares, slopes, np.asarray(shift - seen.mean[:width] @ slopes, dtype=np.float64)

    def _lost(self, inputs: ClassInputs, codes: Codes) -> Array:
        """The log-loss of these rows at each boldness. Of a class that is new nothing can be said."""
        shares, slopes, shift = self._parts()
        old = codes < len(shares)
        told, evidence = codes[old], np.ascontiguousarray((self._table(inputs) @ slopes + shift)[old].T)
        logits = _log_softmax(shares[:, None] + BOLDNESS[:, None, None] * evidence)
        return np.asarray(-np.maximum(logits[:, told, np.arange(len(told))], LEAST).sum(axis=1))


def _log_softmax(logits: Array) -> Array:
    """Over the last axis but one: sums over few classes that lie together in memory cost five times as much."""
    logits = logits - logits.max(axis=-2, keepdims=True)
    logits -= np.log(np.exp(logits).sum(axis=-2, keepdims=True))
    return logits
