"""Changes that a manifest records, as one stage applies them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from streampiped.applied import Changes
from streampiped.records import Batch, Span


class Taking:
    """A stage and its gate: writes down what it is told, and when."""

    def __init__(self) -> None:
        self.story: list[Any] = []
        self.changes = Changes(self, self)

    def change(self, kind: str, params: Mapping[str, Any]) -> None:
        self.story.append((kind, params["n"]))

    def letters(self, change: Mapping[str, Any]) -> Iterator[tuple[int, Batch]]:
        for number, attempt in change["letters"]:
            yield attempt, Batch.build({"x": np.zeros(1)}, spans=(Span("source", number, 1),))

    def run(self) -> list[Any]:
        """Process whatever there is."""
        while (found := self.changes.next()) is not None:
            self.story.append((found[1].spans[0].start, found[0]))
        return self.story


def own(n: int) -> dict[str, Any]:
    return {"kind": "turn", "stage": "a", "params": {"n": n}}


def replay(*letters: tuple[int, int]) -> dict[str, Any]:
    return {"kind": "replay", "stage": "a", "letters": [list(letter) for letter in letters]}


def test_changes_come_in_the_order_of_the_manifest() -> None:
    """A change stands behind the records that are given back before it, and in front of those after it."""
    stage = Taking()
    assert stage.changes.begin([own(1), replay((7, 1), (8, 2)), own(2), own(3), replay((9, 1))])
    assert stage.story == [("turn", 1)]  # nothing was processed yet
    assert stage.run() == [("turn", 1), (7, 1), (8, 2), ("turn", 2), ("turn", 3), (9, 1)]


def test_changes_without_records_are_applied_at_once() -> None:
    """Who has nothing to process is done when `begin` returns: a barrier may come right behind it."""
    stage = Taking()
    assert not stage.changes.begin([own(1), own(2)])
    assert stage.story == [("turn", 1), ("turn", 2)]
    assert stage.run() == stage.story[:2]


def test_next_generation_begins_anew() -> None:
    """What a generation had not come to is forgotten with it."""
    stage = Taking()
    stage.changes.begin([replay((7, 1), (8, 1)), own(1)])
    stage.changes.next()
    stage.changes.clear()
    assert stage.run() == []
    stage.changes.begin([replay((7, 1)), own(1)])
    assert stage.run() == [(7, 1), ("turn", 1)]
