"""Supervision of all processes: the decisions. Pure: events and `now` in, commands out.

The shell (`supervisor.py`) reports what happened with `handle`, performs what comes back in order, and calls again
with `Tick` at `deadline()`. Transcripts in tests/pure/test_supervision.py show it at work.

A *generation* is one life of the links. Whenever a data stage dies, is stopped or replaced, `_reset` opens the next
one: fresh pipes, every living stage restores the committed epoch and answers ready, the dead one is forked again;
go comes when all are ready. Services (log extractor, service monitor) have no links and no part in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from streampiped.core import protocol as p
from streampiped.core.epochs import Aborted, Coordinator, EpochCommand, Part, TellCommitted
from streampiped.core.health import StallClock
from streampiped.core.intensity import GiveUp, Intensity
from streampiped.core.lifecycle import Input, State, advance, is_alive
from streampiped.core.operations import Operations, Wish

LOOKS_PER_TIMEOUT: Final = 4  # how often within `hang_timeout` a process is looked at
LOOK_PERIOD_MIN_S: Final = 0.25
STACK_DUMP_GRACE_S: Final = 0.5  # from the request of a stack dump to the kill; a dump takes milliseconds
LAUNCHER_BACKOFF_S: Final = 1.0  # after a fork server that died before it was ready


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds; see topology.Supervision."""

    start_timeout: float
    reset_timeout: float
    stop_timeout: float
    drain_timeout: float


@dataclass(slots=True)
class Process:
    """What is known of one name of the plan."""

    name: str
    service: bool
    hang_timeout: float
    intensity: Intensity
    state: State = State.STOPPED
    since: float = 0.0
    incarnation: int = 0
    pid: int = 0
    wanted: bool = True
    expected: bool = False
    """Its next death is of our own making and counts for nothing."""
    restarts: int = 0
    last_reason: str | None = None
    said: str | None = None
    """The reason that it gave itself before it died."""
    deadline: float | None = None
    """When the present state has lasted too long (BACKOFF: when to fork)."""
    ready_for: int = 0
    next_look: float | None = None
    kill_at: float | None = None
    stall: StallClock = field(default_factory=StallClock)
    successor: Successor | None = None


@dataclass(slots=True)
class Successor:
    """A process that imports while its predecessor still works."""

    incarnation: int
    pid: int = 0
    loaded: bool = False
    deadline: float = 0.0


class Supervision:
    """The state machine over all processes. `processes`, `generation` and `reason` may be read by the shell."""

    def __init__(
        self,
        processes: Iterable[Process],
        limits: Limits,
        epochs: Coordinator,
    ) -> None:
        self.processes = {process.name: process for process in processes}
        self.epochs = epochs
        self.generation = 0
        self.running = False
        """A generation has gone and no stage has died since."""
        self.ever_ran = False
        self.closing: str | None = None
        """Why we are shutting down."""
        self.launcher_ready = False
        self._limits = limits
        self._launcher_at: float | None = None
        self._drain_until: float | None = None
        self._leaving = False
        self._farewell = False
        self._reset_wanted: str | None = None
        self._incarnations = 0
        self._cause = "start"
        self._operations = Operations()
        self._out: list[p.Command] = []
        self._handlers: dict[type, Callable[..., None]] = {
            p.LauncherReady: self._on_launcher_ready,
            p.LauncherDied: self._on_launcher_died,
            p.Forked: self._on_forked,
            p.ForkFailed: self._on_fork_failed,
            p.Loaded: self._on_loaded,
            p.Ready: self._on_ready,
            p.Failed: self._on_failed,
            p.Died: self._on_died,
            p.SnapshotDone: self._on_snapshot_done,
            p.SnapshotFailed: self._on_epoch_failed,
            p.ManifestWritten: self._on_manifest_written,
            p.ManifestFailed: self._on_epoch_failed,
            p.CommitDone: self._on_commit_done,
            p.SourceEnded: self._on_source_ended,
            p.Sampled: self._on_sampled,
            p.Tick: self._on_tick,
            p.Operate: self._on_operate,
            p.Shutdown: self._on_shutdown,
            p.FarewellSaid: self._on_farewell_said,
        }

    # the two calls of the shell

    def start(self, now: float) -> list[p.Command]:
        """Begin: the launcher, then every process, in the order of the plan."""
        self._out = [p.StartLauncher()]
        self._reset("start", now)
        for process in self.processes.values():
            self._fork(process, now)
        return self._flush()

    def handle(self, event: p.Event, now: float) -> list[p.Command]:
        """What to do about `event` at `now` (seconds, monotonic), in order."""
        self._handlers[type(event)](event, now)
        self._settle(now)
        return self._flush()

    def deadline(self) -> float | None:
        """When the shell must send a `Tick` at the latest."""
        times = [self.epochs.deadline(), self._drain_until, self._launcher_at, self._operations.deadline()]
        for process in self.processes.values():
            times += [process.deadline, process.next_look, process.kill_at]
            if process.successor is not None and not process.successor.loaded:
                times.append(process.successor.deadline)
        return min((t for t in times if t is not None), default=None)

    @property
    def stages(self) -> list[Process]:
        """The data stages, sources first."""
        return [process for process in self.processes.values() if not process.service]

    @property
    def holding(self) -> Process | None:
        """The first data stage that keeps the pipeline from running and will not come back by itself."""
        return next((s for s in self.stages if s.state in (State.STOPPED, State.FAILED)), None)

    def _flush(self) -> list[p.Command]:
        out, self._out = self._out, []
        return out

    def _log(self, event: str, stage: str = "supervisor", **values: object) -> None:
        self._out.append(p.Log(event, stage, values))

    def _move(self, process: Process, event: Input, now: float, deadline: float | None = None) -> None:
        process.state = advance(process.state, event)
        process.since = now
        process.deadline = deadline

    # birth

    def _fork(self, process: Process, now: float) -> None:
        self._incarnations += 1
        process.incarnation = self._incarnations
        process.pid = 0
        process.said = None
        process.expected = False
        process.stall.forget()
        # without a fork server the clock starts when the next one is ready
        self._move(process, Input.FORK, now, now + self._limits.start_timeout if self.launcher_ready else None)
        if self.launcher_ready:
            self._out.append(p.Fork(process.name, process.incarnation))

    def _fork_successor(self, process: Process, now: float) -> None:
        self._incarnations += 1
        process.successor = Successor(self._incarnations, deadline=now + self._limits.start_timeout)
        if self.launcher_ready:
            self._out.append(p.Fork(process.name, self._incarnations))

    def _on_launcher_ready(self, _: p.LauncherReady, now: float) -> None:
        self.launcher_ready = True
        self._launcher_at = None
        for process in self.processes.values():
            if process.state is State.STARTING:
                process.deadline = now + self._limits.start_timeout
                self._out.append(p.Fork(process.name, process.incarnation))
            if process.successor is not None and not process.successor.pid:
                process.successor.deadline = now + self._limits.start_timeout
                self._out.append(p.Fork(process.name, process.successor.incarnation))

    def _on_launcher_died(self, event: p.LauncherDied, now: float) -> None:
        """Stages live on. Forks that were under way are asked for again; a fork that did happen finds its control
        socket closed and leaves."""
        if self._leaving:
            return
        self._log("launcher_died", "launcher", reason=event.reason)
        self._launcher_at = now if self.launcher_ready else now + LAUNCHER_BACKOFF_S
        self.launcher_ready = False
        for process in self.processes.values():
            if process.state is State.STARTING:
                process.deadline = None
            elif is_alive(process.state) and not process.pid:
                self._bury(process, "was never forked", now)

    def _on_forked(self, event: p.Forked, now: float) -> None:
        process = self.processes[event.name]
        if process.incarnation == event.incarnation and process.state is State.STARTING:
            process.pid = event.pid
            self._move(process, Input.FORKED, now, process.deadline)
        elif process.incarnation == event.incarnation:
            process.pid = event.pid  # asked to leave or killed meanwhile
            self._out.append(p.Kill(event.name, event.incarnation))
        elif process.successor is not None and process.successor.incarnation == event.incarnation:
            process.successor.pid = event.pid
        else:
            self._out.append(p.Kill(event.name, event.incarnation))

    def _on_fork_failed(self, event: p.ForkFailed, now: float) -> None:
        self._on_died(p.Died(event.name, event.incarnation, f"cannot be forked: {event.reason}"), now)

    def _on_loaded(self, event: p.Loaded, now: float) -> None:
        process = self.processes[event.name]
        successor = process.successor
        if successor is not None and successor.incarnation == event.incarnation:
            successor.loaded = True
            return
        if process.incarnation != event.incarnation or process.state is not State.LOADING:
            return
        self._log("stage_loaded", process.name, child=process.pid)
        self._move(process, Input.LOADED, now)
        if process.service:
            self._move(process, Input.GO, now)
            self._watch(process, now)
        elif self._reset_wanted is None:
            self._send_reset(process, now)

    # generations

    def _reset(self, reason: str, now: float) -> None:
        """Open the next generation (or note that it must be opened when the manifest under way has its answer)."""
        self.running = False
        self.epochs.down()
        self._reset_wanted = reason
        for process in self.processes.values():
            if not process.service:
                process.next_look = None

    def _open_generation(self, now: float) -> None:
        reason, self._reset_wanted = self._reset_wanted, None
        self.generation += 1
        self._cause = reason or self._cause
        if self.generation > 1:
            epoch = self.epochs.committed
            self._log("generation_reset", generation=self.generation, reason=reason, epoch=epoch)
        self._out.append(p.MakeLinks(self.generation))
        for stage in self.stages:
            if stage.state in (State.LOADED, State.RESETTING, State.READY, State.RUNNING):
                self._send_reset(stage, now)

    def _send_reset(self, stage: Process, now: float) -> None:
        self._move(stage, Input.RESET, now, now + self._limits.reset_timeout)
        self._out.append(p.SendReset(stage.name, stage.incarnation, self.generation, self.epochs.committed))

    def _on_ready(self, event: p.Ready, now: float) -> None:
        process = self.processes[event.name]
        current = process.incarnation == event.incarnation and process.state is State.RESETTING
        if not current or event.generation != self.generation:
            return
        process.ready_for = event.generation
        self._log("stage_ready", process.name, generation=event.generation)
        self._move(process, Input.READY, now)

    def _go(self, now: float) -> None:
        self.running = self.ever_ran = True
        self._out.append(p.CloseOldLinks(self.generation))
        for stage in reversed(self.stages):
            self._move(stage, Input.GO, now)
            self._watch(stage, now)
            self._out.append(p.SendGo(stage.name, self.generation))
        self._log("generation_started", generation=self.generation, epoch=self.epochs.committed)
        self._perform(self.epochs.go(self.generation, now))
        if self.epochs.finished:
            self._out.append(p.Finished(self.epochs.committed or 0))

    def _settle(self, now: float) -> None:
        """What follows from the present state, whatever led to it."""
        if self._drain_until is not None and self.epochs.held:
            self._bid_farewell(now)
        if self._leaving:
            self._leave_on(now)
            return
        self._promote(now)
        if self._reset_wanted is not None and not self.epochs.writing:
            self._open_generation(now)
        if not self.running and self._reset_wanted is None:
            ready = all(s.state is State.READY and s.ready_for == self.generation for s in self.stages)
            if ready and self.stages:
                self._go(now)
        for wish in self._operations.due(self._is_done, now):
            self._answer(wish, now)
        self._begin_wishes(now)

    # death

    def _on_failed(self, event: p.Failed, now: float) -> None:
        process = self.processes[event.name]
        self._log("stage_failed", event.name, phase=event.phase, reason=event.reason)
        if process.incarnation == event.incarnation:
            process.said = event.reason
        elif process.successor is not None and process.successor.incarnation == event.incarnation:
            self._operations.note(event.name, event.reason)

    def _on_died(self, event: p.Died, now: float) -> None:
        process = self.processes[event.name]
        successor = process.successor
        if successor is not None and successor.incarnation == event.incarnation:
            process.successor = None
            reason = self._operations.noted(event.name) or event.reason
            self._log("stage_died", event.name, reason=f"successor: {reason}")
            self._fail_wishes(event.name, f"{event.name}'s successor failed, the old one stays: {reason}", now)
            self._miss_successor(process, now)
            return
        if process.incarnation != event.incarnation or not is_alive(process.state):
            return
        self._bury(process, event.reason, now)

    def _bury(self, process: Process, reason: str, now: float) -> None:
        expected = process.expected
        self._move(process, Input.DIED, now)
        process.pid = 0
        process.next_look = process.kill_at = None
        if not expected:
            process.last_reason = process.said or reason
            self._log("stage_died", process.name, reason=process.last_reason)
        if self._leaving:
            return
        if self.closing is not None:
            self._bid_farewell(now)
            return
        if process.wanted and not expected:
            self._schedule(process, now)
        elif process.wanted and process.successor is None:
            process.restarts += 1
            self._fork(process, now)
        if not process.service and process.successor is None:
            self._reset(f"{process.name} {'left' if expected else 'died'}", now)

    def _schedule(self, process: Process, now: float) -> None:
        """An unexpected death: again at once, later, or not at all."""
        if process.successor is not None:
            return  # takes over in `_promote`
        decision = process.intensity.died(now)
        if isinstance(decision, GiveUp):
            process.last_reason = f"died {decision.count} times in a row, last: {process.last_reason}"
            self._move(process, Input.GIVE_UP, now)
            self._log("stage_given_up", process.name, reason=process.last_reason)
            self._fail_wishes(process.name, f"{process.name} failed: {process.last_reason}", now)
            return
        process.restarts += 1
        if decision.at <= now:
            self._fork(process, now)
            return
        self._move(process, Input.RETRY, now, decision.at)
        delay, window = decision.at - now, process.intensity.window
        self._log("stage_restart_scheduled", process.name, delay=delay, count=decision.count, window=window)

    def _promote(self, now: float) -> None:
        """Let loaded successors take over: all that one wish has named together, so that there is one reset."""
        waiting = [s for s in self.stages if s.successor is not None]
        if not waiting or not all(s.successor is not None and s.successor.loaded for s in waiting):
            return
        for stage in waiting:
            if is_alive(stage.state) and stage.state not in (State.STOPPING, State.KILLING):
                self._ask(stage, now)
        if any(is_alive(stage.state) for stage in waiting):
            return
        for stage in waiting:
            successor = stage.successor
            assert successor is not None
            stage.successor = None
            stage.incarnation, stage.pid = successor.incarnation, successor.pid
            stage.said, stage.expected = None, False
            stage.restarts += 1
            for event in (Input.FORK, Input.FORKED, Input.LOADED):
                self._move(stage, event, now)
        self._reset(f"restart of {', '.join(stage.name for stage in waiting)}", now)

    def _ask(self, process: Process, now: float) -> None:
        process.expected = True
        process.next_look = process.kill_at = None
        self._move(process, Input.ASK, now, now + self._limits.stop_timeout)
        if process.pid or self.launcher_ready:
            self._out.append(p.AskLeave(process.name, process.incarnation))
        else:
            self._bury(process, "was never forked", now)

    def _kill(self, process: Process, reason: str, now: float) -> None:
        process.said = process.said or reason
        process.next_look = process.kill_at = None
        self._move(process, Input.KILL, now)
        self._out.append(p.Kill(process.name, process.incarnation))

    # hangs

    def _watch(self, process: Process, now: float) -> None:
        process.stall.forget()
        process.next_look = now + max(LOOK_PERIOD_MIN_S, process.hang_timeout / LOOKS_PER_TIMEOUT)

    def _on_sampled(self, event: p.Sampled, now: float) -> None:
        process = self.processes[event.name]
        if process.incarnation != event.incarnation or process.state is not State.RUNNING or process.kill_at:
            return
        stalled = process.stall.look(event.sample, now)
        if stalled < process.hang_timeout:
            return
        phase = event.sample.phase.name.lower()
        process.said = f"hung: no progress for {stalled:.1f} s in {phase}"
        process.next_look = None
        process.kill_at = now + STACK_DUMP_GRACE_S
        self._log("stage_hung", process.name, seconds=stalled, phase=phase)
        self._out.append(p.DumpStack(process.name, process.incarnation))

    # time

    def _on_tick(self, event: p.Tick, now: float) -> None:
        if self._launcher_at is not None and now >= self._launcher_at:
            self._launcher_at = None
            self._out.append(p.StartLauncher())
        if self._drain_until is not None and now >= self._drain_until:
            self._log("drain_timed_out", seconds=self._limits.drain_timeout, epoch=self.epochs.committed)
            self._bid_farewell(now)
        for process in self.processes.values():
            self._tick_process(process, now)
        self._perform(self.epochs.tick(now, event.emitted))
        for wish in self._operations.timed_out(now):
            waits = ", ".join(f"{n} is {self.processes[n].state.value}" for n in wish.names)
            self._out.append(p.Answer(wish.ticket, 8, f"still going on after {wish.timeout:g} s: {waits}"))

    def _tick_process(self, process: Process, now: float) -> None:
        successor = process.successor
        if successor is not None and not successor.loaded and now >= successor.deadline:
            self._operations.note(process.name, f"not loaded after {self._limits.start_timeout:g} s")
            self._out.append(p.Kill(process.name, successor.incarnation))
            successor.deadline = now + self._limits.start_timeout
        if process.kill_at is not None and now >= process.kill_at:
            self._kill(process, process.said or "hung", now)
        if process.next_look is not None and now >= process.next_look:
            process.next_look = now + max(LOOK_PERIOD_MIN_S, process.hang_timeout / LOOKS_PER_TIMEOUT)
            self._out.append(p.Look(process.name, process.incarnation))
        if process.deadline is None or now < process.deadline:
            return
        if process.state is State.BACKOFF:
            self._fork(process, now)
            return
        self._kill(process, f"still {process.state.value} after {now - process.since:.1f} s", now)

    # epochs

    def _perform(self, commands: list[EpochCommand]) -> None:
        for command in commands:
            match command:
                case Aborted(epoch, reason):
                    self._log("epoch_aborted", epoch=epoch, reason=reason)
                    continue
                case TellCommitted(_, epoch, final, seconds):
                    self._log("epoch_committed", epoch=epoch, seconds=seconds)
                    self._out.append(command)
                    if final and self.epochs.finished:
                        self._log("pipeline_finished", epoch=epoch)
                        self._out.append(p.Finished(epoch))
                    continue
            self._out.append(command)

    def _on_snapshot_done(self, event: p.SnapshotDone, now: float) -> None:
        part = Part(event.name, event.file, event.length, event.checksum)
        self._perform(self.epochs.snapshot_done(part, event.generation, event.epoch))

    def _on_epoch_failed(self, event: p.SnapshotFailed | p.ManifestFailed, now: float) -> None:
        self._perform(self.epochs.failed(event.generation, event.epoch, event.reason, now))

    def _on_manifest_written(self, event: p.ManifestWritten, now: float) -> None:
        self._perform(self.epochs.manifest_written(event.generation, event.epoch, now))

    def _on_commit_done(self, event: p.CommitDone, now: float) -> None:
        self._perform(self.epochs.commit_done(event.name, event.generation, event.epoch, now))

    def _on_source_ended(self, event: p.SourceEnded, now: float) -> None:
        self._perform(self.epochs.source_ended(event.name, event.generation, now))

    # operators

    def _on_operate(self, event: p.Operate, now: float) -> None:
        if self.closing is not None:
            self._out.append(p.Answer(event.ticket, 7, f"refused: shutting down ({self.closing})"))
            return
        names = event.names or tuple(self.processes)
        wish = Wish(event.ticket, event.verb, names, event.timeout, now + event.timeout)
        for beaten in self._operations.add(wish):
            for name in beaten.names:
                self._drop_successor(self.processes[name], now)
            self._out.append(p.Answer(beaten.ticket, 7, f"overtaken by stop {', '.join(names)}"))

    def _begin_wishes(self, now: float) -> None:
        wish = self._operations.next()
        if wish is None:
            return
        for name in wish.names:
            process = self.processes[name]
            if wish.verb == "stop":
                self._stop(process, now)
            elif not is_alive(process.state):
                process.wanted = True
                process.intensity.forget()
                self._fork(process, now)
            elif wish.verb == "restart" and process.service:
                self._ask(process, now)
            elif wish.verb == "restart" and process.successor is None:
                self._fork_successor(process, now)
        self._settle(now)

    def _stop(self, process: Process, now: float) -> None:
        process.wanted = False
        self._drop_successor(process, now)
        if process.state in (State.BACKOFF, State.FAILED):
            self._move(process, Input.STAY_DOWN, now)
        elif is_alive(process.state) and process.state not in (State.STOPPING, State.KILLING):
            self._ask(process, now)

    def _drop_successor(self, process: Process, now: float) -> None:
        if process.successor is not None:
            self._out.append(p.Kill(process.name, process.successor.incarnation))
            process.successor = None
            self._miss_successor(process, now)

    def _miss_successor(self, process: Process, now: float) -> None:
        """Nobody takes over: if the old one has gone meanwhile, its death is an ordinary one after all."""
        if process.wanted and process.state is State.STOPPED and self.closing is None:
            self._schedule(process, now)
            self._reset(f"{process.name} died", now)

    def _is_done(self, wish: Wish) -> bool:
        return all(self._has_come(self.processes[name], wish) for name in wish.names)

    def _has_come(self, process: Process, wish: Wish) -> bool:
        if wish.verb == "stop":
            return process.state is State.STOPPED
        if process.successor is not None:
            return False
        return process.state is State.RUNNING or (process.state is State.READY and self.holding is not None)

    def _answer(self, wish: Wish, now: float) -> None:
        held = self.holding
        text = "done"
        if wish.verb != "stop" and held is not None:
            text = f"done; the pipeline holds because {held.name} is {held.state.value}"
        self._out.append(p.Answer(wish.ticket, 0, text))

    def _fail_wishes(self, name: str, reason: str, now: float) -> None:
        for wish in self._operations.about(name):
            for other in wish.names:
                self._drop_successor(self.processes[other], now)
            self._out.append(p.Answer(wish.ticket, 1, reason))

    # the end

    def _on_shutdown(self, event: p.Shutdown, now: float) -> None:
        if self._leaving:
            return
        first = self.closing is None
        self.closing = self.closing or event.reason
        for wish in self._operations.clear():
            self._out.append(p.Answer(wish.ticket, 7, f"refused: shutting down ({event.reason})"))
        for process in self.processes.values():
            self._drop_successor(process, now)
        if not first:
            self._leave(now)
            return
        if not self.running or self.epochs.finished:
            self._bid_farewell(now)
            return
        self._log("drain_started", reason=event.reason)
        self._drain_until = now + self._limits.drain_timeout
        self._perform(self.epochs.hold(now))

    def _bid_farewell(self, now: float) -> None:
        """Whatever could be drained is. Somebody may still want to ask the stages something."""
        self._drain_until = None
        if not self._farewell:
            self._farewell = True
            self._out.append(p.Farewell())

    def _on_farewell_said(self, _: p.FarewellSaid, now: float) -> None:
        if not self._leaving:
            self._leave(now)

    def _leave(self, now: float) -> None:
        """Everybody out: data stages first, then the services that watched them."""
        self._leaving = True
        self._drain_until = None
        self._launcher_at = None
        self.running = False
        self.epochs.down()
        for process in reversed(self.stages):
            self._stop(process, now)

    def _leave_on(self, now: float) -> None:
        if any(is_alive(stage.state) for stage in self.stages) or self.epochs.writing:
            return
        services = [process for process in self.processes.values() if process.service]
        for service in reversed(services):
            if service.wanted:
                self._stop(service, now)
        if not any(is_alive(service.state) for service in services):
            self._out.append(p.Quit())
