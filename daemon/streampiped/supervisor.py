"""The supervisor: performs what `core/supervision.py` decides. The one process that must never die.

Single-threaded but for one helper thread that waits for the disk. Imports neither numpy nor any user code. It owns
every pipe, watches every process, and serves the control socket.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final

from streampiped import __version__
from streampiped.announcer import Announcer
from streampiped.backend import SupervisorBackend
from streampiped.control_server import ControlServer
from streampiped.core import protocol as p
from streampiped.core.epoch_commands import EpochTimes, TellCommitted
from streampiped.core.health import Sample
from streampiped.core.supervision import Supervision
from streampiped.disk import Disk
from streampiped.errors import ExitCode, RpcError, StreampipeError
from streampiped.events import LEVELS
from streampiped.foreground import Foreground
from streampiped.hearing import event_of
from streampiped.observation import Observation
from streampiped.performers import Performers
from streampiped.reloading import Reloading
from streampiped.runtime.blackbox import Reading
from streampiped.runtime.event_log import EventLog, complain
from streampiped.runtime.launch import Launch
from streampiped.runtime.notify import Notifier
from streampiped.runtime.preload import modules_of
from streampiped.runtime.queries import Queries
from streampiped.runtime.snapshots import Damage
from streampiped.runtime.spawn import BARE_KILL, Child, Spawner
from streampiped.topology import Plan
from streampiped.verdicts import Verdicts
from streampiped.wire import messages as m

QUERY_TIMEOUT_S: Final = 5.0
LAST_WAIT_S: Final = 2.0  # for the launcher, which has been sent SIGKILL
STOP_EXTENSION_S: Final = 10.0  # told to systemd beyond the drain's own deadline


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
        directories: tuple[str | None, str | None],
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
        self.log.epoch = supervision.epochs.committed
        self.supervision = supervision
        self.disk = disk
        self._held = held
        self._exit_code = int(ExitCode.OK)
        self.notifier = Notifier(os.environ)
        self._until_finished = until_finished
        self.foreground: Foreground | None = None
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
        self.observation = Observation(self)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._ready_told = False
        self.times: EpochTimes | None = None
        """Where the last epoch's time went."""
        self.recovery: float | None = None
        """Seconds from the last death to the first new batch at the last stage."""
        self.performers = Performers(self)
        self.reloading = Reloading(self, directories)
        self._began = self.decided = time.monotonic()
        self._announcer = Announcer(self.notifier, self, self._began)
        self._since, self._cause = self._began, "the start"
        """When and why the data last stopped to flow."""

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
            complain(f"streampiped: {error}")
            return ExitCode.FAILED
        for signum in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(signum, self._on_signal, signum)
        if not os.isatty(sys.stderr.fileno()):  # else it means that the terminal has gone, and ends us as ever
            self._loop.add_signal_handler(signal.SIGHUP, lambda: self.start(self.backend.reload_alone("SIGHUP")))
        if self._until_finished:
            self.foreground = Foreground(self.backend, self.log)
        self._emit(
            "pipeline_started",
            pipeline=self.plan.pipeline,
            version=__version__,
            stages=len(self.plan.stages),
            state_dir=self.plan.paths.state,
        )
        self._tell_what_was_found()
        self.performers.perform(self.supervision.start(time.monotonic(), self._held))
        self._tick()
        if self.foreground is not None:
            self.start(self.foreground.show(self._done))
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
        if self.foreground is not None:
            self.foreground.close()
        self.log.close()
        if self.foreground is not None:
            self.foreground.print_report()

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
                self.performers.perform(self.supervision.handle(self._events.popleft(), now))
                if flowed and not self.supervision.running:
                    self._since = now  # and not after what is done about it, which is part of the recovery
                if self._visible_state() != before:
                    self._on_state_change()
            self._announcer.step(time.monotonic())  # from here alone: one that only seems to live is found
            self._observe()
        finally:
            self._handling = False
            if self.supervision.leaving:
                self.disk.give_up()
            self._set_timer()
            self._flush_log()

    def _observe(self) -> None:
        """That decisions are being made is what `health --live` asks for."""
        self.decided = now = time.monotonic()
        if now >= self.observation.look_at and not self.supervision.leaving:
            if self.observation.look(now):
                self.backend.changed()
            self.start(self.backend.feed_monitor(now))

    def _flush_log(self) -> None:
        """What the reader of the log had no room for goes out as soon as it has; what waits for a journald that was
        gone, with the next decision."""
        self.log.flush()
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
        looks = float("inf") if self.supervision.leaving else self.observation.look_at
        due = min(self.supervision.deadline() or looks, self._announcer.due(time.monotonic()), looks)
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
            self._announcer.ready(time.monotonic())
        self.backend.changed()
        roster = self.backend.roster()
        for process in self.supervision.processes.values():
            if process.service and process.pid:
                self.performers.tell(process.name, m.Roster(roster), droppable=True)

    # spawn.Listener

    def on_launcher_ready(self, pid: int) -> None:
        self.log.write("launcher_started", stage="launcher", child=pid)
        self.dispatch(p.LauncherReady())

    def on_launcher_died(self, reason: str) -> None:
        self.dispatch(p.LauncherDied(reason))

    def on_forked(self, child: Child) -> None:
        heir = self.supervision.processes[child.name].heir(child.incarnation)
        snapshot = self.disk.snapshot_of(child.name, self.supervision.epochs.committed) if heir is not None else None
        plan = self.reloading.plan_for(renewed=heir is not None and heir.renewed)
        child.channel.send(m.Begin(child.name, child.incarnation, os.getpid(), plan.to_dict(), snapshot))
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

    def on_output(self, name: str, text: str) -> None:
        """A line, or all lines of a traceback."""
        self.log.write("stage_output", stage=name, level="error" if "\n" in text else None, line=text)
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
                self.dispatch(p.Judging(name, incarnation))
                self.start(self.verdicts.judged(name, incarnation, message))
            case m.Reply():
                self._queries.answered(message)
            case m.Event(event, values):
                self.log.relay(event, values, stage=name, pid=child.pid)
            case _ if event_of(name, incarnation, message) is None:
                child.kill()
        if (heard := event_of(name, incarnation, message)) is not None:
            self.dispatch(heard)

    def _on_verdict(self, name: str, incarnation: int, generation: int, rows: int | None) -> None:
        """A trial's verdict is durable, or (None) never will be."""
        if rows:
            self.log.write("records_quarantined", stage=name, count=rows)
        self.dispatch(p.Judged(name, incarnation, generation, rows))

    def _first_batch(self, name: str, generation: int, at_ns: int) -> None:
        """Recovery is over when the last stage has had a batch of the new generation."""
        if name != self.plan.stages[-1].name or generation != self.supervision.generation:
            return
        self.recovery = at_ns / 1e9 - self._since
        self._emit("first_batch_seen", generation=generation, seconds=self.recovery, since=self._cause)

    # the log, and questions to stages

    def _emit(self, event: str, /, **fields: Any) -> None:
        self.log.write(event, stage="supervisor", **fields)

    async def query(self, name: str, method: str, params: dict[str, Any], timeout: float = QUERY_TIMEOUT_S) -> Any:
        """Ask a process; RpcError when it is not there, does not know, or takes longer than `timeout` seconds."""
        child = self.performers.child(name)
        if child is None:
            raise RpcError(f"{name} is not running", ExitCode.REFUSED)
        return await self._queries.ask(name, child.channel, method, params, timeout)

    # the end

    def _on_signal(self, signum: signal.Signals) -> None:
        self._announcer.stopping(self.plan.supervision.drain_timeout + STOP_EXTENSION_S)
        self.dispatch(p.Shutdown(signum.name))

    # announcer.Seen and observation.Watched

    def reading(self, name: str) -> Reading | None:
        child = self.performers.child(name)
        return child.blackbox.read() if child is not None else None

    def state(self) -> tuple[str, str | None]:
        return self.backend.view.state()

    def sample(self, child: Child) -> Sample:
        return self.performers.sample(child)

    # performers.Shell

    def follow(self, event: p.Event) -> None:
        self._events.append(event)

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def heed(self, command: p.Log | p.Answer | p.Adopt | p.Quit | TellCommitted) -> None:
        match command:
            case p.Adopt():
                self.reloading.adopt(command)
                self.observation.adopt(self.plan)
            case p.Answer(ticket, code, text):
                self.backend.answer(ticket, code, text)
            case p.Quit():
                self._done.set()
            case TellCommitted():
                self.times, self.log.epoch = command.times, command.epoch
                self.observation.committed(command.times)
            case p.Log("generation_reset"):
                self._cause = str(command.values["reason"])
            case p.Log("epoch_aborted"):
                self.disk.retain(command.values["epoch"])
                self.observation.aborted()
            case p.Log("launcher_given_up"):
                self._exit_code = ExitCode.FAILED
            case p.Log("stage_given_up") if self.foreground is not None:
                self._exit_code = ExitCode.FAILED
                self._loop.call_soon(self.dispatch, p.Shutdown(f"{command.stage} failed"))
