"""Scores of a classification that can be merged: counts of who was taken for whom, and of scores by class.

Accuracy and F1 are exact. ROC AUC comes from a histogram of AUC_BINS bins: it equals that of scores rounded down to
1/1024, in which scores of one bin are ties (half a win each). Log-loss is scikit-learn's for two classes, clipped as
there; with more a wrong answer leaves its remaining probability evenly to the other known classes, since the stream
carries the probability of the predicted class alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from streampiped.classes import Codes, Label
from streampiped.measure.metrics import number
from streampiped.measure.tally import Tally
from streampiped.records import Array

AUC_BINS: Final = 1024
EPSILON: Final = float(np.finfo(np.float64).eps)  # probabilities nearer to 0 or 1 count as this, as in scikit-learn
FIGURES: Final = ("rows", "accuracy", "log_loss", "auc", "f1_macro", "f1_positive")


def log_losses(right: NDArray[np.bool_], probability: Array, known: Codes) -> Array:
    """-log of the probability given to the true class; `known`: how many classes there were at the row."""
    others = np.maximum(known, 2) - 1
    given = np.where(right, probability, (1.0 - probability) / others)
    return np.asarray(-np.log(np.clip(given, EPSILON, 1.0 - EPSILON)), dtype=np.float64)


class Confusion:
    """Who was taken for whom, and, for two classes, with which scores.

    >>> c = Confusion()
    >>> c.add(np.array([0, 1, 1]), np.array([0, 1, 0]), np.array([0.1, 0.9, 0.4]))
    >>> c.figures(["a", "b"])
    {'auc': 1.0, 'f1_macro': 0.6666666666666666, 'f1_positive': 0.6666666666666666}
    """

    __slots__ = ("scored", "scores", "table")

    def __init__(self) -> None:
        self.table = np.zeros((0, 0), dtype=np.int64)
        """[target, prediction] -> rows."""
        self.scores = np.zeros((2, AUC_BINS), dtype=np.int64)
        """Of the first two classes: rows by the score."""
        self.scored = 0
        """Rows that came with a score."""

    def add(self, targets: Codes, predictions: Codes, scores: Array | None) -> None:
        """Take in rows whose codes are known; a score that is not finite counts as none."""
        if len(targets) == 0:
            return
        self._widen(int(max(targets.max(), predictions.max())) + 1)
        size = len(self.table)
        self.table += np.bincount(targets * size + predictions, minlength=size * size).reshape(size, size)
        if scores is not None:
            fit = np.isfinite(scores) & (targets < 2)
            place = np.clip(scores[fit] * AUC_BINS, 0, AUC_BINS - 1).astype(np.intp)
            self.scores += np.bincount(targets[fit] * AUC_BINS + place, minlength=2 * AUC_BINS).reshape(2, AUC_BINS)
            self.scored += len(place)

    def merge(self, other: Confusion) -> None:
        """Become the counts over the rows of both."""
        self._widen(len(other.table))
        size = len(other.table)
        self.table[:size, :size] += other.table
        self.scores += other.scores
        self.scored += other.scored

    def figures(self, labels: Sequence[Label]) -> dict[str, Any]:
        """`auc` and `f1_positive` of two classes, the second in the labels' order being the positive one, and
        `f1_macro` over the classes that were met. None: cannot be said."""
        met, f1 = self.f1()
        two = sorted(range(2), key=lambda code: labels[code]) if len(labels) == 2 else []
        return {
            "auc": self._auc(two[1]) if two else None,
            "f1_macro": float(f1[met].mean()) if met.any() else None,
            "f1_positive": float(f1[two[1]]) if two and len(f1) == 2 and met.any() else None,
        }

    def f1(self) -> tuple[NDArray[np.bool_], Array]:
        """By code: was it met, as target or as prediction, and its F1 (0 where nothing was right)."""
        both = self.table.sum(axis=0) + self.table.sum(axis=1)
        return both > 0, 2.0 * self.table.diagonal() / np.maximum(both, 1)

    def by_class(self, labels: Sequence[Label]) -> list[dict[str, Any]]:
        """Each class with how often it was there, was predicted, and was right, in the labels' order."""
        met, f1 = self.f1()
        rows, predicted = self.table.sum(axis=1).tolist(), self.table.sum(axis=0).tolist()
        right = self.table.diagonal().tolist()
        return [
            {"class": labels[c], "rows": rows[c], "predicted": predicted[c], "right": right[c], "f1": float(f1[c])}
            for c in sorted(range(len(met)), key=lambda code: labels[code])
            if met[c]
        ]

    def state(self) -> dict[str, Any]:
        """Portable and exact: the argument of `restore`."""
        return {"table": self.table, "scores": self.scores, "scored": self.scored}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.table, self.scores = (np.array(state[name], dtype=np.int64) for name in ("table", "scores"))
        self.scored = int(state["scored"])

    def _widen(self, size: int) -> None:
        if (more := size - len(self.table)) > 0:
            self.table = np.pad(self.table, ((0, more), (0, more)))

    def _auc(self, positive: int) -> float | None:
        """The share of pairs of a positive and a negative row that the scores put in the right order."""
        good, bad = self.scores[positive], self.scores[1 - positive]
        pairs = int(good.sum()) * int(bad.sum())
        if not pairs:
            return None
        below = np.cumsum(bad) - bad
        return int((good * (2 * below + bad)).sum()) / (2 * pairs)


def confusion_of(targets: Codes, predictions: Codes, scores: Array | None) -> Confusion:
    """The counts of these rows alone."""
    result = Confusion()
    result.add(targets, predictions, scores)
    return result


def class_tallies(wrong: Array, lost: Array, spared: NDArray[np.intp]) -> tuple[Tally, Tally]:
    """Tallies of the rows that are not `spared` and of those that are, from tables of predictors and rows. In a tally
    of a classification `absolute` are rows that were wrong and `squared` is the sum of log-losses."""
    keep = np.ones(wrong.shape[1], dtype=np.bool_)
    keep[spared] = False
    return _class_tally(wrong[:, keep], lost[:, keep]), _class_tally(wrong[:, spared], lost[:, spared])


def _class_tally(wrong: Array, lost: Array) -> Tally:
    tally = Tally(len(wrong))
    if wrong.shape[1]:
        tally.rows = wrong.shape[1]
        tally.absolute, tally.squared = wrong.sum(axis=1).tolist(), lost.sum(axis=1).tolist()
    return tally


def figures_of(
    tally: Tally, predictor: int, counts: Confusion | None = None, labels: Sequence[Label] = ()
) -> dict[str, Any]:
    """FIGURES of one predictor; those that need the counts of who was taken for whom are None without them."""
    result: dict[str, Any] = dict.fromkeys(FIGURES)
    result["rows"] = tally.rows
    if tally.rows:
        result["accuracy"] = 1.0 - tally.absolute[predictor] / tally.rows
        result["log_loss"] = number(tally.squared[predictor] / tally.rows)
    return result if counts is None else result | counts.figures(labels)
