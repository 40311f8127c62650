"""A stage's state to the disk and back, beside the data path: one thread that waits for fsync."""

from __future__ import annotations

import asyncio
import concurrent.futures
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from streampiped.errors import StateError
from streampiped.host import Host
from streampiped.runtime.snapshots import snapshot_name, write_durably
from streampiped.stages.base import SinkStage, SourceStage, Stage
from streampiped.wire import state as wire_state
from streampiped.wire.messages import SnapshotDone, SnapshotFailed

TICK_S: Final = 0.1  # between two words to whoever watches us; no `hang_timeout` of sense is shorter


@dataclass(frozen=True, slots=True)
class Cut:
    """A stage at one barrier, serialised. `position`: of a source, the records it has given since the stream began.
    Times as in `SnapshotDone`."""

    data: bytes
    position: int | None
    aligned_ns: int
    snapshot_ns: int


class Saver:
    """Saves and restores one stage; a sink's `prepare` and `rollback` go with it."""

    def __init__(self, process: Host, stage: Stage) -> None:
        self._stage = stage
        self._loop = process.loop
        self._tick = process.tick
        self._name = process.spec.name
        self._kind = process.spec.klass
        self._epochs = Path(process.plan.paths.state, "epochs")
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "saver")

    @property
    def holds_back(self) -> bool:
        """Whether the stage must take nothing from `cut` until `save` is over."""
        return isinstance(self._stage, SinkStage) and not self._stage.overlaps

    def cut(self, epoch: int) -> Cut:
        """The stage's present state as portable bytes. On the data path, with every input at the barrier."""
        aligned = time.monotonic_ns()
        data = wire_state.pack(self._kind, self._stage.snapshot())
        if isinstance(self._stage, SinkStage):
            self._stage.seal(epoch)
        position = self._stage.position() if isinstance(self._stage, SourceStage) else None
        return Cut(data, position, aligned, time.monotonic_ns() - aligned)

    def save(self, generation: int, epoch: int, cut: Cut) -> asyncio.Future[SnapshotDone | SnapshotFailed]:
        """Make the cut, and what a sink has prepared, durable; what the supervisor is to be told. A disk that takes no
        snapshot is an answer, and tried again with new files. What a sink raises is raised: one that could not prepare
        has lost its transaction, and only a reset brings it back."""
        return self._loop.run_in_executor(self._thread, self._save, generation, epoch, cut)

    def restore(self, epoch: int | None, snapshot: str | None, *, keep: bool) -> None:
        """Become what the stage was at `epoch` (None: new); `keep`: it is that already, and only what a sink has
        written since is to be taken back. StateError when the snapshot cannot be used."""
        if isinstance(self._stage, SinkStage):
            self._stage.rollback(epoch)
        if keep:
            return
        if snapshot is None:
            self._stage.restore(None)
            return
        path = self._epochs / snapshot
        try:
            state = wire_state.unpack(path.read_bytes(), self._kind)
        except (OSError, StateError) as error:
            raise StateError(f"{path}: {error}") from error
        self._stage.restore(state)

    def join(self) -> None:
        """Wait for what is under way, whatever comes of it: a fork must find no thread at work. A slow disk is no
        hang."""
        idle = self._thread.submit(lambda: None)
        while concurrent.futures.wait([idle], TICK_S).not_done:
            self._tick()

    def close(self) -> None:
        """Wait for what is under way."""
        self._thread.shutdown(wait=True)

    def _save(self, generation: int, epoch: int, cut: Cut) -> SnapshotDone | SnapshotFailed:
        began = time.monotonic_ns()
        if isinstance(self._stage, SinkStage):
            self._prepare(self._stage, epoch)
        name = snapshot_name(self._name, generation, epoch)
        try:
            write_durably(self._epochs / name, cut.data)
        except OSError as error:
            return SnapshotFailed(generation, epoch, str(error))
        return SnapshotDone(
            generation,
            epoch,
            name,
            len(cut.data),
            zlib.crc32(cut.data),
            cut.position,
            cut.aligned_ns,
            cut.snapshot_ns,
            time.monotonic_ns() - began,
        )

    def _prepare(self, sink: SinkStage, epoch: int) -> None:
        try:
            sink.prepare(epoch)
        except OSError as error:  # not a refused snapshot, which would be an answer
            raise StateError(f"prepare of epoch {epoch}: {error}") from error
