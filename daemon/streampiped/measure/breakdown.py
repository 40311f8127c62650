"""The same rows, added up in several ways: all, held out, learned, since the last drift, and along the stream.

What the sums are of is the task's business (`regression.py`, `class_metrics.py`): it gives a tally for each part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from streampiped.measure.curve import Curve, pieces, places_of
from streampiped.measure.tally import Tally, from_state, state_of
from streampiped.records import IntArray

_TALLIES: Final = ("learned", "held_out", "blind", "generation")

Parts: TypeAlias = "Callable[[slice, NDArray[np.intp]], tuple[Tally, Tally, Tally | None]]"
"""(which of the scored rows, places of the held-out ones among them) -> tallies of the learned, of the held-out, and of
those that were predicted before there was a label, if any: these are of neither of the others."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where the rows stand that can be scored of a batch, whose first row has number `first` in the stream and that
    has `rows` of them."""

    first: int
    rows: int
    scored: NDArray[np.intp] | None
    """Their places in the batch, ascending; None: all of its rows."""
    spared: NDArray[np.intp]
    """Which of the scored ones were held out, ascending."""
    generations: IntArray | None
    """The model's generation, of every row of the batch."""


class Breakdown:
    """Tallies of `predictors` predictors."""

    __slots__ = ("_predictors", "curve", "generation", "parts", "since_row")

    def __init__(self, predictors: int) -> None:
        self._predictors = predictors
        self.parts = {name: Tally(predictors) for name in _TALLIES}
        self.curve = Curve(predictors)
        self.generation: int | None = None
        """Its number; None: the stream has no such column, so there is one."""
        self.since_row = 0
        """The first row of the generation."""

    def add(self, places: Places, parts: Parts) -> None:
        """Take in a batch, cut where a bin of the curve or a generation begins."""
        if not places.rows:
            return
        cuts = pieces(self._edges(places), places.first, places.rows)
        chosen = cuts if places.scored is None else places_of(cuts, places.scored)
        for cut, part in zip(cuts, chosen, strict=True):
            if places.generations is not None:
                self._follow(int(places.generations[cut.start]), places.first + cut.start)
            if part.start < part.stop:
                held = places.spared
                if len(cuts) > 1:
                    begin, end = np.searchsorted(held, (part.start, part.stop)).tolist()
                    held = held[begin:end] - part.start
                self._take(places.first + cut.start, *parts(part, held))

    def total(self) -> Tally:
        """Over all rows."""
        total = self.told()
        total.merge(self.parts["blind"])
        return total

    def told(self) -> Tally:
        """Over all rows that had a label before them."""
        told = Tally(self._predictors)
        told.merge(self.parts["learned"])
        told.merge(self.parts["held_out"])
        return told

    def state(self) -> dict[str, Any]:
        """Portable and exact: the argument of `restore`."""
        return {
            "tallies": state_of([self.parts[name] for name in _TALLIES]),
            "generation": self.generation,
            "since_row": self.since_row,
            "curve": self.curve.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.parts = dict(zip(_TALLIES, from_state(state["tallies"]), strict=True))
        self.generation, self.since_row = state["generation"], state["since_row"]
        self.curve.restore(state["curve"])

    def _edges(self, places: Places) -> list[int]:
        edges = self.curve.edges(places.first, places.first + places.rows)
        numbers = places.generations
        if numbers is not None and numbers[0] != numbers[-1]:
            begins = np.flatnonzero(np.diff(numbers)) + 1 + places.first
            edges = sorted({*edges, *begins.tolist()})
        return edges

    def _follow(self, generation: int, row: int) -> None:
        if generation != self.generation:
            if self.generation is not None:
                self.parts["generation"] = Tally(self._predictors)
                self.since_row = row
            self.generation = generation

    def _take(self, row: int, learned: Tally, held: Tally, blind: Tally | None) -> None:
        self.parts["learned"].merge(learned)
        self.parts["held_out"].merge(held)
        learned.merge(held)
        if blind is not None:
            self.parts["blind"].merge(blind)
            learned.merge(blind)
        self.parts["generation"].merge(learned)
        self.curve.add(row, learned)
