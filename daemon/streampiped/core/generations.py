"""Generations: one life of the links each, and the epochs that are made in it.

Whenever a data stage dies, is stopped or replaced, the present generation is over and the next one is opened: fresh
pipes, every living stage restores the committed epoch and answers ready, one that was forked joins when it has loaded;
go comes when all are ready. Services (log extractor, service monitor) have no links and no part in it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from streampiped.core import protocol as p
from streampiped.core.epoch_commands import Aborted, EpochCommand, TellCommitted
from streampiped.core.epochs import Coordinator
from streampiped.core.lifecycle import Input, State
from streampiped.core.pace import Pace, Slow, Usual
from streampiped.core.poison import Poison
from streampiped.core.processes import TIMED, Desk, Limits, Process, Roster

IMPAIRED_BACKOFF_FIRST_S: Final = 0.5  # a full disk is rarely freed sooner
IMPAIRED_BACKOFF_MAX_S: Final = 10.0  # an operator who freed it should not wait longer


class Generations:
    """Opens generations, lets them go, and takes to the coordinator what happens to their epochs."""

    def __init__(self, desk: Desk, roster: Roster, limits: Limits, epochs: Coordinator, poison: Poison) -> None:
        self.current = 0
        self.running = False
        """The current one has gone and no stage has died since."""
        self.ever_ran = False
        self.trouble: str | None = None
        """What the outer world refuses to a stage; None once an epoch has been committed again."""
        self.reset_at: float | None = None
        """When the next attempt is due, after somebody was impaired."""
        self.epochs = epochs
        self._desk = desk
        self._roster = roster
        self._poison = poison
        self._limits = limits
        self._reset_wanted: str | None = None
        self._judging: set[tuple[str, int]] = set()
        self._impairments = 0
        self._pace = Pace()

    # from reset to go

    def end(self) -> None:
        """The current generation is over; what is in flight is forgotten."""
        self.running = False
        self.epochs.down()

    def cease(self) -> None:
        """The last generation is over."""
        self.end()
        self.reset_at = None

    def reset(self, reason: str) -> None:
        """Another generation is needed. `settle` opens it, as soon as no manifest under way can still become the
        commit, and no verdict what is left out; several reasons within one call make one generation."""
        self.end()
        self._reset_wanted = reason
        for stage in self._roster.stages:
            if stage.state not in TIMED:  # those are looked at for another reason
                stage.next_look = None

    def settle(self, now: float) -> None:
        """Open the generation that is wanted, let the current one go, whichever the state of the stages asks for."""
        if self.reset_at is not None and now >= self.reset_at:
            self.reset_at = None  # what is waited for from now on, a manifest, wakes us by itself
        if self._reset_wanted is not None and self.reset_at is None and not self.epochs.writing and not self._judging:
            self._open(self._reset_wanted, now)
        if not self.running and self._reset_wanted is None and not self._judging and self._all_ready():
            self._go(now)

    def _open(self, reason: str, now: float) -> None:
        self._reset_wanted = self.reset_at = None
        self.current += 1
        if self.current > 1:
            self._desk.emit("generation_reset", generation=self.current, reason=reason, origin=self.epochs.origin)
        self._desk.put(p.MakeLinks(self.current))
        for stage in self._roster.stages:
            if stage.state in (State.LOADED, State.RESETTING, State.READY, State.RUNNING):
                self._send_reset(stage, now)

    def _send_reset(self, stage: Process, now: float) -> None:
        stage.move(Input.RESET, now, now + self._limits.reset_timeout)
        changes = tuple(change for change in self.epochs.changes if change["stage"] == stage.name)
        suspects = self._poison.suspects(stage.name)
        epoch = self.epochs.committed
        self._desk.put(p.SendReset(stage.name, stage.incarnation, self.current, epoch, suspects, changes))

    def _all_ready(self) -> bool:
        stages = self._roster.stages
        return bool(stages) and all(s.state is State.READY and s.ready_for == self.current for s in stages)

    def _go(self, now: float) -> None:
        self.running = self.ever_ran = True
        self._desk.put(p.CloseOldLinks(self.current))
        for stage in reversed(self._roster.stages):  # a reader is there before anything is written to it
            stage.move(Input.GO, now)
            stage.watch(now)
            self._desk.put(p.SendGo(stage.name, self.current))
        self._desk.emit("generation_started", generation=self.current, origin=self.epochs.origin)
        self._perform(self.epochs.go(self.current, now))

    # what processes say

    def on_loaded(self, event: p.Loaded, now: float) -> None:
        """A data stage joins the current generation, a service runs at once, a successor waits to take over."""
        process = self._roster[event.name]
        if (heir := process.heir(event.incarnation)) is not None:
            heir.loaded = True
            return
        if process.incarnation != event.incarnation or process.state is not State.LOADING:
            return
        self._desk.emit("stage_loaded", process.name, child=process.pid)
        process.move(Input.LOADED, now)
        if process.service:
            process.move(Input.GO, now)
            process.watch(now)
        elif self._reset_wanted is None:
            self._send_reset(process, now)

    def on_ready(self, event: p.Ready, now: float) -> None:
        stage = self._roster[event.name]
        lives = stage.incarnation == event.incarnation and stage.state is State.RESETTING
        if not lives or event.generation != self.current:
            return
        stage.ready_for = event.generation
        self._desk.emit("stage_ready", stage.name, generation=event.generation)
        stage.move(Input.READY, now)

    def on_judging(self, event: p.Judging, now: float) -> None:
        """The list of what is left out is about to change, and a stage reads it when a generation is opened."""
        self._judging.add((event.name, event.incarnation))

    def judged(self, event: p.Judged) -> None:
        """It has, or will not."""
        self._judging.discard((event.name, event.incarnation))

    def on_impaired(self, event: p.Impaired, now: float) -> None:
        """Nobody is dead, and nothing goes on: all stages go back to the committed epoch, again and again with
        back-off, until the world allows it."""
        stage = self._roster[event.name]
        if stage.incarnation != event.incarnation or event.generation != self.current or self._reset_wanted:
            return
        delay = self._wait_for(f"{event.name}: {event.reason}", now)
        self._desk.emit("stage_impaired", event.name, reason=event.reason, delay=delay)

    def on_links_failed(self, event: p.LinksFailed, now: float) -> None:
        """The same with our own limits: no stage is to blame."""
        if event.generation != self.current or self._reset_wanted:
            return
        delay = self._wait_for(f"links between stages: {event.reason}", now)
        self._desk.emit("links_failed", generation=event.generation, reason=event.reason, delay=delay)

    def _wait_for(self, trouble: str, now: float) -> float:
        """Until the next generation, while the world does not allow it: for how long."""
        delay = min(IMPAIRED_BACKOFF_MAX_S, IMPAIRED_BACKOFF_FIRST_S * 2.0 ** min(self._impairments, 10))
        self._impairments += 1
        self.trouble = trouble
        for other in self._roster.stages:
            if other.state is State.RESETTING:  # it waits with the others; its own time begins with the next reset
                other.deadline = None
        self.reset(self.trouble)
        self.reset_at = now + delay
        return delay

    # epochs

    def tick(self, emitted: int, now: float) -> None:
        """`emitted`: records given by all sources in this generation."""
        self._perform(self.epochs.tick(now, emitted))

    def hold(self, now: float, *, ahead: bool = False) -> None:
        """One more epoch, behind which the sources emit nothing; `ahead`: an ordinary one before it."""
        self._perform(self.epochs.hold(now, ahead=ahead))

    def release(self, now: float) -> None:
        """Nobody needs the sources to hold."""
        self._perform(self.epochs.release(now))

    def pace(self, interval: float, now: float) -> None:
        """Epochs come at another interval from now on."""
        self.epochs.pace(interval, now)

    def demand(self, now: float) -> int:
        """An epoch that is asked for from now on; its number."""
        wanted, commands = self.epochs.demand(now)
        self._perform(commands)
        return wanted

    def on_snapshot_done(self, event: p.SnapshotDone, now: float) -> None:
        self._perform(self.epochs.snapshot_done(event.part, event.generation, event.epoch, now))

    def on_snapshot_failed(self, event: p.SnapshotFailed, now: float) -> None:
        self._perform(self.epochs.snapshot_failed(event.generation, event.epoch, event.reason, now))

    def on_manifest_written(self, event: p.ManifestWritten, now: float) -> None:
        self._perform(self.epochs.manifest_written(event.generation, event.epoch, now))

    def on_manifest_failed(self, event: p.ManifestFailed, now: float) -> None:
        self._perform(self.epochs.manifest_failed(event.generation, event.epoch, event.reason, now))

    def on_commit_done(self, event: p.CommitDone, now: float) -> None:
        self._perform(self.epochs.commit_done(event.name, event.generation, event.epoch, now))

    def on_source_ended(self, event: p.SourceEnded, now: float) -> None:
        self._perform(self.epochs.source_ended(event.name, event.generation, event.records, now))
        if self.epochs.finished:  # again, after a restore: there is nothing new to commit
            self._desk.put(p.Finished(self.epochs.committed or 0))

    def _perform(self, commands: Iterable[EpochCommand]) -> None:
        for command in commands:
            match command:
                case Aborted(epoch, reason):
                    self._desk.emit("epoch_aborted", epoch=epoch, reason=reason)
                case TellCommitted():
                    self._tell(command)
                case _:
                    self._desk.put(command)

    def _tell(self, news: TellCommitted) -> None:
        self.trouble = None
        self._impairments = 0
        self._desk.emit("epoch_committed", epoch=news.epoch, seconds=news.times.total)
        match self._pace.judge(news.times):
            case Slow(median, part):
                seconds = news.times.total
                self._desk.emit("epoch_delayed", epoch=news.epoch, seconds=seconds, median=median, part=part)
            case Usual(untold, slowest):
                self._desk.emit("epochs_settled", epoch=news.epoch, count=untold, seconds=slowest)
        self._desk.put(news)
        if news.final and self.epochs.finished:
            self._desk.emit("pipeline_finished", epoch=news.epoch)
            self._desk.put(p.Finished(news.epoch))
