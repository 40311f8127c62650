"""Restart intensity and back-off: how often is too often, and how long to wait. Pure; after OTP's supervisor."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Too many restarts."""

    count: int


@dataclass(frozen=True, slots=True)
class Retry:
    """Restart at `at` (seconds of the caller's clock); 0 s after the first death of a quiet time."""

    at: float
    count: int


class Intensity:
    """A sliding window over the deaths of one process.

    More than `max_restarts` within `window` seconds and it is given up. The first restart is immediate; then the
    delay doubles from `backoff_first` up to `backoff_max`, each multiplied by `jitter()` (0.5..1 is usual, so that
    several do not march in step). After `stable_after` quiet seconds the delay starts anew.
    """

    def __init__(
        self,
        max_restarts: int,
        window: float,
        backoff_first: float,
        backoff_max: float,
        stable_after: float,
        jitter: Callable[[], float],
    ) -> None:
        self._max_restarts = max_restarts
        self.window = window
        self._first = backoff_first
        self._max = backoff_max
        self._stable_after = stable_after
        self._jitter = jitter
        self._deaths: deque[float] = deque()
        self._streak = 0

    def adopt(
        self, max_restarts: int, window: float, backoff_first: float, backoff_max: float, stable_after: float
    ) -> None:
        """Other limits from now on; the deaths so far count by them."""
        self._max_restarts, self.window, self._stable_after = max_restarts, window, stable_after
        self._first, self._max = backoff_first, backoff_max

    def died(self, now: float) -> Retry | GiveUp:
        """A death at `now`; times never decrease."""
        if self._deaths and now - self._deaths[-1] >= self._stable_after:
            self._streak = 0
        self._deaths.append(now)
        while now - self._deaths[0] > self.window:
            self._deaths.popleft()
        count = len(self._deaths)
        if count > self._max_restarts:
            return GiveUp(count)
        delay = 0.0
        if self._streak:
            delay = min(self._max, self._first * 2.0 ** min(self._streak - 1, 60)) * self._jitter()
        self._streak += 1
        return Retry(now + delay, count)

    def recent(self, now: float) -> int:
        """Deaths within the window that ends at `now`."""
        return sum(now - at <= self.window for at in self._deaths)

    def forget(self) -> None:
        """An operator has taken the matter in hand: begin anew."""
        self._deaths.clear()
        self._streak = 0
