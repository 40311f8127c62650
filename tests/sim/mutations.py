"""Rules of the protocol, each broken once: the law must catch every one of them within some schedules.

A rule is broken from outside, by a class that overrides one decision or one deed; nothing of the daemon is edited.
Where nothing goes wrong a broken rule does no harm, so that what is caught is the rule and not a broken world; `calm`
says where it is otherwise.
"""

from __future__ import annotations

import errno
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import msgpack
import numpy as np
from numpy.typing import NDArray

from sim.daemon import Daemon
from sim.disk import Fuse
from sim.manifests import snapshot_path
from sim.memory import Shared
from sim.process import Cut, Link, Process
from sim.schedule import TOTALS, compare, run, undisturbed
from sim.stages import TOPOLOGIES, Place, Sink
from sim.world import ViolationError
from streampiped.core import protocol as p
from streampiped.core.epoch_commands import AskBarrier, AskCommit, EpochCommand, Part, WriteManifest
from streampiped.core.epochs import Coordinator
from streampiped.core.operations import Wish
from streampiped.core.stage_side import Command, Inlet, StageSide, State
from streampiped.core.supervision import Supervision
from streampiped.records import Batch
from streampiped.skips import Skips
from streampiped.wire import messages as m
from streampiped.wire.frames import Frame


@dataclass(frozen=True)
class Mutation:
    """`only`: the deeds of fate that bring it to light (empty: all); `most`: within so many schedules from the seed
    `first` on, which for the rarest ones is not far from one that is known to; `calm`: the topologies in which an
    undisturbed stream shows nothing of it."""

    rule: str
    daemon: type[Daemon]
    only: tuple[str, ...] = ()
    most: int = 400
    first: int = 0
    calm: tuple[str, ...] = tuple(TOPOLOGIES)


def caught(mutation: Mutation) -> tuple[int, str] | None:
    """The seed that catches it, and what the law says; None: no schedule does. Whatever else is raised is a mistake of
    the mutation or of the world, and goes through."""
    for seed in range(mutation.first, mutation.first + mutation.most):
        try:
            run(seed, daemon_of=mutation.daemon, only=mutation.only)
        except ViolationError as error:
            return seed, str(error)
    return None


def calm(mutation: Mutation) -> set[str]:
    """The topologies in which the law holds where nothing goes wrong."""
    found = set()
    for topology in TOPOLOGIES:
        try:
            outcome = undisturbed(topology, min(TOTALS), mutation.daemon)
            compare(outcome, undisturbed(topology, min(TOTALS)))
        except ViolationError:
            continue
        found.add(topology)
    return found


def with_side(side: type[StageSide]) -> type[Daemon]:
    return with_process(type("Broken", (Process,), {"side_of": side}))


def with_sink(sink: type[Sink]) -> type[Daemon]:
    return with_process(type("Broken", (Process,), {"sink_of": sink}))


def with_process(process: type[Process]) -> type[Daemon]:
    return type("Broken", (Daemon,), {"process_of": process})


def with_coordinator(coordinator: type[Coordinator]) -> type[Daemon]:
    return type("Broken", (Daemon,), {"coordinator_of": coordinator})


# durability


class NoFsync(Process):
    def _write(self, path: str, data: bytes) -> Iterator[None]:
        """Written and renamed, and that must do."""
        self.world.disk.write(self.fuse, path + ".tmp", data)
        yield
        self.world.disk.rename(self.fuse, path + ".tmp", path)


class ManifestWithoutFsync(Daemon):
    def _save(self, path: str, data: bytes) -> Iterator[None]:
        self.world.disk.write(self.fuse, path + ".tmp", data)
        yield
        self.world.disk.rename(self.fuse, path + ".tmp", path)


class DoneBeforeItIs(Process):
    """Not of sinks, whose commit would come before its time also where nothing goes wrong."""

    def _save_steps(self, cut: Cut) -> Iterator[None]:
        """Says so when the first step is done."""
        for number, step in enumerate(super()._save_steps(cut)):
            if not number and self.node.role != "sink":
                path = snapshot_path(self.name, cut.generation, cut.epoch)
                size, checksum = len(cut.data), zlib.crc32(cut.data)
                super()._say(m.SnapshotDone(cut.generation, cut.epoch, path, size, checksum, cut.position))
            yield step

    def _say(self, message: m.Message | None) -> None:
        """It was said."""
        if self.node.role == "sink" or not isinstance(message, m.SnapshotDone):
            super()._say(message)


class StartDoesNotSync(Daemon):
    def _sync(self) -> None:
        """What is there is there."""


class CommitBeforeTheManifest(Coordinator):
    def snapshot_done(self, part: Part, generation: int, epoch: int, now: float) -> list[EpochCommand]:
        commands = super().snapshot_done(part, generation, epoch, now)
        return commands and [*commands, *(AskCommit(sink, generation, epoch) for sink in self._sinks)]


# sinks


class RollbackDoesNotCommit(Sink):
    def rollback(self, epoch: int | None, fuse: Fuse) -> None:
        """Takes back, and leaves what was committed to the next commit."""
        set_mark, self._set_mark = self._set_mark, lambda epoch, fuse: None  # type: ignore[method-assign]  # for this call
        try:
            super().rollback(epoch, fuse)
        finally:
            self._set_mark = set_mark  # type: ignore[method-assign]


class RollbackKeepsRows(Sink):
    def rollback(self, epoch: int | None, fuse: Fuse) -> None:
        rows = self._open
        super().rollback(epoch, fuse)
        self._open = rows


class RollbackKeepsPrepared(Sink):
    def rollback(self, epoch: int | None, fuse: Fuse) -> None:
        """Epochs that were prepared and never committed stay."""
        self._open = []
        self._sealed.clear()
        self._broken = False
        self._set_mark(epoch or 0, fuse)


# a stage's side


class BarrierOvertaken(StageSide):
    """Inputs that have the barrier are read further."""

    def reset(self, *args: Any) -> list[Command]:
        self._here: set[str] = set()
        return super().reset(*args)

    def barrier(self, inlet: Inlet, epoch: int) -> list[Command]:
        for other in self.inlets:
            other.waits = other.name in self._here
        self._here.add(inlet.name)
        commands = super().barrier(inlet, epoch)
        for other in self.inlets:
            other.waits = False
        if commands:
            self._here.clear()
        return commands


class SnapshotAtTheFirstBarrier(StageSide):
    """Does not align at all."""

    def barrier(self, inlet: Inlet, epoch: int) -> list[Command]:
        return self._cut(epoch) if self._at != epoch else []


class KeepsItsState(StageSide):
    """Although something has happened since."""

    def _settle(self) -> list[Command]:
        self.moved = False
        return super()._settle()


class DoesNotWaitForTheSave(StageSide):
    def _settle(self) -> list[Command]:
        saving, self._saving = self._saving, 0
        commands = super()._settle()
        self._saving = saving
        return commands


class LateSink(Sink):
    """Its `prepare` has taken its rows, and a while later it writes them, whatever has happened since."""

    def prepare(self, epoch: int, fuse: Fuse) -> Iterator[None]:
        rows, path = self._sealed.pop(epoch, None), f"{self.node.name}/{epoch:08d}"
        yield
        if rows is not None:
            self._disk.write(fuse, path, msgpack.packb(rows))
            self._disk.fsync(fuse, path)
            self._disk.sync(fuse, self.node.name)


class RollbackBesideAPrepare(Process):
    side_of = DoesNotWaitForTheSave
    sink_of = LateSink


class EndedSourceIsSilent(StageSide):
    def asked(self, generation: int, epoch: int, hold: bool) -> list[Command]:
        return [] if self.state is State.ENDED else super().asked(generation, epoch, hold)


class ReadsOldLinks(Process):
    def _take(self, pipes: Any, generation: int) -> None:
        """What was read of the generation before is still there."""
        self._stale = self._before
        super()._take(pipes, generation)
        self.inputs = self._stale + self.inputs

    def _handle(self, link: Link, frame: Frame) -> None:
        """The records: a barrier out of its turn is refused by the stage's side itself."""
        if link not in self._stale or isinstance(frame, Batch):
            super()._handle(link, frame)

    def _perform(self, commands: Any) -> None:
        self._before = [link for link in self.inputs if link.reader.pending]
        super()._perform(commands)


class CondemnsWithoutTrial(Process):
    def _guilty(self, batch: Batch, attempt: int) -> list[Place]:
        """Whoever is suspected has done it."""
        if self._suspects:
            return [(span.via, span.source, span.start + n) for span in batch.spans for n in range(span.count)]
        return super()._guilty(batch, attempt)


class ForgetsVerdicts(Process):
    def _process(self, batch: Batch, attempt: int = 0) -> None:
        """Nothing is left out."""
        self._skips = Skips({})
        super()._process(batch, attempt)


class SkipsByNoWay(Skips):
    """What was put aside by one way is left out by all."""

    def __init__(self, skips: Mapping[tuple[str, str, int], Sequence[int]]) -> None:
        merged: dict[tuple[str, str, int], set[int]] = {}
        for (_, source, attempt), positions in skips.items():
            merged.setdefault(("", source, attempt), set()).update(positions)
        super().__init__({key: sorted(positions) for key, positions in merged.items()})


class SkipsInEveryReplay(Skips):
    """What was put aside in one replay is left out in all."""

    def keep(self, batch: Batch, attempt: int = 0) -> NDArray[np.bool_] | None:
        earlier = (super(SkipsInEveryReplay, self).keep(batch, n) for n in range(1, attempt + 1))
        return super().keep(batch) if not attempt else next((keep for keep in earlier if keep is not None), None)


class SkipForgetsTheAttempt(Process):
    skips_of = SkipsInEveryReplay


class ReplaysAreNotLeftOut(Process):
    def _process(self, batch: Batch, attempt: int = 0) -> None:
        """A verdict counts in the stream alone."""
        skips = self._skips
        self._skips = Skips({}) if attempt else skips
        super()._process(batch, attempt)
        self._skips = skips


class SkipForgetsTheLink(Process):
    skips_of = SkipsByNoWay


class ChangeIsNoMove(Process):
    def _apply(self, command: Any) -> None:
        """A stage that was changed counts as what the epoch's snapshot says."""
        super()._apply(command)
        self.side.moved = False


class ChangeAppliedTwice(Process):
    def _apply(self, command: Any) -> None:
        super()._apply(replace(command, changes=command.changes * 2))


# slots


class PassedOnUncounted(Shared):
    def _pass_on(self, owner: int, slot: int) -> None:
        """To several as to one."""
        self._held[owner, slot] = 0


class PassedOnAndGivenBack(Shared):
    def _pass_on(self, owner: int, slot: int) -> None:
        """By who passes it on, and by those to whom it was passed."""
        if self._readers > 1:
            self._give(owner, slot, self._readers - 1)


class NeverGivenBack(Shared):
    """What several see: where there is one way only, it comes back."""

    def done(self) -> None:
        if len(self._others) > 1:
            self._held.clear()
        super().done()


class TakenBeforeItIsFree(Shared):
    def may_place(self) -> bool:
        """Whoever has none takes the one that was handed out first."""
        if not super().may_place() and self._slots is not None:
            self._slots.changed(0, self._generation, -self._slots.held[0])
        return super().may_place()


class MemoryOfTheGenerationBefore(Daemon):
    def _make_links(self, command: p.MakeLinks) -> None:
        """One for all: who still reads that of an older one, or gives back to it, has to do with the new one."""
        before = self._memories.get(command.generation - 1, {})
        super()._make_links(command)
        for name, memory in before.items():
            memory.generation = command.generation
            self._memories[command.generation][name] = memory


def with_memory(memory: type[Shared]) -> type[Daemon]:
    return with_process(type("Broken", (Process,), {"memory_of": memory}))


# the coordinator


class NumbersAreReused(Coordinator):
    def _abort(self, *args: Any) -> list[EpochCommand]:
        self._highest -= 1
        return super()._abort(*args)


class DoesNotWaitForTheSinks(Coordinator):
    def manifest_written(self, generation: int, epoch: int, now: float) -> list[EpochCommand]:
        commands = super().manifest_written(generation, epoch, now)
        for command in tuple(commands):
            if isinstance(command, AskCommit):
                commands += self.commit_done(command.stage, generation, epoch, now)
        return commands


class EndedSourceIsNotAsked(Coordinator):
    def _request(self, now: float) -> list[EpochCommand]:
        commands = super()._request(now)
        return [c for c in commands if not (isinstance(c, AskBarrier) and c.stage in self._ended)]


class EndsOfOtherGenerationsCount(Coordinator):
    def source_ended(self, stage: str, generation: int, records: int, now: float) -> list[EpochCommand]:
        return super().source_ended(stage, self._generation, records, now)


class SlowEnds(Daemon):
    """In a world where the news of an end may take longer than a reset."""

    coordinator_of = EndsOfOtherGenerationsCount

    def said(self, process: Process, message: m.Message) -> None:
        if isinstance(message, m.SourceEnded):
            process.said_until = self.world.now + 0.2
        super().said(process, message)


class ChangesPushOutEachOther(Coordinator):
    def _request(self, now: float) -> list[EpochCommand]:
        self.unapplied = False
        return super()._request(now)


class ChangesInAHurry(Supervision):
    def _apply_changes(self, now: float) -> None:
        """What is wanted next comes before what is recorded."""
        if self.running and self.epochs.proposed and not any(stage.successor for stage in self.stages):
            self._generations.hold(now, ahead=True)
        else:
            super()._apply_changes(now)


class SecondChangeFirst(Daemon):
    coordinator_of = ChangesPushOutEachOther
    supervision_of = ChangesInAHurry


class AdoptsAtOnce(Supervision):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._reloads.begin = self._begin_reload  # type: ignore[method-assign]  # a rule is broken from outside

    def _begin_reload(self, wish: Wish, now: float) -> None:
        """The plan takes effect before its successors have taken over."""
        type(self._reloads).begin(self._reloads, wish, now)
        wish.adopted = True
        assert wish.plan is not None
        self._desk.put(p.Adopt(wish.ticket, wish.plan))


class ReloadDoesNotWait(Daemon):
    supervision_of = AdoptsAtOnce


class ChangesAreKept(Coordinator):
    """A restore from a later epoch applies them again."""

    def manifest_written(self, generation: int, epoch: int, now: float) -> list[EpochCommand]:
        before = self.changes
        commands = super().manifest_written(generation, epoch, now)
        self.changes = self.changes or before
        return commands


class DoesNotWaitForTheManifest(Coordinator):
    @property
    def writing(self) -> bool:
        return False


# the supervisor


class GoBeforeTheDeath(Daemon):
    def _perform(self, commands: Any) -> None:
        """Who was asked to leave, and not because all do, counts as dead at once."""
        super()._perform(commands)
        for command in commands if self.supervision.closing is None else ():
            if isinstance(command, p.AskLeave | p.Kill) and (command.name, command.incarnation) in self.children:
                self._events.append(p.Died(command.name, command.incarnation, "will be dead"))


class StopsAreForgotten(Daemon):
    def _begin_stops(self, names: tuple[str, ...]) -> None:
        """Said before it is so."""
        super()._begin_stops(names)
        self.dispatch(p.StopsKept(names))


class ManifestIsNotWithdrawn(Daemon):
    """In a world where the last fsync of a manifest often fails."""

    def _save(self, path: str, data: bytes) -> Iterator[None]:
        yield from super()._save(path, data)
        if self.world.chance() < 0.5:
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    def _withdraw(self, command: WriteManifest, reason: str) -> None:
        """It failed, and that must do."""
        self.dispatch(p.ManifestFailed(command.generation, command.epoch, reason))


class ChangesAreForgotten(Daemon):
    def _perform(self, commands: Any) -> None:
        super()._perform([replace(c, changes=()) if isinstance(c, p.SendReset) else c for c in commands])


MUTATIONS: Final = (
    Mutation(
        "reloaded before the successors have taken over", ReloadDoesNotWait, ("reload", "kill", "stop for a while")
    ),
    Mutation("commit before fsync", with_process(NoFsync), ("lose power", "kill")),
    Mutation("a manifest without fsync", ManifestWithoutFsync, ("lose power",)),
    Mutation("durable is said before it is", with_process(DoneBeforeItIs), ("kill", "lose power")),
    Mutation(
        "a start relies on what is not durable",
        StartDoesNotSync,
        ("kill the supervisor at the disk", "lose power"),
        4000,
        660,
    ),
    Mutation("commit before the manifest", with_coordinator(CommitBeforeTheManifest), calm=()),
    Mutation("sink commit skipped on restore", with_sink(RollbackDoesNotCommit)),
    Mutation("rows survive a rollback", with_sink(RollbackKeepsRows)),
    Mutation("prepared epochs survive a rollback", with_sink(RollbackKeepsPrepared)),
    Mutation("barrier overtaken", with_side(BarrierOvertaken), calm=("chain", "diamond")),
    Mutation("barriers not aligned", with_side(SnapshotAtTheFirstBarrier), calm=("chain",)),
    Mutation("state kept although something happened since", with_side(KeepsItsState)),
    Mutation("rollback beside a prepare", with_process(RollbackBesideAPrepare), ("kill", "kill several")),
    Mutation("ended source forgotten, by itself", with_side(EndedSourceIsSilent), calm=()),
    Mutation("ended source forgotten, by the coordinator", with_coordinator(EndedSourceIsNotAsked), calm=()),
    Mutation("stale generation accepted, of a link", with_process(ReadsOldLinks)),
    Mutation("stale generation accepted, of an end", SlowEnds, ("kill",), 2000, 1310),
    Mutation("epoch number reused", with_coordinator(NumbersAreReused), ("refuse",)),
    Mutation("next epoch before the last sink answered", with_coordinator(DoesNotWaitForTheSinks), calm=()),
    Mutation(
        "the epoch to restore chosen while a manifest is being written", with_coordinator(DoesNotWaitForTheManifest)
    ),
    Mutation("go before the old process is confirmed dead", GoBeforeTheDeath, first=65),
    Mutation("condemned without a trial", with_process(CondemnsWithoutTrial), ("kill", "kill several")),
    Mutation("verdicts forgotten", with_process(ForgetsVerdicts)),
    Mutation("skip forgets the link", with_process(SkipForgetsTheLink)),
    Mutation("skip forgets the attempt", with_process(SkipForgetsTheAttempt), ("change",)),
    Mutation("a replay that killed is not left out", with_process(ReplaysAreNotLeftOut), ("change",)),
    Mutation("change applied twice", with_process(ChangeAppliedTwice), ("change",)),
    Mutation("a changed stage keeps its state", with_process(ChangeIsNoMove), ("change", "kill")),
    Mutation("change applied again by a later restore", with_coordinator(ChangesAreKept), ("change", "kill")),
    Mutation("the second change pushes out the first", SecondChangeFirst, ("change",), 2000),
    Mutation("a manifest that failed is not withdrawn", ManifestIsNotWithdrawn, ("kill", "kill the supervisor"), 1000),
    Mutation("a stop answered before it is remembered", StopsAreForgotten, ("stop", "kill the supervisor"), 400, 300),
    Mutation("change forgotten", ChangesAreForgotten, ("change",)),
    Mutation("a slot passed on to several is counted once", with_memory(PassedOnUncounted), calm=("diamond", "join")),
    Mutation("a slot passed on is given back as well", with_memory(PassedOnAndGivenBack), calm=()),
    Mutation("a slot is never given back", with_memory(NeverGivenBack), calm=()),
    Mutation("a slot is used twice", with_memory(TakenBeforeItIsFree), calm=("chain", "diamond")),
    Mutation("slots outlive their generation", MemoryOfTheGenerationBefore),
)
