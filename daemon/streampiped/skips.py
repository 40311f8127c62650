"""Rows that are not to be processed: the verdicts so far, looked up for each batch.

A verdict is an input of every replay: the rows are taken out at the original batch boundaries, so that a run that was
repeated a hundred times and one that knew it all from the start are the same.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streampiped.records import Batch, Span


class Skips:
    """Positions by way (`Span.via`; the empty one stands for every way), source and attempt (0: in the stream, n: in
    the n-th replay of a dead letter)."""

    def __init__(self, skips: Mapping[tuple[str, str, int], Sequence[int]]) -> None:
        """Positions are ascending."""
        self._skips = {key: list(positions) for key, positions in skips.items() if positions}

    def __len__(self) -> int:
        return sum(map(len, self._skips.values()))

    def keep(self, batch: Batch, attempt: int = 0) -> NDArray[np.bool_] | None:
        """Which rows stay; None: all of them, which is told without looking at a row.

        >>> batch = Batch.build({"x": [0.0, 1.0, 2.0]}, spans=(Span("s", 7, 3, "left"),))
        >>> Skips({("left", "s", 0): [8, 99]}).keep(batch).tolist()
        [True, False, True]
        >>> Skips({("right", "s", 0): [8, 99]}).keep(batch) is None
        True
        """
        if not self._skips:
            return None
        keep: NDArray[np.bool_] | None = None
        first = 0
        for span in batch.spans:
            for via in {span.via, ""}:
                positions = self._skips.get((via, span.source, attempt), ())
                place, end = bisect_left(positions, span.start), span.start + span.count
                while place < len(positions) and positions[place] < end:
                    if keep is None:
                        keep = np.ones(batch.rows, dtype=np.bool_)
                    keep[first + positions[place] - span.start] = False
                    place += 1
            first += span.count
        return keep


def overlaps(spans: Iterable[Span], suspects: Iterable[Sequence[Any]]) -> bool:
    """Whether a row of `spans` lies in one of `suspects`, each `[via, source, start, count]`."""
    return any(
        span.via == via and span.source == source and span.start < start + count and start < span.start + span.count
        for via, source, start, count in suspects
        for span in spans
    )
