"""The data path of one stage: links in, the stage's own code, links out; barriers, snapshots, resets.

One batch at a time. A frame is queued to every output before anything waits for one of them (else a diamond would
deadlock), and nothing more is read until every output is idle: that is the backpressure, and it is what makes views
of the read buffer safe to hand on.

                 reset(g)              go(g)
    idle ------------------> ready -----------> flowing <--> paused (output full, sink prepares, rate, hold)
     ^                                             |
     +---------------------------------------------+  reset(g+1)
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any, Final

from streampiped.errors import FrameError
from streampiped.host import Host
from streampiped.phases import Phase
from streampiped.records import Batch
from streampiped.runtime import blackbox as bb
from streampiped.runtime.pipes import PipeWriter
from streampiped.saver import Saver
from streampiped.stage_api import StageApi
from streampiped.stages.base import Ended, Idle, SinkStage, SourceStage, Stage
from streampiped.wire import messages as m
from streampiped.wire.frames import Barrier, End, Frame, FrameReader, FrameWriter, Hello

TURN_S: Final = 0.01  # work between two looks at the control socket: `status` must not wait for a busy stage


class InputLink:
    """One input of one generation."""

    __slots__ = ("barrier", "ended", "fd", "name", "reader")

    def __init__(self, name: str, fd: int, generation: int, frame_bytes_max: int) -> None:
        self.name = name
        self.fd = fd
        self.reader = FrameReader(generation, frame_bytes_max)
        self.barrier: int | None = None
        self.ended = False


class DataPath:
    """Drives one stage. All calls come on the process's loop."""

    def __init__(self, process: Host, stage: Stage) -> None:
        self._process = process
        self._stage = stage
        self._spec = process.spec
        self._loop = process.loop
        self._words = process.blackbox.words
        self._saver = Saver(process, stage)
        self._api = StageApi(process, stage)
        self._tasks: set[asyncio.Task[None]] = set()
        self._generation = 0
        self._restored: int | None = None
        self._inputs: list[InputLink] = []
        self._outputs: list[PipeWriter] = []
        self._frames = FrameWriter(0, process.plan.links.frame_bytes_max)
        self._resetting: asyncio.Task[None] | None = None
        self._durable: asyncio.Task[None] | None = None
        self._flowing = False
        self._preparing = False
        self._holding = False
        self._ended = False
        self._reading = False
        self._turn: asyncio.Handle | None = None
        self._throttle_until = 0.0
        self._wake_fd: int | None = None

    # messages

    def handle(self, message: m.Message, descriptors: list[int]) -> None:
        """A message of the supervisor; what belongs to another generation is dropped."""
        if isinstance(message, m.Reset):
            before = self._resetting
            self._resetting = self._task(self._reset(message, descriptors, before))
            return
        if message.generation != self._generation or self._is_resetting():  # type: ignore[union-attr]  # all have one
            return
        match message:
            case m.Go():
                self._go()
            case m.Barrier():
                self._source_barrier(message.epoch, message.hold)
            case m.Commit():
                self._commit(message.epoch)
            case m.Committed():
                self._committed(message.epoch)

    def close(self) -> None:
        """Stop everything; unfinished epochs are somebody else's to repeat."""
        self._close_links()
        self._saver.close()
        self._api.close()

    # generations

    def _is_resetting(self) -> bool:
        return self._resetting is not None and not self._resetting.done()

    async def _reset(self, reset: m.Reset, descriptors: list[int], before: asyncio.Task[None] | None) -> None:
        """Drop the old generation, become the restored epoch, take the new links, answer ready."""
        try:
            if before is not None and not before.done():
                await before
            self._close_links()
            self._process.blackbox.enter(Phase.RESTORING)
            if self._durable is not None:
                await self._durable  # a prepare that is under way must not race with the rollback
            self._saver.restore(reset.epoch, reset.snapshot)
        except Exception as error:  # noqa: BLE001  whatever user code raises is the stage's failure
            self._process.fail("restore", error)
        self._generation = reset.generation
        frame_bytes_max = self._process.plan.links.frame_bytes_max
        self._frames = FrameWriter(reset.generation, frame_bytes_max)
        for name, fd in zip(reset.inputs, descriptors, strict=False):
            self._inputs.append(InputLink(name, fd, reset.generation, frame_bytes_max))
        for fd in descriptors[len(reset.inputs) :]:
            self._outputs.append(PipeWriter(fd, self._loop, self._output_idle))
        total = self._stage.total() if isinstance(self._stage, SourceStage) else None
        self._restored = reset.epoch
        self._process.blackbox.begin(reset.generation, total or 0)
        self._process.blackbox.enter(Phase.WAITING)
        self._api.serve()
        self._process.channel.send(m.Ready(reset.generation))

    def _close_links(self) -> None:
        self._flowing = self._holding = self._ended = self._preparing = False
        self._throttle_until = 0.0
        self._stop_reading()
        self._cancel_turn()
        for link in self._inputs:
            os.close(link.fd)
        for output in self._outputs:
            output.close()
        self._inputs, self._outputs = [], []

    def _go(self) -> None:
        self._flowing = True
        self._process.blackbox.enter(Phase.WAITING)
        if self._restored is not None:
            self._committed(self._restored)  # what was restored is durable: a model of that epoch can be served again
        self._next_turn()

    # the flow

    def _next_turn(self, delay: float = 0.0) -> None:
        """Go on as soon as the loop has looked at everything else, or after `delay` seconds."""
        self._cancel_turn()
        self._turn = self._loop.call_later(delay, self._run) if delay > 0 else self._loop.call_soon(self._run)

    def _cancel_turn(self) -> None:
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        if self._wake_fd is not None:
            self._loop.remove_reader(self._wake_fd)
            self._wake_fd = None

    def _run(self) -> None:
        """One turn: as much as there is, for at most TURN_S."""
        self._cancel_turn()
        until = time.monotonic() + TURN_S
        step = self._read_source if isinstance(self._stage, SourceStage) else self._take_frame
        try:
            while self._may_flow():
                if not step():
                    return
                if time.monotonic() >= until:
                    self._next_turn()
                    return
        except FrameError as error:
            self._process.fail("a link", error)
        except (Exception, SystemExit) as error:  # noqa: BLE001  whatever user code raises is the stage's failure
            self._process.fail("process", error)

    def _may_flow(self) -> bool:
        """Whether nothing holds us up; who holds us up calls `_next_turn` when it is over."""
        if not self._flowing or self._preparing or self._holding:
            return False
        if not all(output.idle for output in self._outputs):
            self._stop_reading()
            self._process.blackbox.enter(Phase.BLOCKED)
            return False
        wait = self._throttle_until - time.monotonic()
        if wait > 0:
            self._stop_reading()
            self._process.blackbox.enter(Phase.THROTTLED)
            self._next_turn(wait)
            return False
        return True

    def _output_idle(self) -> None:
        if self._flowing:
            self._process.blackbox.enter(Phase.WAITING)
            self._next_turn()

    def _emit(self, frame: Frame) -> None:
        if self._outputs:
            buffers = self._frames.encode(frame)
            for output in self._outputs:
                output.write(buffers)

    def _emit_batch(self, batch: Batch) -> None:
        self._words[bb.RECORDS_OUT] += batch.rows
        self._emit(batch)

    def _throttle(self, rows: int) -> None:
        if self._spec.max_rate:
            now = time.monotonic()
            self._throttle_until = max(now, self._throttle_until) + rows / self._spec.max_rate

    # a source

    def _read_source(self) -> bool:
        stage = self._stage
        assert isinstance(stage, SourceStage)
        if self._ended:
            return False
        words = self._words
        words[bb.PHASE] = Phase.PROCESSING
        result = stage.read(time.monotonic())
        words[bb.PULSE] += 1
        words[bb.PHASE] = Phase.WAITING
        if isinstance(result, Batch):
            result.ingest_ns = time.monotonic_ns()
            words[bb.RECORDS_IN] += result.rows
            self._count(result)
            self._emit_batch(result)
            self._throttle(result.rows)
            return True
        if isinstance(result, Ended):
            self._ended = True
            self._process.blackbox.enter(Phase.ENDED)
            self._emit(End())
            self._process.channel.send(m.SourceEnded(self._generation, self._words[bb.RECORDS_OUT]))
            return False
        self._await_source(stage, result)
        return False

    def _await_source(self, stage: SourceStage, idle: Idle) -> None:
        if idle.wake_at is not None:
            self._next_turn(max(idle.wake_at - time.monotonic(), 1e-6))
        fd = stage.wake_fd()
        if fd is not None:
            self._wake_fd = fd
            self._loop.add_reader(fd, self._run)

    def _source_barrier(self, epoch: int, hold: bool) -> None:
        if hold:
            self._holding = True
            self._cancel_turn()
        self._guarded_snapshot(epoch)

    # a stage with inputs

    def _take_frame(self) -> bool:
        """Handle one frame; False when more must be read first."""
        for link in self._inputs:
            if link.barrier is not None:
                continue  # early at the barrier: not read further until the others are there
            frame = link.reader.next()
            if frame is not None:
                self._handle_frame(link, frame)
                return True
        if any(link.barrier is not None for link in self._inputs):
            self._process.blackbox.enter(Phase.ALIGNING)
        self._start_reading()
        return False

    def _handle_frame(self, link: InputLink, frame: Frame) -> None:
        match frame:
            case Batch():
                self._process_batch(frame)
            case Barrier(epoch):
                link.barrier = epoch
                if all(other.barrier == epoch for other in self._inputs):
                    for other in self._inputs:
                        other.barrier = None
                    self._snapshot(epoch)
            case End():
                link.ended = True
                if all(other.ended for other in self._inputs):
                    self._ended = True
                    self._emit(End())
            case Hello():
                pass

    def _process_batch(self, batch: Batch) -> None:
        words = self._words
        words[bb.SEQUENCE] = batch.sequence
        words[bb.POSITION] = batch.spans[0].start if batch.spans else 0
        words[bb.ROWS] = batch.rows
        words[bb.PHASE] = Phase.PROCESSING
        result = self._stage.process(batch)
        words[bb.PULSE] += 1
        words[bb.PHASE] = Phase.WAITING
        words[bb.RECORDS_IN] += batch.rows
        self._count(batch)
        if result is not None:
            self._emit_batch(result)
        self._throttle(batch.rows)

    def _count(self, batch: Batch) -> None:
        now = time.monotonic_ns()
        words = self._words
        words[bb.LAG_NS] = max(0, now - batch.ingest_ns)
        words[bb.BATCHES] += 1
        if words[bb.BATCHES] == 1:
            self._process.channel.send(m.FirstBatch(self._generation, now))

    def _start_reading(self) -> None:
        if not self._reading:
            self._reading = True
            for link in self._inputs:
                if link.barrier is None:
                    self._loop.add_reader(link.fd, self._readable, link)

    def _stop_reading(self) -> None:
        if self._reading:
            self._reading = False
            for link in self._inputs:
                self._loop.remove_reader(link.fd)

    def _readable(self, link: InputLink) -> None:
        if not self._may_flow():  # a view of the buffer may still be on its way out
            return
        try:
            count = os.readv(link.fd, [link.reader.space()])
        except BlockingIOError:
            return
        if not count:  # the supervisor holds both ends, so this generation is over
            self._stop_reading()
            return
        link.reader.filled(count)
        self._run()
        if link.barrier is not None and self._reading:
            self._loop.remove_reader(link.fd)

    # epochs

    def _guarded_snapshot(self, epoch: int) -> None:
        try:
            self._snapshot(epoch)
        except Exception as error:  # noqa: BLE001  whatever user code raises is the stage's failure
            self._process.fail("snapshot", error)

    def _snapshot(self, epoch: int) -> None:
        """All inputs are aligned: serialise, forward the barrier at once, make it durable beside the data path."""
        self._process.blackbox.enter(Phase.PREPARING)
        data = self._saver.pack()
        self._emit(Barrier(epoch))
        self._preparing = isinstance(self._stage, SinkStage)
        self._stop_reading()  # inputs that were early are read again
        self._durable = self._task(self._make_durable(self._generation, epoch, data))
        if not self._preparing:
            self._process.blackbox.enter(Phase.ENDED if self._ended else Phase.WAITING)
            self._next_turn()

    async def _make_durable(self, generation: int, epoch: int, data: bytes) -> None:
        try:
            answer = await self._saver.save(generation, epoch, data)
        except Exception as error:  # noqa: BLE001  whatever user code raises is the stage's failure
            self._process.fail("prepare", error)
        self._process.channel.send(answer)
        if self._preparing and generation == self._generation:
            self._preparing = False
            self._process.blackbox.enter(Phase.WAITING)
            self._next_turn()

    def _commit(self, epoch: int) -> None:
        if isinstance(self._stage, SinkStage):
            try:
                self._stage.commit(epoch)
            except Exception as error:  # noqa: BLE001  the manifest stands: a new process commits by `rollback`
                self._process.fail("commit", error)
        self._process.channel.send(m.CommitDone(self._generation, epoch))

    def _committed(self, epoch: int) -> None:
        try:
            call = self._stage.committed(epoch)
        except Exception as error:  # noqa: BLE001  whatever user code raises is the stage's failure
            self._process.fail("committed", error)
        if call is not None:
            self._task(self._api.ask(call))

    def _task(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
