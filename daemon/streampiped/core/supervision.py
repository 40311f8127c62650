"""Supervision of all processes: the decisions. Pure: events and `now` in, commands out.

The shell (`supervisor.py`) reports what happened with `handle`, performs what comes back in order, and calls again
with `Tick` at `deadline()`. Transcripts in tests/pure/test_supervision.py show it at work.

This file routes events and knows how it begins and ends. The rest is in parts, of which each knows only those before
it: processes (data, the desk), births (forks), generations (links and epochs), ending, deaths (and who follows), watch
(time), reloads (another plan), operators (wishes). Each part lays its commands on one desk, so their order is the order
of the decisions.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from typing import Final

from streampiped.core import protocol as p
from streampiped.core.births import Births
from streampiped.core.deaths import Deaths
from streampiped.core.ending import Ending
from streampiped.core.epochs import Coordinator
from streampiped.core.generations import Generations
from streampiped.core.lifecycle import State
from streampiped.core.operations import Operations
from streampiped.core.operators import Operators
from streampiped.core.poison import Poison
from streampiped.core.processes import Desk, Limits, Process, Roster
from streampiped.core.reloads import Reloads
from streampiped.core.story import Line, Story
from streampiped.core.watch import Watch

__all__ = ["Limits", "Process", "Supervision"]

_UP: Final = (State.RUNNING, State.READY)


class Supervision:
    """The state machine over all processes."""

    def __init__(self, processes: Iterable[Process], limits: Limits, epochs: Coordinator) -> None:
        self._story = Story()
        limits = replace(limits)  # a reload changes them
        poison = Poison(limits.poison_attempts)
        self._desk = desk = Desk()
        self._roster = roster = Roster(processes)
        self._limits = limits
        self._operations = operations = Operations()
        self._births = births = Births(desk, roster, limits)
        self._generations = generations = Generations(desk, roster, limits, epochs, poison)
        self._ending = ending = Ending(desk)
        self._deaths = deaths = Deaths(desk, roster, limits, births, generations, operations, ending, poison)
        self._watch = Watch(desk, roster, limits, births, generations, ending, deaths)
        self._reloads = Reloads(desk, roster, limits, births, generations, deaths, operations, poison)
        self._operators = Operators(desk, roster, births, generations, deaths, operations, ending, self._reloads)
        self._handlers = self._routes()

    def _routes(self) -> dict[type, Callable[..., None]]:
        births, deaths, generations = self._births, self._deaths, self._generations
        return {
            p.LauncherReady: births.on_launcher_ready,
            p.LauncherDied: self._on_launcher_died,
            p.Forked: births.on_forked,
            p.ForkFailed: deaths.on_fork_failed,
            p.Loaded: generations.on_loaded,
            p.Ready: generations.on_ready,
            p.Failed: deaths.on_failed,
            p.Died: deaths.on_died,
            p.SnapshotDone: generations.on_snapshot_done,
            p.SnapshotFailed: generations.on_snapshot_failed,
            p.Impaired: generations.on_impaired,
            p.LinksFailed: generations.on_links_failed,
            p.Judging: generations.on_judging,
            p.Judged: deaths.on_judged,
            p.ManifestWritten: generations.on_manifest_written,
            p.ManifestFailed: generations.on_manifest_failed,
            p.CommitDone: generations.on_commit_done,
            p.SourceEnded: generations.on_source_ended,
            p.Sampled: self._watch.on_sampled,
            p.Tick: self._on_tick,
            p.Operate: self._operators.on_operate,
            p.Checkpoint: self._operators.on_checkpoint,
            p.Propose: self._operators.on_propose,
            p.Reload: self._operators.on_reload,
            p.StopsKept: self._operators.on_stops_kept,
            p.Shutdown: self._on_shutdown,
            p.FarewellSaid: self._on_farewell_said,
        }

    # the calls of the shell

    def start(self, now: float, stopped: Collection[str] = ()) -> list[p.Command]:
        """Begin: the launcher, then every process, in the order of the plan, but for those that an operator has
        stopped before the daemon was started again."""
        self._desk.put(p.StartLauncher())
        self._generations.reset("start")
        for process in self._roster:
            process.wanted = process.name not in stopped
            process.since = now
            if process.wanted:
                self._births.fork(process, now)
        self._operators.begin()
        return self._desk.clear()

    def handle(self, event: p.Event, now: float) -> list[p.Command]:
        """What to do about `event` at `now` (seconds, monotonic), in order."""
        self._story.heard(event, now)
        self._handlers[type(event)](event, now)
        self._settle(now)
        commands = self._desk.clear()
        for command in commands:
            self._story.did(command, now)
        return commands

    def deadline(self) -> float | None:
        """When the shell must send a `Tick` at the latest."""
        times = [
            self.epochs.deadline(),
            self._ending.drain_until,
            self._births.launcher_at,
            self._generations.reset_at,
            self._operations.deadline(),
        ]
        for process in self._roster:
            times += process.due()
        return min([time for time in times if time is not None], default=None)

    # what the shell may read

    @property
    def processes(self) -> dict[str, Process]:
        """By name, in the order of the plan."""
        return self._roster.by_name

    @property
    def stages(self) -> list[Process]:
        """The data stages, sources first."""
        return self._roster.stages

    @property
    def holding(self) -> Process | None:
        """The first data stage that keeps the pipeline from running and will not come back by itself."""
        return self._roster.holding

    def story(self, name: str) -> list[Line]:
        """The last events and decisions that led to the state of a process, oldest first."""
        return self._story.of(name)

    @property
    def epochs(self) -> Coordinator:
        return self._generations.epochs

    @property
    def generation(self) -> int:
        """The number of the current life of the links; 0 before the first."""
        return self._generations.current

    @property
    def running(self) -> bool:
        """A generation has gone and no stage has died since."""
        return self._generations.running

    @property
    def ever_ran(self) -> bool:
        return self._generations.ever_ran

    @property
    def trouble(self) -> str | None:
        """What the outer world refuses to a stage, which is why everybody waits."""
        return self._generations.trouble

    @property
    def forgetful(self) -> str | None:
        """Why a restart of the daemon would not know who is stopped."""
        return self._operators.forgetful

    @property
    def ready(self) -> bool:
        """Every stage that is wanted is up: it runs, or is ready and waits for what an operator has stopped. Services
        have no part in it: without them records flow as before."""
        return all(stage.state in _UP for stage in self._roster.stages if stage.wanted)

    @property
    def settled(self) -> bool:
        """The start is over: ready, and no service is on its way that may still come. One that has died or is given up
        is not waited for. Never at the end, where nobody is wanted any more."""
        services = (service for service in self._roster.services if service.wanted)
        there = all(service.state in (*_UP, State.BACKOFF, State.FAILED) for service in services)
        return self.ready and there and self._ending.closing is None

    @property
    def leaving(self) -> bool:
        """Everybody has been asked out."""
        return self._ending.leaving

    @property
    def closing(self) -> str | None:
        """Why we are shutting down."""
        return self._ending.closing

    # time, and what follows

    def _on_tick(self, event: p.Tick, now: float) -> None:
        self._births.tick(now)
        if self._ending.drain_until is not None and now >= self._ending.drain_until:
            self._desk.emit("drain_timed_out", seconds=self._limits.drain_timeout, epoch=self.epochs.committed)
            self._ending.bid_farewell()
        self._watch.tick(now)
        self._generations.tick(event.emitted, now)
        self._operators.tick(now)

    def _settle(self, now: float) -> None:
        """What follows from the present state, whatever led to it."""
        if self._ending.drain_until is not None and self.epochs.held:
            self._ending.bid_farewell()
        if self._ending.leaving:
            self._leave_on(now)
            return
        begun = True
        while begun:  # a wish that has begun may already have come about
            self._deaths.promote(now)
            self._reloads.settle(now)
            self._apply_changes(now)
            self._generations.settle(now)
            begun = self._operators.settle(now)
        if not self._hold_needed():
            self._generations.release(now)

    def _hold_needed(self) -> bool:
        changing = bool(self.epochs.proposed) or self.epochs.unapplied
        return changing or self._ending.closing is not None or bool(self._roster.awaiting)

    def _apply_changes(self, now: float) -> None:
        """A change takes effect directly behind a barrier: all go back to that epoch, where most of them are already,
        and the stage that it concerns applies it before any input; a restore from that epoch does the same."""
        if not self.running or self._roster.awaiting:
            return
        if self.epochs.unapplied:  # before anything else is recorded: the next manifest would not tell of it
            if not self.epochs.held:
                return
            kinds = ", ".join(sorted({f"{change['kind']} in {change['stage']}" for change in self.epochs.changes}))
            self._generations.reset(kinds)
        elif self.epochs.proposed:
            self._generations.hold(now, ahead=True)

    # the end

    def _on_launcher_died(self, event: p.LauncherDied, now: float) -> None:
        self._deaths.on_launcher_died(event, now)
        if self._births.hopeless and not self.ever_ran and self.closing is None:
            self._desk.emit("launcher_given_up", "launcher")
            self._on_shutdown(p.Shutdown("the fork server cannot start"), now)

    def _on_shutdown(self, event: p.Shutdown, now: float) -> None:
        """The first one drains, the second one is in a hurry."""
        if self._ending.leaving:
            return
        hurry = self._ending.closing is not None
        self._ending.closing = self._ending.closing or event.reason
        self._operators.close(event.reason, now)
        if hurry:
            self._leave(now)
        elif not self.running or self.epochs.held:
            self._ending.bid_farewell()
        else:
            self._ending.drain(now + self._limits.drain_timeout)
            self._generations.hold(now)

    def _on_farewell_said(self, _: p.FarewellSaid, now: float) -> None:
        if not self._ending.leaving:
            self._leave(now)

    def _leave(self, now: float) -> None:
        """Everybody out: data stages first, then the services that watched them."""
        self._ending.leave()
        self._births.cease()
        self._generations.cease()
        for stage in reversed(self._roster.stages):
            self._deaths.stop(stage, now)

    def _leave_on(self, now: float) -> None:
        if any(stage.alive for stage in self._roster.stages) or self.epochs.writing:
            return
        for service in reversed(self._roster.services):
            if service.wanted:
                self._deaths.stop(service, now)
        if not any(service.alive for service in self._roster.services):
            self._desk.put(p.Quit())
