"""How many batches may be under way on one link: bounded time, where the pipe alone gives bounded memory. Pure.

A pipe of 1 MiB before a sink that takes ten records a second holds hours of data, and so a barrier takes hours. So the
reader returns a credit for every batch when it is done with it, and the writer keeps a window: it grows while batches
come back quickly and shrinks to what fits into `target` seconds when one took longer, down to a single batch.
"""

from __future__ import annotations

from collections import deque
from typing import Final

WINDOW_FIRST: Final = 4  # batches; a fast link doubles it with every round trip, 1 to 64 takes some milliseconds
WINDOW_MAX: Final = 1024  # batches; the pipe is full long before
CALM: Final = 0.25  # of the target; below this there is room for more, between this and the target all is well


class Window:
    """The writer's side of one link of one generation. Times in seconds of one clock on both sides."""

    __slots__ = ("_due", "_pressed", "_sent", "_target", "size")

    def __init__(self, target: float) -> None:
        self.size = WINDOW_FIRST
        self._target = target
        self._sent: deque[float] = deque()
        self._due = 0.0
        self._pressed = False

    def may_send(self) -> bool:
        """Whether another batch may be sent. Asking for what is not there is what makes the window grow."""
        if len(self._sent) < self.size:
            return True
        self._pressed = True
        return False

    @property
    def under_way(self) -> int:
        """Batches that have been sent and not come back."""
        return len(self._sent)

    def sent(self, now: float) -> None:
        self._sent.append(now)

    def returned(self, at: float) -> None:
        """The oldest batch under way was done at `at`."""
        began = self._sent.popleft()
        age = at - began
        if age > self._target:
            if began >= self._due:  # batches that were under way together say the same thing once
                self.size = max(1, min(self.size // 2, int(self.size * self._target / age)))
                self._due = at
        elif age < CALM * self._target and self._pressed:
            self.size = min(WINDOW_MAX, self.size + 1)
            self._pressed = bool(self._sent)  # those that were under way together all count
