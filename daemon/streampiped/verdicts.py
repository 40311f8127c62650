"""From what a trial has found to a verdict on the disk: a record is condemned only when that is durable."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from streampiped.disk import Disk
from streampiped.errors import StateError, StorageError
from streampiped.wire.messages import Guilty, Judged

RETRY_FIRST_S: Final = 0.5  # a full disk is rarely freed sooner
RETRY_MAX_S: Final = 10.0  # an operator who freed it should not wait longer


class Verdicts:
    """Collects the guilty rows that stages name, and keeps them."""

    def __init__(
        self, disk: Disk, kept: Callable[[str, int, int, int | None], None], failed: Callable[[str, str], None]
    ) -> None:
        """`kept(stage, incarnation, generation, rows)` when a verdict is durable, or (None rows) never will be;
        `failed(stage, reason)` each time the disk refuses it; it is tried again as long as its stage lives."""
        self._disk = disk
        self._kept = kept
        self._failed = failed
        self._named: dict[tuple[str, int], list[Guilty]] = {}
        self._refused: dict[str, str] = {}
        self._pending: dict[tuple[str, int], asyncio.Event] = {}
        """Set when the stage has died."""

    def of(self, stage: str) -> str | None:
        """Why this stage waits for its verdict; None: it does not."""
        return self._refused.get(stage)

    @property
    def trouble(self) -> str | None:
        """What the disk refuses at the moment, for status; None: nothing."""
        return next(iter(self._refused.values()), None)

    def named(self, stage: str, incarnation: int, row: Guilty) -> None:
        """One row, or one more part of its record; `judged` says that it was the last."""
        rows = self._named.setdefault((stage, incarnation), [])
        if rows and rows[-1].more:
            row = replace(row, record=rows.pop().record + row.record)
        rows.append(row)

    def died(self, stage: str, incarnation: int) -> None:
        """A trial that did not come to its end has found nothing, and what the disk does not take now it need not take
        any more: the successor tries the same."""
        self._named.pop((stage, incarnation), None)
        if (pending := self._pending.get((stage, incarnation))) is not None:
            pending.set()

    async def judged(self, stage: str, incarnation: int, verdict: Judged) -> None:
        """The trial is over. Returns when its verdict is kept, the stage and everybody else waits for that; or when its
        stage has died before the disk took it."""
        rows = self._named.pop((stage, incarnation), [])
        dead = self._pending[stage, incarnation] = asyncio.Event()
        try:
            kept = not rows or await self._keep(stage, rows, dead)
        finally:
            del self._pending[stage, incarnation]
            self._refused.pop(stage, None)
        self._kept(stage, incarnation, verdict.generation, len(rows) if kept else None)

    async def _keep(self, stage: str, rows: list[Guilty], dead: asyncio.Event) -> bool:
        delay = RETRY_FIRST_S
        while True:
            try:
                await self._disk.condemn(stage, rows)
                return True
            except (StorageError, StateError) as error:
                self._refused[stage] = f"{stage}: {len(rows)} guilty records cannot be put aside: {error}"
                self._failed(stage, str(error))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(dead.wait(), delay)
            if dead.is_set():
                return False
            delay = min(RETRY_MAX_S, 2.0 * delay)
