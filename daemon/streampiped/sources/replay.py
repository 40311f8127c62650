"""Replay at a speed: when is a record due that has a time of its own?"""

from __future__ import annotations

import numpy as np

from streampiped.records import Array


class Replay:
    """Maps data time to CLOCK_MONOTONIC: the first record that is seen is due at once, the others `speed` seconds of
    data per second after it. The anchor is no part of a position: after a restart the replay goes on from there.

    >>> replay = Replay(speed=60.0)
    >>> replay.due(np.array([0.0, 30.0, 120.0]), now=1000.0)
    (1, 1000.5)
    >>> replay.due(np.array([30.0, 120.0]), now=1000.5)
    (1, 1002.0)
    """

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._anchor: tuple[float, float] | None = None

    def reset(self) -> None:
        self._anchor = None

    def due(self, times: Array, now: float) -> tuple[int, float | None]:
        """How many of the next records, whose times (seconds) are given, are due, and when the next one is. A record
        without a time, or out of order, is due with the one before it."""
        ordered = np.maximum.accumulate(np.where(np.isfinite(times), times, -np.inf))
        if self._anchor is None:
            known = ordered[np.isfinite(ordered)]
            if not known.size:
                return len(times), None
            self._anchor = (now, float(known[0]))
        moments = self._anchor[0] + (ordered - self._anchor[1]) / self._speed
        count = int(np.searchsorted(moments, now, side="right"))
        return count, float(moments[count]) if count < len(moments) else None
