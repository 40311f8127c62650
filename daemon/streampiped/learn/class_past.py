"""What the classes before a row say of its own: how frequent each was, lately and ever, and which was the last one.

The twin of `past.py`: a row's class is known before the next row comes, however the stream is cut into batches.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from streampiped.classes import UNKNOWN, Codes
from streampiped.records import Array

MEMORIES: Final = (10.0, 100.0)
"""Rows that the discounted shares remember: the weight of a class falls to 1/e over so many later ones."""
STAY_MEMORY: Final = 100.0  # rows that the share of repeats remembers
STRETCH: Final = 64  # rows summed at once: exp(64 / 10) is 600, and costs no digits


@dataclass(frozen=True, slots=True)
class ClassLooks:
    """What each of some rows may know, of K classes. `count` `(rows,)`: labels before it; `met` `(rows,)`: classes
    among these, whose codes are below; `shares` `(rows, K)`, and `discounted` `(rows, len(MEMORIES), K)`; `last`
    `(rows,)`: the newest class, UNKNOWN before the first; `stay` `(rows,)`: how often a class was that of the row
    before, discounted."""

    count: Array
    met: Codes
    shares: Array
    discounted: Array
    last: Codes
    stay: Array

    def __getitem__(self, rows: slice | NDArray[np.bool_]) -> ClassLooks:
        return ClassLooks(*(getattr(self, name)[rows] for name in ClassLooks.__slots__))


class ClassPast:
    """The classes so far; codes come in the order of their first appearance.

    >>> past = ClassPast()
    >>> looks = past.follow(np.array([0, -1, 1, 1]))
    >>> looks.shares.tolist(), looks.last.tolist(), looks.met.tolist()
    ([[0.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.5, 0.5]], [-1, 0, 0, 1], [0, 1, 1, 2])
    """

    __slots__ = ("_counts", "_discounted", "_last", "_stay")

    def __init__(self) -> None:
        self._counts: Array = np.zeros(0)
        self._discounted: Array = np.zeros((len(MEMORIES), 0))
        self._last = UNKNOWN
        self._stay = 0.5

    @property
    def rows(self) -> int:
        """Labels that were known."""
        return int(self._counts.sum())

    @property
    def classes(self) -> int:
        return len(self._counts)

    def now(self, rows: int) -> ClassLooks:
        """What `rows` rows that come next, all at once, may know."""
        return self.copy().follow(np.full(rows, UNKNOWN, dtype=np.intp))

    def follow(self, codes: Codes) -> ClassLooks:
        """What each row may know, then take in those codes that are not UNKNOWN."""
        known = codes != UNKNOWN
        told = codes if known.all() else codes[known]
        before = np.arange(len(codes)) if told is codes else np.concatenate(([0], np.cumsum(known)[:-1]))
        begins = not self.rows
        self._widen(int(told.max()) + 1 if len(told) else 0)
        ones = np.zeros((len(told), self.classes))
        ones[np.arange(len(told)), told] = 1.0
        counts = np.concatenate((self._counts[None, :], self._counts + np.cumsum(ones, axis=0)))
        count = counts.sum(axis=1)
        discounted = np.stack([self._decay(ones, place, begins=begins) for place in range(len(MEMORIES))], axis=1)
        last, stay = np.concatenate(([self._last], told)).astype(np.intp), self._stays(told)
        self._counts, self._discounted = counts[-1].copy(), discounted[-1].copy()
        self._last = int(last[-1])
        met = np.count_nonzero(counts, axis=1)
        shares = counts / np.maximum(count, 1.0)[:, None]
        return ClassLooks(count[before], met[before], shares[before], discounted[before], last[before], stay[before])

    def copy(self) -> ClassPast:
        """Arrays are replaced and never changed in place."""
        twin = ClassPast()
        twin._counts, twin._discounted = self._counts, self._discounted
        twin._last, twin._stay = self._last, self._stay
        return twin

    def state(self) -> dict[str, Any]:
        """Portable and exact: the argument of `restore`."""
        numbers = {"last": self._last, "stay": self._stay}
        return {"counts": self._counts, "discounted": self._discounted.ravel(), **numbers}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._counts = np.array(state["counts"], dtype=np.float64)
        self._discounted = np.array(state["discounted"], dtype=np.float64).reshape(len(MEMORIES), len(self._counts))
        self._last, self._stay = int(state["last"]), float(state["stay"])

    def _widen(self, classes: int) -> None:
        if (more := classes - self.classes) > 0:
            self._counts = np.pad(self._counts, (0, more))
            self._discounted = np.pad(self._discounted, ((0, 0), (0, more)))

    def _decay(self, ones: Array, place: int, *, begins: bool) -> Array:
        """Discounted shares before each row and after the last, begun with the first class there is."""
        memory, shares = MEMORIES[place], np.empty((len(ones) + 1, self.classes))
        shares[0] = self._discounted[place]
        take = 1.0 - float(np.exp(-1.0 / memory))
        state = ones[0] if begins and len(ones) else shares[0]
        for start in range(0, len(ones), STRETCH):
            part = ones[start : start + STRETCH]
            keep = np.exp(-np.arange(1, len(part) + 1) / memory)[:, None]
            rows = keep * (state + take * np.cumsum(part / keep, axis=0))
            shares[start + 1 : start + 1 + len(part)] = rows
            state = rows[-1]
        return shares

    def _stays(self, told: Codes) -> Array:
        """The discounted share of repeats before each row and after the last. A plain loop: 60 ns a row."""
        keep, stay, last = float(np.exp(-1.0 / STAY_MEMORY)), self._stay, self._last
        take, stays = 1.0 - keep, [stay]
        for code in told.tolist():
            if last != UNKNOWN:
                stay = keep * stay + (take if code == last else 0.0)
            last = code
            stays.append(stay)
        self._stay = stay
        return np.array(stays)
