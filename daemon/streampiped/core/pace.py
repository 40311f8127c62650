"""Which epochs are slow: those that take far longer than the ones before them did. Pure."""

from __future__ import annotations

import statistics
from collections import deque
from dataclasses import dataclass
from typing import Final

from streampiped.core.epoch_commands import EpochTimes

EPOCHS: Final = 60  # that make the median: a minute at one a second. Slow ones are among them, so a disk that stays
# slow is told about for half of them, and then is what is usual
EPOCHS_LEAST: Final = 10  # before there is a usual
FACTOR: Final = 5.0  # times the median; what a neighbour on the machine does to one epoch stays below
LEAST_S: Final = 0.25  # what is faster delays nobody's results, whatever the median
WORSE: Final = 2.0  # times the slowest that was told of: within a spell only that is news
USUAL_AGAIN: Final = 5  # usual epochs in a row end a spell; a neighbour's pauses are one spell and not many

PARTS: Final = ("align", "snapshot", "fsync", "manifest", "sink_commit")


@dataclass(frozen=True, slots=True)
class Slow:
    """How long is usual, in seconds, and the part of the epoch that took longest."""

    median: float
    part: str


@dataclass(frozen=True, slots=True)
class Usual:
    """A spell of slow epochs is over. `untold`: those of it of which nothing was said, the slowest took `seconds`."""

    untold: int
    seconds: float


class Pace:
    """The durations of the last epochs, and the spell of slow ones that they are in, if any."""

    def __init__(self) -> None:
        self._last: deque[float] = deque(maxlen=EPOCHS)
        self._told = 0.0
        """Seconds of the slowest of this spell that was told of; 0: there is no spell."""
        self._untold = 0
        self._slowest = 0.0
        """Of the untold ones."""
        self._usual = 0

    def judge(self, times: EpochTimes) -> Slow | Usual | None:
        """What is to be said of this epoch; it counts for the next ones. The first slow one of a spell is told, then
        only one that takes WORSE times as long, and at the end how many there were besides.

        >>> pace, usual = Pace(), EpochTimes(0.01, 0.01, 0.02, 0.01, 0.0, 0.05)
        >>> any(pace.judge(usual) for _ in range(100))
        False
        >>> slow = EpochTimes(0.01, 0.01, 1.2, 0.01, 0.0, 1.23)
        >>> pace.judge(slow), pace.judge(slow)
        (Slow(median=0.05, part='fsync'), None)
        >>> [pace.judge(usual) for _ in range(USUAL_AGAIN)][-1]
        Usual(untold=1, seconds=1.23)
        """
        median = statistics.median(self._last) if len(self._last) >= EPOCHS_LEAST else None
        self._last.append(times.total)
        if median is None or times.total < max(LEAST_S, FACTOR * median):
            return self._on_usual()
        self._usual = 0
        if times.total >= WORSE * self._told:
            self._told = times.total
            return Slow(median, max(PARTS, key=lambda part: float(getattr(times, part))))
        self._untold += 1
        self._slowest = max(self._slowest, times.total)
        return None

    def _on_usual(self) -> Usual | None:
        self._usual += 1
        if not self._told or self._usual < USUAL_AGAIN:
            return None
        over = Usual(self._untold, self._slowest) if self._untold else None
        self._told = self._slowest = 0.0
        self._untold = 0
        return over
