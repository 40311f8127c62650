"""The error along the stream: tallies of equally many rows, in bounded memory.

A bin is `rows_per_bin` rows of the stream by their number, whether they could be scored or not; when there would be
more than BINS_MAX of them, two neighbours become one. From the same bins comes what is said of the warm-up, so that a
large error at the start need not be subtracted from a sum that it has drowned.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from streampiped.measure.tally import Tally, from_state, merged, state_of

BINS_MAX: Final = 128  # even; twice the columns that a terminal has for them
ROWS_PER_BIN: Final = 25  # at the start: WARM_UP_ROWS is a whole number of bins until each has 100
WARM_UP_ROWS: Final = 100
WARM_UP_SHARE: Final = 20  # one part in: 5 %


class Curve:
    """Tallies of `predictors` predictors by the rows' numbers."""

    __slots__ = ("_predictors", "bins", "rows_per_bin")

    def __init__(self, predictors: int) -> None:
        self._predictors = predictors
        self.bins: list[Tally] = []
        self.rows_per_bin = ROWS_PER_BIN

    def edges(self, start: int, stop: int) -> list[int]:
        """Row numbers inside `start` to `stop` at which a bin begins."""
        width = self.rows_per_bin
        return list(range((start // width + 1) * width, stop, width))

    def add(self, row: int, tally: Tally) -> None:
        """Take in rows of one bin; `row` is the number of one of them."""
        while row // self.rows_per_bin >= BINS_MAX:
            self._halve()
        place = row // self.rows_per_bin
        while len(self.bins) <= place:
            self.bins.append(Tally(self._predictors))
        self.bins[place].merge(tally)

    def warm_up(self, rows: int) -> tuple[Tally, Tally]:
        """The tallies of the warm-up and of what came after it, of a stream of `rows` rows so far.

        The warm-up is the first max(100, 5 %) rows of the stream, up to the next edge of a bin: exactly 100 up to row
        2000, and never more than one bin (1.6 % of the stream) beyond 5 %. It grows with the stream.
        """
        wanted = max(WARM_UP_ROWS, -(-rows // WARM_UP_SHARE))
        place = -(-wanted // self.rows_per_bin)
        return merged(self.bins[:place], self._predictors), merged(self.bins[place:], self._predictors)

    def state(self) -> dict[str, Any]:
        """Portable and exact: the argument of `restore`."""
        return {"rows_per_bin": self.rows_per_bin, "bins": state_of(self.bins) if self.bins else None}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.rows_per_bin = int(state["rows_per_bin"])
        self.bins = from_state(state["bins"]) if state["bins"] is not None else []

    def _halve(self) -> None:
        pairs = range(0, len(self.bins), 2)
        self.bins = [merged(self.bins[place : place + 2], self._predictors) for place in pairs]
        self.rows_per_bin *= 2


def pieces(edges: list[int], start: int, rows: int) -> list[slice]:
    """`rows` rows from number `start` on, cut at the `edges` (ascending, inside), as places among them."""
    bounds = [0, *(edge - start for edge in edges), rows]
    return [slice(first, last) for first, last in pairwise(bounds) if first < last]


def places_of(cuts: list[slice], chosen: NDArray[np.intp]) -> list[slice]:
    """The same cuts as places among the `chosen` rows alone."""
    bounds = np.searchsorted(chosen, [cuts[0].start, *(cut.stop for cut in cuts)]).tolist()
    return [slice(first, last) for first, last in pairwise(bounds)]
