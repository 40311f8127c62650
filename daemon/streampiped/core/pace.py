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

PARTS: Final = ("align", "snapshot", "fsync", "manifest", "sink_commit")


@dataclass(frozen=True, slots=True)
class Slow:
    """How long is usual, in seconds, and the part of the epoch that took longest."""

    median: float
    part: str


class Pace:
    """The durations of the last epochs."""

    def __init__(self) -> None:
        self._last: deque[float] = deque(maxlen=EPOCHS)

    def judge(self, times: EpochTimes) -> Slow | None:
        """Whether this epoch was slow; it counts for the next ones.

        >>> pace, usual = Pace(), EpochTimes(0.01, 0.01, 0.02, 0.01, 0.0, 0.05)
        >>> any(pace.judge(usual) for _ in range(100))
        False
        >>> pace.judge(EpochTimes(0.01, 0.01, 1.2, 0.01, 0.0, 1.23))
        Slow(median=0.05, part='fsync')
        """
        usual = statistics.median(self._last) if len(self._last) >= EPOCHS_LEAST else None
        self._last.append(times.total)
        if usual is None or times.total < max(LEAST_S, FACTOR * usual):
            return None
        return Slow(usual, max(PARTS, key=lambda part: float(getattr(times, part))))
