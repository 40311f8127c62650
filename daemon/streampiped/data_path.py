"""The data path of one stage: performs what `core/stage_side.py` decides, and moves batches while it says so.

One batch at a time. A frame is queued to every output before anything waits for one of them (else a diamond would
deadlock), and nothing more is read until every output is idle: that is the backpressure, and it is what makes views
of the read buffer safe to hand on.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from streampiped.applied import Changes
from streampiped.core import stage_side as side
from streampiped.errors import FrameError, SchemaError, StorageError
from streampiped.gate import Gate
from streampiped.host import Host
from streampiped.phases import Phase
from streampiped.records import Batch
from streampiped.runtime import blackbox as bb
from streampiped.saver import Cut, Saver
from streampiped.source_reader import SourceReader
from streampiped.stage_api import StageApi
from streampiped.stage_links import InputLink, StageLinks
from streampiped.stages.base import SinkStage, SourceStage, Stage
from streampiped.turns import Turns
from streampiped.wire import messages as m
from streampiped.wire.frames import Barrier, End, Frame, Hello

TURN_S: Final = 0.01  # work between two looks at the control socket: `status` must not wait for a busy stage

_PHASES: Final = {
    side.State.LOADED: Phase.WAITING,
    side.State.SETTLING: Phase.RESTORING,
    side.State.RESTORING: Phase.RESTORING,
    side.State.READY: Phase.WAITING,
    side.State.APPLYING: Phase.WAITING,
    side.State.FLOWING: Phase.WAITING,
    side.State.ALIGNING: Phase.WAITING,  # until nothing is left to take from the other inputs
    side.State.PREPARING: Phase.PREPARING,
    side.State.HOLDING: Phase.HOLDING,
    side.State.ENDED: Phase.ENDED,
    side.State.STILL: Phase.HOLDING,
}
_DEEDS: Final[dict[type[side.Command], str]] = {
    side.Restore: "restore",
    side.Apply: "a change",
    side.Snapshot: "snapshot",
    side.Commit: "commit",
    side.Hear: "committed",
}
"""In what a stage has failed, for people."""
_REFUSABLE: Final = (side.Restore, side.Apply, side.Commit)
"""Commands during which a StorageError is the disk's failure and not the stage's."""


class DataPath:
    """Drives one stage. All calls come on the process's loop."""

    def __init__(self, process: Host, stage: Stage) -> None:
        self._process = process
        self._stage = stage
        self._words = process.blackbox.words
        self._places = {spec.name: place for place, spec in enumerate(process.plan.stages)}
        self._ways = {via: place for place, via in enumerate(process.plan.ways())}
        self._saver = Saver(process, stage)
        self._api = StageApi(process, stage)
        self._side = side.StageSide(holds_back=self._saver.holds_back)
        name = process.spec.name
        self._turns = Turns(process.loop, self._run, process.spec.max_rate)
        self._limited = bool(process.spec.max_rate)  # saves two calls for each frame of those that are not
        go_on = partial(self._run, held_up=False)  # `_may_flow` was asked before bytes were read
        self._links = StageLinks(process.plan, name, process.loop, self._may_flow, go_on, self._output_idle)
        self._gate = Gate(process, stage, self._links.rehearse)
        self._reset: tuple[m.Reset, list[int]] | None = None
        self._cut: Cut | None = None
        self._report: tuple[m.SnapshotDone | m.SnapshotFailed, ...] = ()
        self._changes = Changes(stage, self._gate)
        self._usual = self._reader(stage).step if isinstance(stage, SourceStage) else self._take_frame
        self._step: Callable[[], bool] = self._usual
        self._questions: set[asyncio.Task[None]] = set()
        self._performers: dict[type[side.Command], Callable[[Any], None]] = {
            side.Drop: lambda _: self._drop(),
            side.Restore: self._restore,
            side.SayReady: lambda c: self._say(m.Ready(c.generation)),
            side.Hear: self._hear,
            side.Apply: self._apply,
            side.Snapshot: self._snapshot,
            side.EmitBarrier: lambda c: self._links.emit(Barrier(c.epoch)),
            side.Save: self._save,
            side.Report: lambda _: self._say(*self._report),
            side.EmitEnd: lambda _: self._links.emit(End()),
            side.SayEnded: lambda c: self._say(m.SourceEnded(c.generation, self._words[bb.RECORDS_OUT])),
            side.Commit: self._commit,
            side.SayCommitDone: lambda c: self._say(m.CommitDone(c.generation, c.epoch)),
            side.SayImpaired: lambda c: self._say(m.Impaired(c.generation, c.reason)),
            side.SayJudged: lambda c: self._say(m.Judged(c.generation, c.guilty)),
        }

    def _reader(self, stage: SourceStage) -> SourceReader:
        return SourceReader(self._process, stage, self._side, self._links, self._turns, self._count, self._end)

    # messages in, commands out

    def handle(self, message: m.Message, descriptors: list[int]) -> None:
        """A message of the supervisor, with the descriptors that came along."""
        match message:
            case m.Reset(generation, epoch, snapshot, inputs, _, _, changes):
                self._let_go()
                self._reset = message, descriptors
                self._perform(self._side.reset(generation, epoch, snapshot, inputs, changes))
            case m.Go(generation):
                self._perform(self._side.go(generation))
            case m.Barrier(generation, epoch, hold):
                self._perform(self._side.asked(generation, epoch, hold))
            case m.Pause(generation):
                self._perform(self._side.pause(generation))
            case m.Resume(generation):
                self._perform(self._side.resume(generation))
            case m.Commit(generation, epoch):
                self._perform(self._side.commit(generation, epoch))
            case m.Committed(generation, epoch):
                self._perform(self._side.committed(generation, epoch))

    def close(self) -> None:
        """Stop everything; unfinished epochs are somebody else's to repeat."""
        self._drop()
        self._let_go()
        self._saver.close()
        self._api.close()

    def _perform(self, commands: Sequence[side.Command]) -> None:
        """In order, and then go on as the state allows. The rest is dropped when the disk refuses one of them."""
        for command in commands:
            try:
                self._performers[type(command)](command)
            except StorageError as error:
                if not isinstance(command, _REFUSABLE):
                    self._process.fail(_DEEDS.get(type(command), "the protocol"), error)
                self._perform(self._side.refused(str(error)))
                return
            except FrameError as error:
                self._process.fail("a link", error)
            except (Exception, SystemExit) as error:  # noqa: BLE001  whatever user code raises is the stage's failure
                self._process.fail(_DEEDS.get(type(command), "the protocol"), error)
        self._process.blackbox.enter(_PHASES[self._side.state])
        self._links.rest()  # a turn listens again, to those that do not wait any more
        if self._side.flows:
            self._turns.soon()
        else:
            self._turns.cancel()

    def _say(self, *messages: m.Message) -> None:
        for message in messages:
            self._process.channel.send(message)

    # generations

    def _let_go(self) -> None:
        """Of links that were offered and never taken: a newer reset has come."""
        if self._reset is not None:
            for fd in self._reset[1]:
                os.close(fd)
            self._reset = None

    def _drop(self) -> None:
        self._turns.forget()
        self._links.close()
        self._changes.clear()
        self._step = self._usual

    def _restore(self, command: side.Restore) -> None:
        self._process.blackbox.enter(Phase.RESTORING)
        self._saver.restore(command.epoch, command.snapshot, keep=command.keep)
        assert self._reset is not None
        (reset, descriptors), self._reset = self._reset, None
        self._links.open(command.generation, self._side.inlets, descriptors)
        self._gate.reset(command.generation, reset.suspects)
        total = self._stage.total() if isinstance(self._stage, SourceStage) else None
        self._process.blackbox.begin(command.generation, total or 0)
        self._api.serve()
        self._perform(self._side.restored())

    def _apply(self, command: side.Apply) -> None:
        self._side.moved = True
        if self._changes.begin(command.changes):
            self._step = self._take_letter
        else:  # at once: a source may be asked for a barrier before its next turn
            self._perform(self._side.applied())

    # the flow

    def _run(self, *, held_up: bool = True) -> None:
        """One turn: as much as there is, for at most TURN_S. `held_up`: something may be in its way now."""
        self._turns.cancel()
        until = time.monotonic() + TURN_S
        try:
            while not held_up or self._may_flow():
                held_up = True
                if not self._step():
                    return
                if time.monotonic() >= until:
                    self._turns.soon()
                    return
        except SchemaError as error:  # of what the stage has given
            self._process.fail("process", error)
        except FrameError as error:
            self._process.fail("a link", error)
        except StorageError as error:
            self._words[bb.INSIDE] = 0
            self._perform(self._side.refused(str(error)))
        except (Exception, SystemExit) as error:  # noqa: BLE001  whatever user code raises is the stage's failure
            self._process.fail("process", error)

    def _may_flow(self) -> bool:
        """Whether nothing holds us up; who holds us up has a turn planned when it is over."""
        if not self._side.flows:
            return False
        if (held_up := self._links.held_up()) is not None:
            self._links.rest()
            self._process.blackbox.enter(held_up)
            return False
        if self._limited and self._turns.throttled():
            self._links.rest()
            self._process.blackbox.enter(Phase.THROTTLED)
            return False
        return True

    def _output_idle(self) -> None:
        if self._side.flows:
            self._process.blackbox.enter(Phase.WAITING)
            self._turns.soon()

    def _end(self) -> None:
        self._perform(self._side.ended())

    # a stage with inputs

    def _take_frame(self) -> bool:
        """Handle one frame; False when more must be read first."""
        waits = False
        for link in self._links.inputs:
            if link.inlet.waits:
                waits = True
                continue
            frame = link.reader.next()
            if frame is not None:
                self._handle_frame(link, frame)
                return not self._links.dry or not self._side.flows
        if waits:
            self._process.blackbox.enter(Phase.ALIGNING)
        self._links.listen()
        return False

    def _handle_frame(self, link: InputLink, frame: Frame) -> None:
        match frame:
            case Batch():
                self._links.take(link, frame)
                self._take_batch(frame, 0)
                self._links.done(link)
            case Barrier(epoch):
                self._perform(self._side.barrier(link.inlet, epoch))
            case End():
                self._perform(self._side.end(link.inlet))
            case Hello():
                pass

    def _take_letter(self) -> bool:
        """Process a batch of records that come back into the stream; behind the last one begins the usual flow."""
        if (found := self._changes.next()) is not None:
            attempt, batch = found
            batch.ingest_ns = time.monotonic_ns()
            self._take_batch(batch, attempt)
            return True
        self._step = self._usual
        self._perform(self._side.applied())
        return False

    def _take_batch(self, batch: Batch, attempt: int) -> None:
        if self._gate.looks:
            if self._gate.suspects(batch):
                self._saver.join()
            admitted, guilty = self._gate.admit(batch, attempt)
            if guilty is not None:
                self._perform(self._side.judged(guilty))
            if admitted is None:
                return
            batch = admitted
        self._process_batch(batch)

    def _process_batch(self, batch: Batch) -> None:
        words, spans, places, ways = self._words, batch.spans, self._places, self._ways
        words[bb.SEQUENCE] = batch.sequence
        words[bb.POSITION], words[bb.ROWS] = spans[0].start if spans else 0, batch.rows
        self._process.blackbox.hold([(ways.get(s.via, 0), places[s.source], s.start, s.count) for s in spans])
        words[bb.PHASE] = Phase.PROCESSING
        self._side.moved = True
        began = time.monotonic_ns()
        result = self._stage.process(batch)
        if result is not None and not result.ingest_ns:  # of a batch that was built anew
            result.ingest_ns = batch.ingest_ns
        frame = self._links.encode(result) if result is not None else []  # what makes no frame is the batch's fault too
        words[bb.INSIDE] = 0  # and not after an exception: the supervisor sees what the stage has died of
        words[bb.PULSE] += 1
        words[bb.PHASE] = Phase.WAITING
        self._count(batch, began)
        if result is not None:
            words[bb.RECORDS_OUT] += result.rows
            self._links.send(frame)
        if self._limited:
            self._turns.throttle(batch.rows)

    def _count(self, batch: Batch, began: int) -> None:
        now = time.monotonic_ns()
        if self._process.blackbox.count(batch.rows, began, now, batch.ingest_ns) == 1:
            self._say(m.FirstBatch(self._side.generation, now))

    # epochs

    def _snapshot(self, command: side.Snapshot) -> None:
        self._process.blackbox.enter(Phase.PREPARING)
        self._cut = self._saver.cut(command.epoch)

    def _save(self, command: side.Save) -> None:
        cut, self._cut = self._cut, None
        assert cut is not None
        work = self._saver.save(command.generation, command.epoch, cut)
        work.add_done_callback(lambda done: self._saved(command.generation, done))

    def _saved(self, generation: int, work: asyncio.Future[m.SnapshotDone | m.SnapshotFailed]) -> None:
        try:
            self._report = (work.result(),)
        except StorageError as error:
            self._perform(self._side.unprepared(str(error)))
        except Exception as error:  # noqa: BLE001  whatever user code raises is the stage's failure
            self._process.fail("prepare", error)
        else:
            self._perform(self._side.saved(generation))

    def _commit(self, command: side.Commit) -> None:
        if isinstance(self._stage, SinkStage):
            self._stage.commit(command.epoch)

    def _hear(self, command: side.Hear) -> None:
        call = self._stage.committed(command.epoch)
        if call is not None:
            task = self._process.loop.create_task(self._api.ask(call))
            self._questions.add(task)
            task.add_done_callback(self._questions.discard)
