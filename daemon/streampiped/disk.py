"""The supervisor's helper thread: it waits for the disk, so that nobody else does."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

from streampiped.core.epochs import WriteManifest
from streampiped.errors import StateError
from streampiped.runtime.snapshots import Manifest, ManifestExtra, StateDirectory
from streampiped.topology import Plan

T = TypeVar("T")

NO_EXTRA: Final = ManifestExtra()
WITHDRAW_BACKOFF_FIRST_S: Final = 0.5  # as for an epoch's next attempt (core/epochs.py): a disk is rarely mended sooner
WITHDRAW_BACKOFF_MAX_S: Final = 10.0  # an operator who mended it should not wait longer


class Disk:
    """Commits manifests and removes old epochs, one after the other."""

    def __init__(self, plan: Plan, state: StateDirectory, restored: Manifest | None) -> None:
        self._committed_at: float | None = None
        self._state = state
        self._manifest = restored
        self._shape = {spec.name: spec.klass for spec in plan.stages}
        self._retractable = {s.name: s.retractable for s in plan.stages if s.role in ("source", "sink")}
        self._retain_epochs = plan.checkpoint.retain_epochs
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "disk")
        self._closing = asyncio.Event()
        self._withdrawal: str | None = None
        self._retention: str | None = None
        self._bytes: int | None = None

    async def commit(self, command: WriteManifest, extra: ManifestExtra = NO_EXTRA) -> None:
        """Returns when the manifest is durable. OSError when it is not, and no later start will find it: as long as
        neither is certain this does not return, and `trouble` says why."""
        manifest = self._manifest_of(command, extra)
        try:
            await self._in_thread(self._state.commit, manifest)
        except OSError as error:
            await self._withdraw(manifest.epoch, error)
            raise
        self._manifest = manifest
        self._committed_at = time.monotonic()

    def _manifest_of(self, command: WriteManifest, extra: ManifestExtra) -> Manifest:
        return Manifest(
            command.epoch,
            command.generation,
            command.finished,
            {part.stage: (part.file, part.length, part.checksum) for part in command.parts},
            self._shape,
            at=time.time() if extra.at is None else extra.at,
            seconds=extra.seconds,
            positions=extra.positions,
            changes=extra.changes,
            retractable=self._retractable,
        )

    async def _withdraw(self, epoch: int, cause: OSError) -> None:
        """Until the manifest is gone for certain, nobody may be told that the epoch is aborted: a start that found it
        would restore what the stages have gone on without. When we are closed first, nobody is told anything, and the
        next start finds one or the other."""
        delay = WITHDRAW_BACKOFF_FIRST_S
        try:
            while not self._closing.is_set():
                try:
                    return await self._in_thread(self._state.withdraw, epoch)
                except OSError as error:
                    self._withdrawal = (
                        f"the manifest of epoch {epoch} ({cause}) can be neither kept nor removed: {error}"
                    )
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._closing.wait(), delay)
                delay = min(WITHDRAW_BACKOFF_MAX_S, delay * 2.0)
            raise asyncio.CancelledError
        finally:
            self._withdrawal = None

    @property
    def trouble(self) -> str | None:
        """What the disk refuses at the moment, for status; None: nothing."""
        return self._withdrawal or self._retention

    @property
    def state_bytes(self) -> int | None:
        """Bytes of all files below the state directory, as of the last retention; None before it."""
        return self._bytes

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

    def changes_of(self, epoch: int | None) -> tuple[dict[str, Any], ...]:
        """The commands that every restore of the committed epoch repeats."""
        assert epoch is None or (self._manifest is not None and self._manifest.epoch == epoch), epoch
        return self._manifest.changes if epoch is not None and self._manifest is not None else ()

    async def checkpoints(self) -> list[dict[str, Any]]:
        """Every committed epoch, newest first (`StateDirectory.checkpoints`)."""
        return await self._in_thread(self._state.checkpoints, time.time())

    async def keep(self, name: str, epoch: int) -> None:
        """Keep a committed epoch under a name, whatever the retention says. StateError when it is gone, or the name is
        none; OSError when the disk refuses."""
        await self._in_thread(self._state.keep, name, epoch)

    async def forget(self, name: str) -> None:
        """Let go of a name. StateError when there is none such."""
        await self._in_thread(self._state.forget, name)

    def retain(self, epoch: int) -> None:
        """`epoch` was committed or aborted: remove, some time later, what is older than it and not retained. After an
        abort too, for on a full disk the snapshots of every attempt would make the next one less likely."""
        self._thread.submit(self._remove, epoch)

    def close(self) -> None:
        """Wait for what is under way, and let go of the state directory."""
        self._closing.set()
        self._thread.shutdown(wait=True)
        self._state.close()

    async def _in_thread(self, function: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)

    def _remove(self, before: int) -> None:
        try:
            self._state.retain(self._retain_epochs, before)
        except (OSError, StateError) as error:  # what could not be removed is removed after a later epoch
            self._retention = f"old epochs cannot be removed: {error}"
        else:
            self._retention = None
        self._bytes = self._state.size(time.monotonic())
