"""A stage's process, simulated: performs what the real `core/stage_side.py` decides, as `data_path.py` does."""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from sim.disk import Fuse, Killed
from sim.host import Host
from sim.manifests import snapshot_path
from sim.memory import Memory, Shared
from sim.pipes import Pipe
from sim.stages import REPLAY, Node, Place, Sink, Source, deaths, make_batch, make_stage, save
from sim.verdicts import DISK_S, skips
from sim.world import ETERNAL, Actor, ViolationError, World
from streampiped.applied import Changes
from streampiped.core import stage_side as side
from streampiped.errors import StorageError
from streampiped.phases import Phase
from streampiped.records import Batch, Span
from streampiped.skips import Skips, overlaps
from streampiped.topology import Plan
from streampiped.wire import messages as m
from streampiped.wire.frames import Barrier, End, Frame, FrameReader, FrameWriter, Hello

TURN_S: Final = 0.004  # between two turns of one stage
READ_S: Final = 0.03  # between two batches of a source
IDLE: Final = 0.1  # how often a source has nothing for the moment
FRAMES_PER_TURN: Final = 4
DIE_S: Final = 0.002  # from a signal to the end


class Poisoned(Killed):
    """A row has killed the process that was about to process it."""

    reason = "raised"


class Cut(NamedTuple):
    """A stage at one barrier."""

    generation: int
    epoch: int
    data: bytes
    position: int | None


class Ends(NamedTuple):
    """What comes along with a reset."""

    pipes: Sequence[Pipe] = ()
    memories: Mapping[str, Memory] = {}


class Link:
    __slots__ = ("inlet", "pipe", "reader")

    def __init__(self, inlet: side.Inlet, pipe: Pipe, reader: FrameReader) -> None:
        self.inlet = inlet
        self.pipe = pipe
        self.reader = reader


class Process(Actor):
    """From `Begin` to the death."""

    side_of: type[side.StageSide] = side.StageSide  # what mutations replace
    sink_of: type[Sink] = Sink
    skips_of: type[Skips] = Skips
    memory_of: type[Shared] = Shared

    def __init__(
        self,
        world: World,
        node: Node,
        incarnation: int,
        host: Host[Process],
        *,
        at_once: bool,
        poison: Collection[tuple[str, Place]] = (),
        plan: Plan,
    ) -> None:
        super().__init__()
        self.fuse = Fuse()
        self.name = node.name
        self.incarnation = incarnation
        self.title = f"{node.name}#{incarnation}"
        self.said_until = 0.0
        self.heard_until = 0.0
        self.unheard = 0
        """Messages on their way to it."""
        self.pulse = 0
        self.records_out = 0
        self.inside: tuple[tuple[str, str, int, int], ...] = ()
        self.world = world
        self.node = node
        self.stage = self.sink_of(node, world.disk) if node.role == "sink" else make_stage(node, world.disk)
        self._host = host
        self.side = self.side_of(holds_back=isinstance(self.stage, Sink) and not at_once)
        self.inputs: list[Link] = []
        self.outputs: list[Pipe] = []
        self._frames = FrameWriter(0)
        self.memory = self.memory_of(plan, node.name, world, self, self._output_idle)
        self._offer: tuple[m.Reset, Ends] | None = None
        self._poison = poison
        self._skips = Skips({})
        self._suspects: list[list[Any]] = []
        self._changes = Changes(self.stage, self)
        self._saves: deque[Cut] = deque()
        self._snapshot = b""
        self._report: m.Message | None = None
        self._leaving = False
        self._turn = 0
        world.after(DIE_S, self, self._load)

    def _say(self, message: m.Message | None) -> None:
        assert message is not None
        self._host.said(self, message)

    def _load(self) -> None:
        self._say(m.Loaded())

    # what is done to it

    def receive(self, data: bytes, ends: Ends) -> None:
        """A datagram of the supervisor."""
        self.unheard -= 1
        self.pulse += 1
        if self._leaving:
            return
        message = m.decode(data)
        machine = self.side
        match message:
            case m.Reset(generation, epoch, snapshot, inputs, _, _, changes):
                self._offer = message, ends
                self._guard(machine.reset, generation, epoch, snapshot, inputs, changes)
            case m.Go(generation):
                self._guard(machine.go, generation)
            case m.Barrier(generation, epoch, hold):
                self._guard(machine.asked, generation, epoch, hold)
            case m.Pause(generation):
                self._guard(machine.pause, generation)
            case m.Resume(generation):
                self._guard(machine.resume, generation)
            case m.Commit(generation, epoch):
                self._guard(machine.commit, generation, epoch)
            case m.Committed(generation, epoch):
                self._guard(machine.committed, generation, epoch)

    def leave(self) -> None:
        """SIGTERM and SIGCONT: what is being saved is finished."""
        self.world.unfreeze(self)
        self.world.after(DIE_S, self, self._leave)

    def _leave(self) -> None:
        self._leaving = True
        if not self._saves:
            self.die("left")

    def kill(self) -> None:
        """SIGKILL, from whoever has a reason. What it does at the moment may still be done."""
        self.world.after(DIE_S, ETERNAL, self.die, "killed by SIGKILL")

    def die(self, reason: str) -> None:
        if self.alive:
            self.alive = False
            self.world.tell(self.title, f"dies: {reason}")
            self._host.gone(self, reason)

    @property
    def phase(self) -> Phase:
        """As its black box says it."""
        if self.side.state is side.State.PREPARING:
            return Phase.PREPARING
        if not all(pipe.idle for pipe in self.outputs):
            return Phase.BLOCKED
        if self.memory.waits:
            return Phase.SLOTS
        return Phase.WAITING if self.side.flows else Phase.HOLDING

    # commands

    def _guard(self, deed: Callable[..., list[side.Command]], *args: Any) -> None:
        """Ask the machine, perform what it answers; a fuse that burns down in there is a SIGKILL."""
        try:
            self._perform(deed(*args))
        except Killed as end:
            self.die(end.reason)

    def _perform(self, commands: Sequence[side.Command]) -> None:
        if self.world.story is not None and commands:
            self.world.tell(self.title, f"{self.side.state.value}: {', '.join(map(str, commands))}")
        for command in commands:
            try:
                self._performers[type(command)](self, command)
            except StorageError as error:
                self._perform(self.side.refused(str(error)))
                return
        for link in self.inputs:
            link.pipe.rest()
        self._turn += 1
        if self.side.flows:
            self._next_turn()

    def _next_turn(self) -> None:
        self._turn += 1
        self.world.after(TURN_S, self, self._run, self._turn)

    def _drop(self, _: side.Drop) -> None:
        for link in self.inputs:
            link.pipe.rest()
        for pipe in self.outputs:
            pipe.writer = None
        self.inputs, self.outputs = [], []
        self.memory.close()
        self._changes.clear()

    def _restore(self, command: side.Restore) -> None:
        stage, disk = self.stage, self.world.disk
        if isinstance(stage, Sink):
            stage.rollback(command.epoch, self.fuse)
        if not command.keep:
            data = disk.read(command.snapshot) if command.snapshot is not None else None
            if data is None and command.snapshot is not None:
                raise ViolationError(f"epoch {command.epoch} is committed, and {command.snapshot} is gone")
            stage.restore(data)
        assert self._offer is not None
        (reset, ends), self._offer = self._offer, None
        self._take(ends, command.generation)
        self._suspects = reset.suspects
        self._skips = self.skips_of(skips(disk, self.name))
        self._host.restored(self, command.epoch)
        self._perform(self.side.restored())

    def _take(self, ends: Ends, generation: int) -> None:
        """The ends of a generation's links, and its memory."""
        pipes = ends.pipes
        self.memory.open(generation, ends.memories)
        count = len(self.side.inlets)
        self._frames = FrameWriter(generation)
        self.records_out = 0
        self.inputs = [
            Link(inlet, pipe, FrameReader(generation, via=inlet.name if count > 1 else "", memory=self.memory.views))
            for inlet, pipe in zip(self.side.inlets, pipes[:count], strict=True)
        ]
        self.outputs = list(pipes[count:])
        for pipe in self.outputs:
            pipe.writer = (self, self._output_idle)

    def _apply(self, command: side.Apply) -> None:
        self.side.moved = True
        if not self._changes.begin(command.changes):
            self._perform(self.side.applied())

    def letters(self, change: Mapping[str, Any]) -> Iterator[tuple[int, Batch]]:
        """What a replay gives back."""
        for number, attempt in change["rows"]:
            yield attempt, make_batch([f"{REPLAY}/{number}"], (Span(REPLAY, number, 1),), 0)

    def _cut(self, _: side.Snapshot) -> None:
        self._snapshot = self.stage.snapshot()

    def _save(self, command: side.Save) -> None:
        if isinstance(self.stage, Sink):
            self.stage.seal(command.epoch)
        self._saves.append(Cut(command.generation, command.epoch, self._snapshot, self.stage.position()))
        if len(self._saves) == 1:
            self._begin_save()

    def _commit(self, command: side.Commit) -> None:
        assert isinstance(self.stage, Sink)
        self.stage.commit(command.epoch, self.fuse)

    def _emit(self, frame: Frame) -> None:
        if self.outputs:
            data = b"".join(bytes(memoryview(b).cast("B")) for b in self._frames.encode(frame, self.memory.place))
            for pipe in self.outputs:
                pipe.write(data)

    _performers: Final[dict[type, Callable[[Process, Any], None]]] = {
        side.Drop: _drop,
        side.Restore: _restore,
        side.SayReady: lambda self, c: self._say(m.Ready(c.generation)),
        side.Hear: lambda self, c: self._host.heard(self, c.epoch),
        side.Apply: lambda self, c: self._apply(c),
        side.Snapshot: _cut,
        side.EmitBarrier: lambda self, c: self._emit(Barrier(c.epoch)),
        side.Save: _save,
        side.Report: lambda self, c: self._say(self._report),
        side.EmitEnd: lambda self, c: self._emit(End()),
        side.SayEnded: lambda self, c: self._say(m.SourceEnded(c.generation, self.records_out)),
        side.Commit: _commit,
        side.SayCommitDone: lambda self, c: self._say(m.CommitDone(c.generation, c.epoch)),
        side.SayImpaired: lambda self, c: self._say(m.Impaired(c.generation, c.reason)),
        side.SayJudged: lambda self, c: self._say(m.Judged(c.generation, c.guilty)),
    }

    # the thread that saves

    def _begin_save(self) -> None:
        self.world.after(DISK_S, self, self._save_step, self._save_steps(self._saves[0]))

    def _save_steps(self, cut: Cut) -> Iterator[None]:
        generation, epoch, data, position = cut
        if isinstance(self.stage, Sink):
            yield from self.stage.prepare(epoch, self.fuse)
        path = snapshot_path(self.name, generation, epoch)
        try:
            yield from self._write(path, data)
        except OSError as error:
            self._report = m.SnapshotFailed(generation, epoch, str(error))
        else:
            self._report = m.SnapshotDone(generation, epoch, path, len(data), zlib.crc32(data), position)

    def _write(self, path: str, data: bytes) -> Iterator[None]:
        return save(self.world.disk, self.fuse, path, data)

    def _save_step(self, steps: Iterator[None]) -> None:
        self.pulse += 1
        try:
            next(steps)
        except StopIteration:
            self._end_save(self.side.saved, self._saves[0].generation)
        except StorageError as error:
            self._end_save(self.side.unprepared, str(error))
        except Killed as end:
            self.die(end.reason)
        else:
            self.world.after(DISK_S, self, self._save_step, steps)

    def _end_save(self, told: Callable[..., list[side.Command]], what: Any) -> None:
        self._saves.popleft()
        if self._saves:
            self._begin_save()
        if not self._leaving:
            self._guard(told, what)
        elif not self._saves:
            self.die("left")

    # the flow

    def _output_idle(self) -> None:
        if self._may_flow():
            self._next_turn()

    def _run(self, turn: int) -> None:
        if turn != self._turn:
            return
        self.pulse += 1
        step = self._read if isinstance(self.stage, Source) else self._take_frame
        try:
            for _ in range(FRAMES_PER_TURN):
                if not self._may_flow():
                    return
                if self.side.state is side.State.APPLYING:
                    self._take_letter()
                elif not step():
                    return
            self._next_turn()
        except StorageError as error:
            self._guard(self.side.refused, str(error))
        except Killed as end:
            self.die(end.reason)

    def _may_flow(self) -> bool:
        if not self.side.flows or self._leaving or not all(pipe.idle for pipe in self.outputs):
            return False
        return self.memory.may_place()

    def _read(self) -> bool:
        self._turn += 1
        self.world.after(READ_S, self, self._run, self._turn)  # a source is slower than what follows it
        self.side.moved = True
        if self.world.chance() < IDLE:
            return False
        assert isinstance(self.stage, Source)
        batch = self.stage.read()
        if batch is None:
            self._perform(self.side.ended())
        else:
            self.records_out += batch.rows
            self._emit(batch)
        return False

    def _take_frame(self) -> bool:
        for link in self.inputs:
            if not link.inlet.waits and (frame := link.reader.next()) is not None:
                self._handle(link, frame)
                return True
        for link in self.inputs:
            if not link.inlet.waits:
                link.pipe.listen(self, self._readable)
        return False

    def _readable(self, pipe: Pipe) -> None:
        for link in self.inputs:
            if link.pipe is pipe and not link.inlet.waits and self._may_flow():
                link.reader.filled(pipe.read_into(link.reader.space()))
                self._turn += 1
                self._run(self._turn)

    def _handle(self, link: Link, frame: Frame) -> None:
        match frame:
            case Batch():
                self.memory.hold(frame)
                self._process(frame)
                self.memory.done()
            case Barrier(epoch):
                self._perform(self.side.barrier(link.inlet, epoch))
            case End():
                self._perform(self.side.end(link.inlet))
            case Hello():
                pass

    def _take_letter(self) -> None:
        if (found := self._changes.next()) is not None:
            attempt, batch = found
            self._process(batch, attempt)
        else:
            self._perform(self.side.applied())

    def _process(self, batch: Batch, attempt: int = 0) -> None:
        keep = self._skips.keep(batch, attempt)
        if keep is not None:
            batch = batch.select(keep)
        if self._suspects and overlaps(batch.spans, self._suspects) and self._is_guilty(batch, attempt):
            return
        self.side.moved = True
        self.inside = tuple((s.via, s.source, s.start, s.count) for s in batch.spans)
        if self._guilty(batch, attempt):
            raise Poisoned
        result = self.stage.process(batch, self.fuse)
        self.records_out += batch.rows
        self._emit(result)

    def _guilty(self, batch: Batch, attempt: int) -> list[Place]:
        """The rows that this stage does not survive."""
        places = ((span.via, span.source, span.start + n) for span in batch.spans for n in range(span.count))
        if attempt:
            return [place for place in places if attempt <= deaths(place[2])]
        return [place for place in places if (self.name, place) in self._poison] if self._poison else []

    def _is_guilty(self, batch: Batch, attempt: int) -> bool:
        """A trial, in no time and without forks."""
        guilty = self._guilty(batch, attempt)
        for place in guilty:
            self._say(m.Guilty(self.side.generation, *place, attempt, "exception", "", "", b""))
        if not guilty:
            self._suspects = []
        self._perform(self.side.judged(len(guilty)))
        return bool(guilty)
