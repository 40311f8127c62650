"""The supervisor's helper thread: it waits for the disk, so that nobody else does."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import time
from collections.abc import Callable
from typing import Any, TypeVar

from streampiped.core.epochs import WriteManifest
from streampiped.runtime.snapshots import Manifest, StateDirectory
from streampiped.topology import Plan

T = TypeVar("T")


class Disk:
    """Commits manifests and removes old epochs, one after the other."""

    def __init__(self, plan: Plan, state: StateDirectory, restored: Manifest | None) -> None:
        self._committed_at: float | None = None
        self._state = state
        self._manifest = restored
        self._shape = {spec.name: spec.klass for spec in plan.stages}
        self._retain_epochs = plan.checkpoint.retain_epochs
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "disk")

    async def commit(self, command: WriteManifest) -> None:
        """Returns when the manifest is durable. OSError when it is not."""
        parts = {part.stage: (part.file, part.length, part.checksum) for part in command.parts}
        manifest = Manifest(command.epoch, command.generation, command.finished, parts, self._shape)
        await asyncio.get_running_loop().run_in_executor(self._thread, self._state.commit, manifest)
        self._manifest = manifest
        self._committed_at = time.monotonic()

    async def do(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function that waits for the disk."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)

    def epoch_age(self, now: float) -> float | None:
        """Seconds from the last commit of this run to `now` (CLOCK_MONOTONIC seconds)."""
        return now - self._committed_at if self._committed_at is not None else None

    def snapshot_of(self, stage: str, epoch: int | None) -> str | None:
        """The file of a stage's snapshot in the committed epoch, which is the one that is restored."""
        if epoch is None:
            return None
        assert self._manifest is not None, epoch
        assert self._manifest.epoch == epoch, (self._manifest.epoch, epoch)
        return self._manifest.parts[stage][0]

    def retain(self, committed: int) -> None:
        """Remove, some time later, what is older than the retained epochs."""
        self._thread.submit(self._remove, committed)

    def close(self) -> None:
        """Wait for what is under way, and let go of the state directory."""
        self._thread.shutdown(wait=True)
        self._state.close()

    def _remove(self, committed: int) -> None:
        with contextlib.suppress(OSError):  # what could not be removed is removed after a later epoch
            self._state.retain(self._retain_epochs, committed)
