"""When a stage goes on: at most one turn is planned, and it comes by itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

TICK_S: Final = 0.001  # the loop counts in these: less than half of one would be none, and a source asked all the time


LATE_S: Final = 0.02  # of what `max_rate` allows, at most, that is made up: a tick comes late, and so does the loop


class Turns:
    """Plans calls of `run`, which has to begin with `cancel`. `max_rate`: records per second, None: as many as come."""

    def __init__(self, loop: asyncio.AbstractEventLoop, run: Callable[[], None], max_rate: float | None) -> None:
        self._loop = loop
        self._run = run
        self._max_rate = max_rate
        self._handle: asyncio.Handle | None = None
        self._wake_fd: int | None = None
        self._throttle_until = 0.0

    def soon(self) -> None:
        """As soon as the loop has looked at everything else."""
        self.cancel()
        self._handle = self._loop.call_soon(self._run)

    def after(self, delay: float) -> None:
        """In `delay` seconds, and not before the loop has looked at everything else."""
        self.cancel()
        self._handle = self._loop.call_later(max(delay, TICK_S), self._run)

    def when_readable(self, fd: int) -> None:
        """Also when there is something to read from `fd`, if that comes before what is planned."""
        self._wake_fd = fd
        self._loop.add_reader(fd, self._run)

    def cancel(self) -> None:
        """None is planned any more."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        if self._wake_fd is not None:
            self._loop.remove_reader(self._wake_fd)
            self._wake_fd = None

    def forget(self) -> None:
        """None is planned, and the next may come at once."""
        self.cancel()
        self._throttle_until = 0.0

    def throttle(self, rows: int) -> None:
        """So many records have been taken."""
        if self._max_rate:
            now = time.monotonic()
            self._throttle_until = max(now - LATE_S, self._throttle_until) + rows / self._max_rate

    def throttled(self) -> bool:
        """Whether `max_rate` lets no more records in yet; a turn is planned for when it does."""
        if self._throttle_until and (wait := self._throttle_until - time.monotonic()) > 0:
            self.after(wait)
            return True
        return False
