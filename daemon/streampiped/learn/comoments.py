"""Means and co-moments of several columns at once, discounted: all that a least-squares fit needs, mergeable.

Co-moments are sums of products of deviations from the mean, merged by the pairwise rule of Chan, Golub and LeVeque
(1983) as moments are (`moments.py`); what was before counts less with every row that comes, by a factor of 1/e per
`memory` rows. Exact for any cutting into blocks when nothing is discounted; with a memory the rows of one block count
alike, so it should be much longer than a block.

Means are kept as the distance from an origin, the first block's mean: products of deviations lose nothing at a mean of
1e9 and a deviation of 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import exp, inf
from typing import Any, Final

import numpy as np

from streampiped.aligned import aligned_empty
from streampiped.records import Array

FORGOTTEN: Final = 1e-12  # a weight below is no weight


class Comoments:
    """Of `width` columns. Arrays are replaced, never changed in place.

    >>> c = Comoments.of(np.array([[1.0, 3.0], [2.0, 6.0]]))
    >>> c.weight, c.mean.tolist(), c.products.tolist()
    (2.0, [2.0, 4.0], [[2.0, 4.0], [4.0, 8.0]])
    """

    __slots__ = ("offset", "origin", "products", "weight")

    def __init__(self, width: int) -> None:
        self.weight = 0.0
        """Rows, discounted."""
        self.origin: Array = np.zeros(width)
        self.offset: Array = np.zeros(width)
        """The mean's distance from the origin."""
        self.products: Array = np.zeros((width, width))

    @classmethod
    def of(cls, *tables: Array) -> Comoments:
        """Of one block of at least one row: `(columns, rows)` of each table, finite, one below the other."""
        width, rows = sum([len(table) for table in tables]), tables[0].shape[1]
        result = cls(0)
        result.weight = float(rows)
        result.origin = np.concatenate([table[:, 0] for table in tables])
        apart = aligned_empty(width * rows, np.float64).reshape(width, rows)  # BLAS gives the same bits anywhere then
        start = 0
        for table in tables:
            np.subtract(table, table[:, :1], out=apart[start : start + len(table)])
            start += len(table)
        result.offset = apart.mean(axis=1)
        apart -= result.offset[:, None]
        result.products = apart @ apart.T
        return result

    @property
    def mean(self) -> Array:
        return self.origin + self.offset

    def merged(self, other: Comoments, memory: float = inf) -> Comoments:
        """Of both, `other` the newer one: what is here counts less by its rows."""
        if self.weight == 0.0:
            return other
        keep = exp(-other.weight / memory)
        mine = self.weight * keep
        result = Comoments(0)
        if mine < FORGOTTEN:
            return other
        result.weight = mine + other.weight
        share = other.weight / result.weight
        apart = (other.origin - self.origin) + (other.offset - self.offset)
        result.origin = self.origin
        result.offset = self.offset + apart * share
        result.products = self.products * keep
        result.products += other.products
        result.products += apart[:, None] * (apart * (mine * share))
        return result

    def mapped(self, matrix: Array, shift: Array) -> Comoments:
        """Those of `matrix @ columns + shift`."""
        result = Comoments(0)
        result.weight = self.weight
        result.origin = matrix @ self.origin + shift
        result.offset = matrix @ self.offset
        result.products = matrix @ self.products @ matrix.T
        return result

    def widened(self, columns: int) -> Comoments:
        """With so many columns more at the end that have been 0 throughout."""
        result = Comoments(0)
        result.weight = self.weight
        result.origin, result.offset = np.pad(self.origin, (0, columns)), np.pad(self.offset, (0, columns))
        result.products = np.pad(self.products, ((0, columns), (0, columns)))
        return result

    def state(self) -> dict[str, Any]:
        """Portable and exact: the argument of `from_state`."""
        return {"weight": self.weight, "origin": self.origin, "offset": self.offset, "products": self.products}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Comoments:
        result = cls(0)
        result.weight = float(state["weight"])
        result.origin, result.offset = (np.array(state[name], dtype=np.float64) for name in ("origin", "offset"))
        width = len(result.origin)
        result.products = np.array(state["products"], dtype=np.float64).reshape(width, width)
        return result
