"""The supervisor's helper thread: it waits for the disk, so that nobody else does."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from streampiped.core.epoch_commands import REPLAY, WriteManifest
from streampiped.errors import StateError, StorageError
from streampiped.runtime.dead_letters import DeadLetters
from streampiped.runtime.snapshots import Manifest, StateDirectory
from streampiped.topology import Plan
from streampiped.wire.messages import Guilty

T = TypeVar("T")

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
        self.retain_epochs = plan.checkpoint.retain_epochs
        self._letters = DeadLetters(Path(plan.paths.state))
        self._unmarked: Manifest | None = None
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "disk")
        self._closing = asyncio.Event()
        self._withdrawal: str | None = None
        self._retention: str | None = None
        self._bytes: int | None = None

    async def commit(self, command: WriteManifest) -> None:
        """Returns when the manifest is durable. OSError when it is not, and no later start will find it: as long as
        neither is certain this does not return, and `trouble` says why."""
        manifest = self._manifest_of(command)
        try:
            await self.do(self._commit, manifest)
        except OSError as error:
            await self._withdraw(manifest.epoch, error)
            raise
        self._manifest = manifest
        self._committed_at = time.monotonic()

    def _commit(self, manifest: Manifest) -> None:
        self._state.commit(manifest)
        self._unmarked = manifest if manifest.changes else None
        with contextlib.suppress(StorageError, StateError):  # the manifest says it as well: `plan_replay`, or a start
            self._mark_replayed()

    def _mark_replayed(self) -> None:
        """A letter that a manifest replays is dead no more, and must not be replayed by another."""
        while self._unmarked is not None:
            for change in _replays(self._unmarked):
                self._letters.replayed(change, self._unmarked.epoch)
            self._unmarked = None

    # dead letters: each raises StorageError when the disk refuses, StateError when the file is damaged

    def reconcile(self) -> None:
        """Before anything starts: replays that the restored epoch does not know of have not happened."""
        restored = self._manifest
        self._letters.reconcile(restored.epoch if restored else None, _replays(restored))

    async def condemn(self, stage: str, rows: Sequence[Guilty]) -> None:
        """Put rows aside, durably."""
        await self.do(self._letters.add, stage, rows, time.time())

    async def plan_replay(self, letters: Sequence[int], stage: str | None) -> list[dict[str, Any]]:
        """`DeadLetters.plan`, knowing of every manifest that is written."""

        def plan() -> list[dict[str, Any]]:
            self._mark_replayed()
            return self._letters.plan(letters, stage)

        return await self.do(plan)

    async def end_replay(self) -> None:
        """Whatever was planned and is in no manifest will not be in one."""
        await self.do(self._letters.forget_plan)

    async def drop_letters(self, letters: Sequence[int], stage: str | None) -> int:
        """`DeadLetters.drop`, knowing of every manifest that is written."""

        def drop() -> int:
            self._mark_replayed()
            return self._letters.drop(letters, stage)

        return await self.do(drop)

    @property
    def letters(self) -> DeadLetters:
        """Only for calls through `do`."""
        return self._letters

    async def do(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function that waits for the disk."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)

    def _manifest_of(self, command: WriteManifest) -> Manifest:
        return Manifest(
            command.epoch,
            command.generation,
            command.finished,
            {part.stage: (part.file, part.length, part.checksum) for part in command.parts},
            self._shape,
            at=time.time(),
            seconds=command.seconds,
            positions={part.stage: part.position for part in command.parts if part.position is not None},
            changes=tuple(dict(change) for change in command.changes),
            retractable=self._retractable,
        )

    async def _withdraw(self, epoch: int, cause: OSError) -> None:
        """Until the manifest is gone for certain, nobody may be told that the epoch is aborted: a start that found it
        would restore what the stages have gone on without. Only when everybody leaves that does not matter."""
        delay = WITHDRAW_BACKOFF_FIRST_S
        try:
            while not self._closing.is_set():
                try:
                    return await self.do(self._state.withdraw, epoch)
                except OSError as error:
                    self._withdrawal = (
                        f"the manifest of epoch {epoch} ({cause}) can be neither kept nor removed: {error}"
                    )
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._closing.wait(), delay)
                delay = min(WITHDRAW_BACKOFF_MAX_S, delay * 2.0)
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

    async def checkpoints(self) -> list[dict[str, Any]]:
        """Every committed epoch, newest first (`StateDirectory.checkpoints`)."""
        return await self.do(self._state.checkpoints, time.time())

    async def keep(self, name: str, epoch: int) -> None:
        """Keep a committed epoch under a name, whatever the retention says. StateError when it is gone, or the name is
        none; OSError when the disk refuses."""
        await self.do(self._state.keep, name, epoch)

    async def forget(self, name: str) -> None:
        """Let go of a name. StateError when there is none such."""
        await self.do(self._state.forget, name)

    def retain(self, epoch: int) -> None:
        """`epoch` was committed or aborted: remove, some time later, what is older than it and not retained. After an
        abort too, for on a full disk the snapshots of every attempt would make the next one less likely."""
        self._thread.submit(self._remove, epoch)

    def give_up(self) -> None:
        """Everybody leaves: a manifest that can be neither kept nor removed must not keep us. The next start finds one
        or the other, and either is right, for nobody has gone on without it."""
        self._closing.set()

    def close(self) -> None:
        """Wait for what is under way, and let go of the state directory."""
        self.give_up()
        self._thread.shutdown(wait=True)
        self._letters.close()
        self._state.close()

    def _remove(self, before: int) -> None:
        try:
            self._state.retain(self.retain_epochs, before)
        except (OSError, StateError) as error:  # what could not be removed is removed after a later epoch
            self._retention = f"old epochs cannot be removed: {error}"
        else:
            self._retention = None
        self._bytes = self._state.size(time.monotonic())


def _replays(manifest: Manifest | None) -> list[dict[str, Any]]:
    """Those of its changes that are about dead letters."""
    return [change for change in manifest.changes if change.get("kind") == REPLAY] if manifest is not None else []
