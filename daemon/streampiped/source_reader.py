"""What a stage without inputs does in its turn: reads its source, sends what came, and waits as the source says."""

from __future__ import annotations

import time
from collections.abc import Callable

from streampiped.core.stage_side import StageSide
from streampiped.errors import FrameError
from streampiped.host import Host
from streampiped.phases import Phase
from streampiped.records import Batch
from streampiped.runtime import blackbox as bb
from streampiped.stage_links import StageLinks
from streampiped.stages.base import Ended, Idle, SourceStage
from streampiped.turns import Turns


class SourceReader:
    """Reads one source, a batch at a time."""

    def __init__(
        self,
        process: Host,
        stage: SourceStage,
        side: StageSide,
        links: StageLinks,
        turns: Turns,
        count: Callable[[Batch, int], None],
        on_end: Callable[[], None],
    ) -> None:
        """`count(batch, ns)`: a batch is there, and the reading of it began then. `on_end()`: there will never be
        another one."""
        self._process = process
        self._stage = stage
        self._words = process.blackbox.words
        self._side = side
        self._links = links
        self._turns = turns
        self._count = count
        self._on_end = on_end

    def step(self) -> bool:
        """Read once; False when there is nothing more now, and a turn comes when there may be."""
        words = self._words
        words[bb.PHASE] = Phase.PROCESSING
        self._side.moved = True
        now = time.monotonic()
        result = self._stage.read(now)
        words[bb.PULSE] += 1
        words[bb.PHASE] = Phase.WAITING
        if isinstance(result, Batch):
            result.ingest_ns = time.monotonic_ns()
            self._count(result, int(now * 1e9))
            words[bb.RECORDS_OUT] += self._links.emit_parts(result, self._left_out)
            self._turns.throttle(result.rows)
            return True
        if isinstance(result, Ended):
            self._on_end()
        else:
            self._await(result)
        return False

    def _left_out(self, batch: Batch, error: FrameError) -> None:
        self._process.emit("record_left_out", position=batch.spans[0].start, reason=str(error))

    def _await(self, idle: Idle) -> None:
        if idle.wake_at is not None:
            self._turns.after(idle.wake_at - time.monotonic())
        fd = self._stage.wake_fd()
        if fd is not None:
            self._turns.when_readable(fd)
