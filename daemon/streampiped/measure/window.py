"""The last rows of a stream in bounded memory."""

from __future__ import annotations

import numpy as np

from streampiped.records import Array


class Window:
    """The newest `capacity` rows of `width` numbers each, in a ring.

    >>> w = Window(2, 1)
    >>> w.append(np.array([[1.0], [2.0], [3.0]]))
    >>> w.rows().tolist()
    [[2.0], [3.0]]
    """

    __slots__ = ("_next", "_ring", "filled")

    def __init__(self, capacity: int, width: int) -> None:
        self._ring: Array = np.zeros((width, capacity))  # a column at a time is how it is read
        self._next = 0
        self.filled = 0

    def append(self, rows: Array) -> None:
        """Take in `(n, width)`; of more than `capacity` only the newest."""
        capacity = self._ring.shape[1]
        rows = rows[-capacity:]
        columns = rows.T
        first = min(len(rows), capacity - self._next)
        self._ring[:, self._next : self._next + first] = columns[:, :first]
        self._ring[:, : len(rows) - first] = columns[:, first:]
        self._next = (self._next + len(rows)) % capacity
        self.filled = min(capacity, self.filled + len(rows))

    def rows(self) -> Array:
        """A copy in Fortran order, oldest first: the same for the same rows however they came, so it is the state as
        well."""
        if self.filled < self._ring.shape[1]:
            return self._ring[:, : self.filled].copy().T
        return np.concatenate((self._ring[:, self._next :], self._ring[:, : self._next]), axis=1).T

    def restore(self, rows: Array) -> None:
        """Hold exactly `rows`, as `rows()` gave them."""
        self._next = 0
        self.filled = 0
        self.append(rows)
