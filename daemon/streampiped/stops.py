"""Who is stopped, kept for the next start: an operator is answered only when that is durable."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

from streampiped.disk import Disk
from streampiped.runtime import stopped

RETRY_FIRST_S: Final = 0.5  # a full disk is rarely freed sooner
RETRY_MAX_S: Final = 10.0  # an operator who freed it should not wait longer


class Stops:
    """Writes the newest names until the disk has taken them."""

    def __init__(self, disk: Disk, state: Path, kept: Callable[[tuple[str, ...], str | None], None]) -> None:
        """`kept(names, refused)` after each attempt; `refused` says why it failed and will be repeated."""
        self._disk = disk
        self._state = state
        self._kept = kept
        self._names: tuple[str, ...] = ()
        self._writing = False

    async def remember(self, names: tuple[str, ...]) -> None:
        """Returns when these or newer names are durable, or another call sees to that."""
        self._names = names
        if self._writing:
            return
        self._writing = True
        delay = RETRY_FIRST_S
        written: tuple[str, ...] | None = None
        while written != self._names:
            attempt = self._names
            try:
                await self._disk.do(stopped.save, self._state, attempt)
            except OSError as error:
                self._kept(attempt, str(error))
                await asyncio.sleep(delay)
                delay = min(RETRY_MAX_S, 2.0 * delay)
            else:
                written = attempt
                self._kept(attempt, None)
        self._writing = False
