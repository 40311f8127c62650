"""A run that somebody watches: progress while it lasts, the report at its end."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from typing import Any, Final

from streampiped.backend import SupervisorBackend
from streampiped.errors import RpcError
from streampiped.plain import plain
from streampiped.runtime.console import Console
from streampiped.runtime.event_log import EventLog

REPORT_TIMEOUT_S: Final = 3.0  # before the stages leave; whoever pressed Ctrl-C does not wait for a stage that hangs
PAUSE_MIN_S: Final = 0.05


class Foreground:
    """The console of `--until-finished`."""

    def __init__(self, backend: SupervisorBackend, log: EventLog) -> None:
        self._backend = backend
        self._log = log
        self._console = Console()
        self._report: dict[str, Any] | None = None
        if self._console.interactive:
            log.screen = self._console  # log lines go above the picture

    async def show(self, done: asyncio.Event) -> None:
        """One picture after the other until `done`; the console says when the next one is due."""
        while not done.is_set():
            due = self._console.update(await self._backend.status(False), time.monotonic())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(done.wait(), max(PAUSE_MIN_S, due - time.monotonic()))

    async def take_report(self) -> None:
        """The last chance for a report: the stages are about to leave."""
        with contextlib.suppress(RpcError, TimeoutError):
            self._report = await asyncio.wait_for(self._backend.report(), REPORT_TIMEOUT_S)

    def close(self) -> None:
        self._log.screen = None
        self._console.close()

    def print_report(self) -> None:
        if self._report is not None:
            encoding = sys.stdout.encoding or "ascii"
            text = plain(self._report["text"], encoding).encode(encoding, "replace").decode(encoding)
            print(text, flush=True)
