"""The newest of the rows that are held out, by where they stand in the stream: what was asked, or what came of it.

Where labels come late, trainer and evaluator choose the same rows and have not the same columns of them: so the one
asks the other by source and position.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from streampiped.records import Array

Origin: TypeAlias = tuple[str, int]
"""Source and position of a row."""


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """Never changed: who keeps one has it as it was. `table` `(len(keys), numbers)`.

    >>> held = HeldOut().extended([("a", 3), ("b", 3)], np.array([[1.0], [2.0]]), 9)
    >>> held.table[held.lines([("b", 3)])].tolist()
    [[2.0]]
    """

    keys: tuple[Origin, ...] = ()
    table: Array = field(default_factory=lambda: np.zeros((0, 0)))

    def extended(self, keys: Sequence[Origin], table: Array, most: int) -> HeldOut:
        """With these behind them, and the newest `most` of all."""
        if not keys:
            return self
        whole = np.concatenate((self.table, table)) if self.keys else np.array(table)
        return HeldOut((*self.keys, *keys)[-most:], whole[-most:])

    def lines(self, keys: Sequence[Origin]) -> NDArray[np.intp]:
        """Where they are in the table. KeyError with the first that is not there."""
        places = {key: place for place, key in enumerate(self.keys)}
        return np.array([places[key] for key in keys], dtype=np.intp)

    def state(self) -> dict[str, Any]:
        """Portable and exact: the argument of `from_state`."""
        sources = list(dict.fromkeys(source for source, _ in self.keys))
        codes = {source: code for code, source in enumerate(sources)}
        return {
            "sources": sources,
            "source": np.array([codes[source] for source, _ in self.keys], dtype=np.int64),
            "position": np.array([position for _, position in self.keys], dtype=np.int64),
            "table": self.table,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> HeldOut:
        sources, rows = state["sources"], zip(state["source"].tolist(), state["position"].tolist(), strict=True)
        return cls(tuple((sources[code], position) for code, position in rows), np.array(state["table"]))


def by_source(keys: Sequence[Origin]) -> tuple[dict[str, list[int]], list[int]]:
    """Source -> positions, and the places of the keys in that order.

    >>> by_source([("a", 3), ("b", 1), ("a", 7)])
    ({'a': [3, 7], 'b': [1]}, [0, 2, 1])
    """
    result: dict[str, list[int]] = {}
    places: dict[str, list[int]] = {}
    for place, (source, position) in enumerate(keys):
        result.setdefault(source, []).append(position)
        places.setdefault(source, []).append(place)
    return result, [place for each in places.values() for place in each]
