"""Class labels as numbers, and what can be guessed of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from streampiped.records import Array

CLASSES_MAX: Final = 100  # a confusion matrix of 80 kB; a target with more is no class
UNKNOWN: Final = -1
STRETCH: Final = 4096  # rows counted at a time: a table of rows and classes

Label: TypeAlias = int | str
Codes: TypeAlias = NDArray[np.intp]


class Classes:
    """Labels in the order of their appearance, each with a number from 0 on: its code.

    Targets and predictions are met row by row, the target first: so codes do not depend on how a stream is cut.

    >>> c = Classes()
    >>> [v.tolist() for v in c.codes(["b", None, "a"], ["a", "b", "a"])]
    [[0, -1, 1], [1, 0, 1]]
    """

    __slots__ = ("_codes",)

    def __init__(self, labels: Sequence[Label] = ()) -> None:
        self._codes: dict[Label, int] = {label: code for code, label in enumerate(labels)}

    @property
    def labels(self) -> list[Label]:
        """By code."""
        return list(self._codes)

    def codes(self, targets: Any, predictions: Any) -> tuple[Codes, Codes]:
        """The codes of two columns (int arrays or lists of text); UNKNOWN for None, and for a class too many."""
        if isinstance(targets, np.ndarray):
            return self._of_numbers(targets, predictions)
        both = [label for pair in zip(targets, predictions, strict=True) for label in pair]
        self._meet(both)
        found = self.met(both)
        return found[::2], found[1::2]

    def met(self, labels: Sequence[Label | None]) -> Codes:
        """The codes of these; UNKNOWN for what was not met."""
        get = self._codes.get
        return np.array([UNKNOWN if label is None else get(label, UNKNOWN) for label in labels], dtype=np.intp)

    def _of_numbers(self, targets: NDArray[np.int64], predictions: NDArray[np.int64]) -> tuple[Codes, Codes]:
        both = np.column_stack((targets, predictions)).ravel()
        values, first, place = np.unique(both, return_index=True, return_inverse=True)
        self._meet(values[np.argsort(first)].tolist())
        found = np.array([self._codes.get(value, UNKNOWN) for value in values.tolist()], dtype=np.intp)[place.ravel()]
        return found[::2], found[1::2]

    def _meet(self, labels: Sequence[Label | None]) -> None:
        for label in labels:
            if label is not None and label not in self._codes and len(self._codes) < CLASSES_MAX:
                self._codes[label] = len(self._codes)


class ClassGuesses:
    """The most frequent class and the last class as predictions, both test-then-train and row by row.

    >>> g = ClassGuesses()
    >>> [v.tolist() for v in g.follow(np.array([1, 0, 0, 0]), np.array([2, 2, 2, 2]))][:2]
    [[-1, 1, 0, 0], [-1, 1, 0, 0]]
    """

    __slots__ = ("_counts", "_last", "_pairs", "_stays")

    def __init__(self) -> None:
        self._pairs = self._stays = 0  # rows with one before them, and those of its class
        self._counts = np.zeros(0, dtype=np.int64)
        self._last = UNKNOWN

    def follow(self, targets: Codes, known: Codes) -> tuple[Codes, Codes, Array, Array]:
        """(most frequent class, last class, the probability that the classes' shares gave to the target, and that the
        last class did) before each target, which is then taken in. Of equally frequent classes the one that appeared
        first. The shares are Laplace's (n + 1) / (all + classes), over as many classes as were `known` at the row, at
        least two. The last class is as probable as it has been that a row repeats the one before, by Laplace's rule,
        and the others share the rest evenly."""
        by_prior, shares = np.empty(len(targets), dtype=np.intp), np.empty(len(targets))
        by_last = np.concatenate(([self._last], targets[:-1])).astype(np.intp) if len(targets) else by_prior
        for start in range(0, len(targets), STRETCH):
            part = targets[start : start + STRETCH]
            rows = np.arange(len(part))
            width = max(len(self._counts), int(part.max()) + 1)
            counts = np.zeros((len(part) + 1, width), dtype=np.int64)
            counts[0, : len(self._counts)] = self._counts
            counts[rows + 1, part] = 1
            np.cumsum(counts, axis=0, out=counts)
            before, seen = counts[:-1], counts[0].sum() + rows
            by_prior[start : start + STRETCH] = np.where(seen > 0, before.argmax(axis=1), UNKNOWN)
            classes = np.maximum(known[start : start + STRETCH], 2)
            shares[start : start + STRETCH] = (before[rows, part] + 1) / (seen + classes)
            self._counts = counts[-1].copy()
        if len(targets):
            self._last = int(targets[-1])
        return by_prior, by_last, shares, self.stayed(targets, by_last, known)

    def stayed(self, targets: Codes, by_last: Codes, known: Codes) -> Array:
        """The probability that the last class (UNKNOWN: there was none) gave to each target, which is then taken in.
        `by_last`: the last when the row was predicted, which is long ago where labels come late."""
        some, same, classes = by_last != UNKNOWN, targets == by_last, np.maximum(known, 2)
        stays, pairs = np.cumsum(same) - same, np.cumsum(some) - some
        stay = (self._stays + stays + 1) / (self._pairs + pairs + 2)
        self._stays += int(np.count_nonzero(same))
        self._pairs += int(np.count_nonzero(some))
        given = np.where(same, stay, (1.0 - stay) / (classes - 1))
        return np.asarray(np.where(some, given, 1.0 / classes))

    def state(self) -> dict[str, Any]:
        """Portable and exact: the argument of `restore`."""
        return {"counts": self._counts, "last": self._last, "pairs": self._pairs, "stays": self._stays}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._counts, self._last = np.array(state["counts"], dtype=np.int64), int(state["last"])
        self._pairs, self._stays = int(state["pairs"]), int(state["stays"])
