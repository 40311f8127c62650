"""A stage's state to the disk and back, beside the data path: one thread that waits for fsync."""

from __future__ import annotations

import asyncio
import concurrent.futures
import zlib
from pathlib import Path

from streampiped.errors import StateError
from streampiped.host import Host
from streampiped.runtime.snapshots import snapshot_name, write_durably
from streampiped.stages.base import SinkStage, Stage
from streampiped.wire import state as wire_state
from streampiped.wire.messages import SnapshotDone, SnapshotFailed


class Saver:
    """Saves and restores one stage; a sink's `prepare` and `rollback` go with it."""

    def __init__(self, process: Host, stage: Stage) -> None:
        self._stage = stage
        self._name = process.spec.name
        self._kind = process.spec.klass
        self._epochs = Path(process.plan.paths.state, "epochs")
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "saver")

    def pack(self) -> bytes:
        """The stage's present state as portable bytes."""
        return wire_state.pack(self._kind, self._stage.snapshot())

    async def save(self, generation: int, epoch: int, data: bytes) -> SnapshotDone | SnapshotFailed:
        """Make `data`, and what a sink has prepared, durable; what the supervisor is to be told. A disk that takes no
        snapshot is an answer, and tried again with new files. What a sink or user code raises is raised: a sink that
        could not prepare has lost its transaction, and only a restore brings it back."""
        name = snapshot_name(self._name, generation, epoch)
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._write, epoch, name, data)
        except OSError as error:
            return SnapshotFailed(generation, epoch, str(error))
        return SnapshotDone(generation, epoch, name, len(data), zlib.crc32(data))

    def restore(self, epoch: int | None, snapshot: str | None) -> None:
        """Become what the stage was at `epoch` (None: new). StateError when the snapshot cannot be used."""
        if isinstance(self._stage, SinkStage):
            self._stage.rollback(epoch)
        if snapshot is None:
            self._stage.restore(None)
            return
        path = self._epochs / snapshot
        try:
            state = wire_state.unpack(path.read_bytes(), self._kind)
        except (OSError, StateError) as error:
            raise StateError(f"{path}: {error}") from error
        self._stage.restore(state)

    def close(self) -> None:
        """Wait for what is under way."""
        self._thread.shutdown(wait=True)

    def _write(self, epoch: int, name: str, data: bytes) -> None:
        if isinstance(self._stage, SinkStage):
            try:
                self._stage.prepare(epoch)
            except OSError as error:
                raise StateError(f"prepare of epoch {epoch}: {error}") from error
        write_durably(self._epochs / name, data)
