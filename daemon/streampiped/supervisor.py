"""The supervisor: performs what `core/supervision.py` decides. The one process that must never die.

Single-threaded but for one helper thread that waits for the disk. Imports neither numpy nor any user code. It owns
every pipe, watches every process, and serves the control socket.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import uvloop

from streampiped import __version__
from streampiped.announcer import Announcer
from streampiped.backend import SupervisorBackend
from streampiped.control_server import ControlServer
from streampiped.core import protocol as p
from streampiped.core.epoch_commands import (
    AskBarrier,
    AskCommit,
    AskPause,
    AskResume,
    EpochTimes,
    TellCommitted,
    WriteManifest,
)
from streampiped.core.health import Sample
from streampiped.core.supervision import Supervision
from streampiped.decisions import check_shape, decisions_for
from streampiped.disk import Disk
from streampiped.errors import ExitCode, RpcError, StateBusyError, StorageError, StreampipeError
from streampiped.events import LEVELS
from streampiped.foreground import Foreground
from streampiped.hearing import event_of
from streampiped.phases import Phase
from streampiped.runtime import stopped
from streampiped.runtime.blackbox import Reading
from streampiped.runtime.event_log import EventLog
from streampiped.runtime.launch import Launch
from streampiped.runtime.linux import become_subreaper, raise_descriptor_limit, set_comm
from streampiped.runtime.notify import Notifier
from streampiped.runtime.pipes import LinkTable, unsent_bytes
from streampiped.runtime.preload import modules_of
from streampiped.runtime.queries import Queries
from streampiped.runtime.scheduled import scheduled
from streampiped.runtime.snapshots import Damage, StateDirectory
from streampiped.runtime.spawn import BARE_KILL, Child, Spawner
from streampiped.stops import Stops
from streampiped.topology import Plan
from streampiped.verdicts import Verdicts
from streampiped.wire import messages as m

QUERY_TIMEOUT_S: Final = 5.0
STACK_DUMP_SIGNAL: Final = signal.SIGUSR2  # as in stage_process
LAST_WAIT_S: Final = 2.0  # for the launcher, which has been sent SIGKILL
STOP_EXTENSION_S: Final = 10.0  # told to systemd beyond the drain's own deadline


def run(plan: Plan, *, fresh: bool, until_finished: bool, early: Launch | None = None) -> int:
    """Run the pipeline until it is told to stop (or, `until_finished`, its bounded stream has ended). `fresh`
    discards the state of former runs; `early` is a launcher on its way. Returns an exit code."""
    faulthandler.enable()
    try:
        if fresh:
            StateDirectory.discard(Path(plan.paths.state))
        state = StateDirectory(Path(plan.paths.state), plan.pipeline)
        found = state.newest()
        check_shape(plan, found.manifest)
        state.put_aside(found.damaged)
        disk = Disk(plan, state, found.manifest)
        disk.reconcile()
        held = stopped.load(Path(plan.paths.state))
    except (StreampipeError, OSError) as error:
        print(f"streampiped: {error}", file=sys.stderr)
        return ExitCode.FAILED if isinstance(error, StateBusyError | StorageError) else ExitCode.CONFIG
    become_subreaper()
    set_comm("streampiped")
    raise_descriptor_limit()
    supervision = decisions_for(plan, state.highest(), found.manifest)
    supervisor = Supervisor(plan, disk, supervision, found.damaged, held, until_finished, early)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(supervisor.main())


class Supervisor:
    """Events in, commands out, in order. Implements `spawn.Listener`."""

    def __init__(
        self,
        plan: Plan,
        disk: Disk,
        supervision: Supervision,
        damaged: tuple[Damage, ...],
        held: frozenset[str],
        until_finished: bool,
        early: Launch | None,
    ) -> None:
        self.plan = plan
        self._damaged = damaged
        self._early = early
        self.log = EventLog(
            Path(plan.paths.logs),
            level=next(level for level in LEVELS if level == plan.logs.level),
            file_bytes_max=plan.logs.file_bytes_max,
            files_kept=plan.logs.files_kept,
        )
        self.supervision = supervision
        self.disk = disk
        self._held = held
        self._exit_code = int(ExitCode.OK)
        self._until_finished = until_finished
        self._foreground: Foreground | None = None
        self._links = LinkTable(plan.edges(), plan.links.pipe_bytes)
        self._events: deque[p.Event] = deque()
        self._handling = False
        self._flushing = False
        self._timer: asyncio.TimerHandle | None = None
        self._queries = Queries()
        self.verdicts = Verdicts(
            self.disk,
            self._on_verdict,
            lambda stage, reason: self.log.write("verdict_failed", stage=stage, reason=reason),
        )
        self._stops = Stops(self.disk, Path(plan.paths.state), self._on_stops_kept)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._ready_told = False
        self.times: EpochTimes | None = None
        """Where the last epoch's time went."""
        self.recovery: float | None = None
        """Seconds from the last death to the first new batch at the last stage."""
        self._began = time.monotonic()
        self._announcer = Announcer(Notifier(os.environ), self, self._began)
        self._since, self._cause = self._began, "the start"
        """When and why the data last stopped to flow."""
        self._performers = self._routes()

    def _routes(self) -> dict[type, Callable[..., None]]:
        """What performs which command."""
        return {
            p.StartLauncher: lambda _: self.spawner.start_launcher(),
            p.Fork: lambda c: self.spawner.fork(c.name, c.incarnation),
            p.MakeLinks: lambda c: self._links.make(c.generation),
            p.CloseOldLinks: lambda c: self._links.close_before(c.generation),
            p.SendReset: self._send_reset,
            p.SendGo: lambda c: self._tell(c.name, m.Go(c.generation)),
            p.AskLeave: lambda c: self._signal(c, signal.SIGTERM, signal.SIGCONT),
            p.Kill: self._kill,
            p.KillLauncher: self._kill_launcher,
            p.DumpStack: lambda c: self._signal(c, STACK_DUMP_SIGNAL),
            p.Look: self._look,
            p.Answer: lambda c: self.backend.answer(c.ticket, c.code, c.text),
            p.Log: self._log,
            p.Finished: self._finished,
            p.Farewell: lambda _: self._start(self._farewell()),
            p.Quit: lambda _: self._done.set(),
            p.RememberStopped: lambda c: self._start(self._stops.remember(c.names)),
            AskBarrier: lambda c: self._tell(c.stage, m.Barrier(c.generation, c.epoch, c.hold)),
            AskPause: lambda c: self._tell(c.stage, m.Pause(c.generation)),
            AskResume: lambda c: self._tell(c.stage, m.Resume(c.generation)),
            WriteManifest: lambda c: self._start(self._write_manifest(c)),
            AskCommit: lambda c: self._tell(c.stage, m.Commit(c.generation, c.epoch)),
            TellCommitted: self._tell_committed,
        }

    async def main(self) -> int:
        """From the first process to the last."""
        self._loop = asyncio.get_running_loop()
        self._done = asyncio.Event()
        self.spawner = Spawner(self._loop, self, modules_of(s.klass for s in self.plan.processes), self._early)
        self.backend = SupervisorBackend(self)
        server = ControlServer(str(Path(self.plan.paths.runtime, "control.sock")), self.backend, self._emit)
        try:
            server.start()
        except (StreampipeError, OSError) as error:
            print(f"streampiped: {error}", file=sys.stderr)
            return ExitCode.FAILED
        for signum in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(signum, self._on_signal, signum)
        if self._until_finished:
            self._foreground = Foreground(self.backend, self.log)
        self._emit(
            "pipeline_started",
            pipeline=self.plan.pipeline,
            version=__version__,
            stages=len(self.plan.stages),
            state_dir=self.plan.paths.state,
        )
        self._tell_what_was_found()
        self._perform(self.supervision.start(time.monotonic(), self._held))
        self._tick()
        if self._foreground is not None:
            self._start(self._foreground.show(self._done))
        await self._done.wait()
        await self._leave(server)
        return self._exit_code

    def _tell_what_was_found(self) -> None:
        for damage in self._damaged:
            self._emit("epoch_damaged", epoch=damage.epoch, reason=str(damage))
        if self._damaged:
            numbers = ", ".join(str(damage.epoch) for damage in self._damaged)
            self._emit("epoch_fell_back", epoch=self.supervision.epochs.committed, damaged=numbers)

    async def _leave(self, server: ControlServer) -> None:
        self._emit("pipeline_stopped")
        await self.spawner.shutdown(LAST_WAIT_S)
        server.close()
        self.disk.close()
        if self._foreground is not None:
            self._foreground.close()
        self.log.close()
        if self._foreground is not None:
            self._foreground.print_report()

    # the loop of events and commands

    def dispatch(self, event: p.Event) -> None:
        """Hand an event to the decisions and perform what they answer. Events that arise meanwhile come after it."""
        self._events.append(event)
        if self._handling:
            return
        self._handling = True
        try:
            while self._events:
                before, flowed = self._visible_state(), self.supervision.running
                now = time.monotonic()
                self._perform(self.supervision.handle(self._events.popleft(), now))
                if flowed and not self.supervision.running:
                    self._since = now  # and not after what is done about it, which is part of the recovery
                if self._visible_state() != before:
                    self._on_state_change()
            self._announcer.step(time.monotonic())  # from here alone: one that only seems to live is found
        finally:
            self._handling = False
            if self.supervision.leaving:
                self.disk.give_up()
            self._set_timer()
            self._flush_log()

    def _perform(self, commands: list[p.Command]) -> None:
        """In order. When the outer world is short of something (descriptors, memory), the others still count."""
        for command in commands:
            try:
                self._performers[type(command)](command)
            except OSError as error:
                self._emit("command_failed", command=type(command).__name__, reason=str(error))
                if isinstance(command, p.Fork):
                    self._events.append(p.ForkFailed(command.name, command.incarnation, str(error)))
                elif isinstance(command, p.StartLauncher):
                    self._events.append(p.LauncherDied(str(error)))

    def _flush_log(self) -> None:
        """Lines that standard error had no room for go out as soon as it has."""
        if self.log.pending and not self._flushing:
            self._flushing = True
            self._loop.add_writer(self.log.fileno(), self._flush_more)

    def _flush_more(self) -> None:
        self.log.flush()
        if not self.log.pending:
            self._flushing = False
            self._loop.remove_writer(self.log.fileno())

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = min(self.supervision.deadline() or float("inf"), self._announcer.due())
        if due < float("inf"):
            self._timer = self._loop.call_later(max(0.0, due - time.monotonic()), self._tick)

    def _tick(self) -> None:
        self.dispatch(p.Tick(self.backend.view.records()))

    def _visible_state(self) -> tuple[Any, ...]:
        supervision = self.supervision
        return (supervision.running, supervision.closing, *((q.state, q.pid) for q in supervision.processes.values()))

    def _on_state_change(self) -> None:
        if self.supervision.settled and not self._ready_told:
            self._ready_told = True
            self._emit("pipeline_ready", generation=self.supervision.generation, seconds=time.monotonic() - self._began)
            self._announcer.ready()
        self.backend.changed()
        roster = self.backend.roster()
        for process in self.supervision.processes.values():
            if process.service and process.pid:
                self._tell(process.name, m.Roster(roster), droppable=True)

    def _start(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # spawn.Listener

    def on_launcher_ready(self, pid: int) -> None:
        self.log.write("launcher_started", stage="launcher", child=pid)
        self.dispatch(p.LauncherReady())

    def on_launcher_died(self, reason: str) -> None:
        self.dispatch(p.LauncherDied(reason))

    def on_forked(self, child: Child) -> None:
        heir = self.supervision.processes[child.name].heir(child.incarnation)
        snapshot = self.disk.snapshot_of(child.name, self.supervision.epochs.committed) if heir is not None else None
        child.channel.send(m.Begin(child.name, child.incarnation, os.getpid(), self.plan.to_dict(), snapshot))
        self.dispatch(p.Forked(child.name, child.incarnation, child.pid))

    def on_fork_failed(self, name: str, incarnation: int, reason: str) -> None:
        self.dispatch(p.ForkFailed(name, incarnation, reason))

    def on_died(self, child: Child, reason: str) -> None:
        self._queries.died(child.name)
        self.verdicts.died(child.name, child.incarnation)
        self.dispatch(p.Died(child.name, child.incarnation, reason, self._inside(child), reason == BARE_KILL))

    def _inside(self, child: Child) -> p.Spans:
        """The records that were in `process` when it died there."""
        names, ways = [spec.name for spec in self.plan.stages], self.plan.ways()
        inside = child.last.inside if child.last is not None else ()
        known = [(way, source, *rows) for way, source, *rows in inside if way < len(ways) and source < len(names)]
        return tuple((ways[way], names[source], start, count) for way, source, start, count in known)

    def on_output(self, name: str, line: str) -> None:
        self.log.write("stage_output", stage=name, line=line)
        self._flush_log()

    def on_output_dropped(self, name: str, count: int) -> None:
        self.log.write("output_dropped", stage=name, count=count)

    def on_orphan(self, pid: int) -> None:
        self._emit("orphan_ended", child=pid)

    def on_message(self, child: Child, message: m.Message) -> None:
        """What a process says, as an event; what no process may say ends it."""
        name, incarnation = child.name, child.incarnation
        match message:
            case m.Failed(phase, reason, traceback):
                self.log.write("stage_raised", stage=name, phase=phase, reason=reason, traceback=traceback)
            case m.FirstBatch(generation, at_ns):
                self._first_batch(name, generation, at_ns)
            case m.Guilty():
                self.verdicts.named(name, incarnation, message)
            case m.Judged():
                self._start(self.verdicts.judged(name, incarnation, message))
            case m.Reply():
                self._queries.answered(message)
            case m.Event(event, values):
                self.log.relay(event, values, stage=name, pid=child.pid)
            case _ if event_of(name, incarnation, message) is None:
                child.kill()
        if (heard := event_of(name, incarnation, message)) is not None:
            self.dispatch(heard)

    def _on_verdict(self, name: str, incarnation: int, generation: int, rows: int) -> None:
        """A trial's verdict is durable."""
        if rows:
            self.log.write("records_quarantined", stage=name, count=rows)
        self.dispatch(p.Judged(name, incarnation, generation, rows))

    def _first_batch(self, name: str, generation: int, at_ns: int) -> None:
        """Recovery is over when the last stage has had a batch of the new generation."""
        if name != self.plan.stages[-1].name or generation != self.supervision.generation:
            return
        self.recovery = at_ns / 1e9 - self._since
        self._emit("first_batch_seen", generation=generation, seconds=self.recovery, since=self._cause)

    # commands

    def _emit(self, event: str, /, **fields: Any) -> None:
        self.log.write(event, stage="supervisor", **fields)

    def _log(self, command: p.Log) -> None:
        self.log.write(command.event, stage=command.stage, **command.values)
        if command.event == "generation_reset":
            self._cause = str(command.values["reason"])
        if command.event == "epoch_aborted":
            self.disk.retain(command.values["epoch"])
        if command.event == "launcher_given_up":
            self._exit_code = ExitCode.FAILED
        if command.event == "stage_given_up" and self._foreground is not None:
            self._exit_code = ExitCode.FAILED
            self._loop.call_soon(self.dispatch, p.Shutdown(f"{command.stage} failed"))

    def _child(self, name: str) -> Child | None:
        return self.spawner.child(name, self.supervision.processes[name].incarnation)

    def _tell(self, name: str, message: m.Message, *, droppable: bool = False) -> None:
        child = self._child(name)
        if child is not None:
            child.channel.send(message, droppable=droppable)

    def _signal(self, command: p.AskLeave | p.DumpStack, *signals: signal.Signals) -> None:
        child = self.spawner.child(command.name, command.incarnation)
        if child is not None:
            child.signal(*signals)

    def _kill(self, command: p.Kill) -> None:
        child = self.spawner.child(command.name, command.incarnation)
        if child is not None:
            child.kill()
        elif not self.spawner.is_ordered(command.name, command.incarnation):
            self._events.append(p.Died(command.name, command.incarnation, "was never forked"))

    def _kill_launcher(self, command: p.KillLauncher) -> None:
        if not self.spawner.kill_launcher():
            self._events.append(p.Died(command.name, command.incarnation, "was never forked"))

    def _send_reset(self, command: p.SendReset) -> None:
        spec = self.plan.spec(command.name)
        outputs = self.plan.outputs(command.name)
        snapshot = self.disk.snapshot_of(command.name, command.epoch)
        message = m.Reset(
            command.generation,
            command.epoch,
            snapshot,
            list(spec.inputs),
            list(outputs),
            [list(span) for span in command.suspects],
            [dict(change) for change in command.changes],
        )
        child = self.spawner.child(command.name, command.incarnation)
        if child is not None:
            child.channel.send(message, self._links.ends(command.generation, spec.inputs, spec.name, outputs))

    def _look(self, command: p.Look) -> None:
        child = self.spawner.child(command.name, command.incarnation)
        self.spawner.reap()
        if child is None or child.channel.fileno() < 0:
            return
        reading = child.blackbox.read()
        generation = self.supervision.generation
        held_up = self._links.starved if reading.phase is Phase.CREDITS else self._links.blocked
        sample = Sample(
            pulse=reading.pulse,
            phase=reading.phase,
            waiting_input=self._links.waiting(generation, command.name),
            waiting_control=child.channel.queued > 0 or unsent_bytes(child.channel.fileno()) > 0,
            blocked_output=held_up(generation, command.name),
            **scheduled(child.pid)._asdict(),
        )
        self._events.append(p.Sampled(command.name, command.incarnation, sample))

    # epochs

    async def _write_manifest(self, command: WriteManifest) -> None:
        try:
            await self.disk.commit(command)
        except OSError as error:
            self.dispatch(p.ManifestFailed(command.generation, command.epoch, f"manifest: {error}"))
        else:
            self.dispatch(p.ManifestWritten(command.generation, command.epoch))

    def _on_stops_kept(self, names: tuple[str, ...], refused: str | None) -> None:
        if refused is not None:
            self._emit("command_failed", command="RememberStopped", reason=refused)
        self.dispatch(p.StopsKept(names, refused))

    def _tell_committed(self, command: TellCommitted) -> None:
        self.times = command.times
        for spec in self.plan.stages:
            self._tell(spec.name, m.Committed(command.generation, command.epoch))
        self.disk.retain(command.epoch)

    # announcer.Seen

    def reading(self, name: str) -> Reading | None:
        child = self._child(name)
        return child.blackbox.read() if child is not None else None

    def state(self) -> tuple[str, str | None]:
        return self.backend.view.state()

    # questions to stages

    async def query(self, name: str, method: str, params: dict[str, Any], timeout: float = QUERY_TIMEOUT_S) -> Any:
        """Ask a process; RpcError when it is not there, does not know, or takes longer than `timeout` seconds."""
        child = self._child(name)
        if child is None:
            raise RpcError(f"{name} is not running", ExitCode.REFUSED)
        return await self._queries.ask(name, child.channel, method, params, timeout)

    # operators and the end

    def _on_signal(self, signum: signal.Signals) -> None:
        self._announcer.stopping(self.plan.supervision.drain_timeout + STOP_EXTENSION_S)
        self.dispatch(p.Shutdown(signum.name))

    def _finished(self, _: p.Finished) -> None:
        if self._foreground is not None:
            self._loop.call_soon(self.dispatch, p.Shutdown("every source has ended"))

    async def _farewell(self) -> None:
        try:
            if self._foreground is not None:
                await self._foreground.take_report()
        finally:
            self.dispatch(p.FarewellSaid())
