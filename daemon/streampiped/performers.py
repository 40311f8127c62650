"""What performs which command of the decisions. Knows how, never why; what comes of it is an event again."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Protocol

from streampiped.core import protocol as p
from streampiped.core.epoch_commands import (
    AskBarrier,
    AskCommit,
    AskPause,
    AskResume,
    TellCommitted,
    WriteManifest,
)
from streampiped.core.health import FORKED, Sample
from streampiped.core.supervision import Supervision
from streampiped.disk import Disk
from streampiped.foreground import Foreground
from streampiped.phases import Phase
from streampiped.runtime.event_log import EventLog
from streampiped.runtime.limits import told
from streampiped.runtime.pipes import LinkTable, unsent_bytes
from streampiped.runtime.scheduled import scheduled, scheduled_with_children
from streampiped.runtime.spawn import Child, Spawner
from streampiped.stops import Stops
from streampiped.topology import Plan
from streampiped.wire import messages as m

STACK_DUMP_SIGNAL: Final = signal.SIGUSR2  # as in stage_process


class Shell(Protocol):
    """What of the supervisor is needed to perform commands."""

    plan: Plan
    log: EventLog
    disk: Disk
    supervision: Supervision
    spawner: Spawner
    foreground: Foreground | None

    def dispatch(self, event: p.Event) -> None: ...

    def follow(self, event: p.Event) -> None:
        """An event that comes behind the one whose commands are being performed."""

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run it beside everything else."""

    def heed(self, command: p.Log | p.Answer | p.Adopt | p.Quit | TellCommitted) -> None:
        """What concerns the supervisor itself."""


class Performers:
    """Performs commands, one after the other."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._links = LinkTable(shell.plan.edges(), shell.plan.links.pipe_bytes, shell.plan.owners())
        self._stops = Stops(shell.disk, Path(shell.plan.paths.state), self._on_stops_kept)
        self._performers = self._routes()

    def _routes(self) -> dict[type, Callable[..., None]]:
        shell = self._shell
        return {
            p.StartLauncher: lambda _: shell.spawner.start_launcher(),
            p.Fork: lambda c: shell.spawner.fork(c.name, c.incarnation),
            p.MakeLinks: lambda c: self._links.make(c.generation),
            p.CloseOldLinks: lambda c: self._links.close_before(c.generation),
            p.SendReset: self._send_reset,
            p.SendGo: lambda c: self.tell(c.name, m.Go(c.generation)),
            p.AskLeave: lambda c: self._signal(c, signal.SIGTERM, signal.SIGCONT),
            p.Kill: self._kill,
            p.KillLauncher: self._kill_launcher,
            p.DumpStack: lambda c: self._signal(c, STACK_DUMP_SIGNAL),
            p.Look: self._look,
            p.Answer: shell.heed,
            p.Adopt: shell.heed,
            p.Log: self._log,
            p.Finished: self._finished,
            p.Farewell: lambda _: shell.start(self._farewell()),
            p.Quit: shell.heed,
            p.RememberStopped: lambda c: shell.start(self._stops.remember(c.names)),
            AskBarrier: lambda c: self.tell(c.stage, m.Barrier(c.generation, c.epoch, c.hold)),
            AskPause: lambda c: self.tell(c.stage, m.Pause(c.generation)),
            AskResume: lambda c: self.tell(c.stage, m.Resume(c.generation)),
            WriteManifest: lambda c: shell.start(self._write_manifest(c)),
            AskCommit: lambda c: self.tell(c.stage, m.Commit(c.generation, c.epoch)),
            TellCommitted: self._tell_committed,
        }

    def perform(self, commands: list[p.Command]) -> None:
        """In order. When the outer world is short of something (descriptors, memory), the others still count."""
        for command in commands:
            try:
                self._performers[type(command)](command)
            except OSError as error:
                reason = told(error)
                self._emit("command_failed", command=type(command).__name__, reason=reason)
                match command:
                    case p.Fork(name, incarnation):
                        self._shell.follow(p.ForkFailed(name, incarnation, reason))
                    case p.StartLauncher():
                        self._shell.follow(p.LauncherDied(reason))
                    case p.MakeLinks(generation=generation) | p.SendReset(generation=generation):
                        self._shell.follow(p.LinksFailed(generation, reason))

    def child(self, name: str) -> Child | None:
        """The process that bears this name now."""
        return self._shell.spawner.child(name, self._shell.supervision.processes[name].incarnation)

    def tell(self, name: str, message: m.Message, *, droppable: bool = False) -> None:
        child = self.child(name)
        if child is not None:
            child.channel.send(message, droppable=droppable)

    def _emit(self, event: str, /, **fields: Any) -> None:
        self._shell.log.write(event, stage="supervisor", **fields)

    def _log(self, command: p.Log) -> None:
        self._shell.log.write(command.event, stage=command.stage, **command.values)
        self._shell.heed(command)

    # processes

    def _signal(self, command: p.AskLeave | p.DumpStack, *signals: signal.Signals) -> None:
        child = self._shell.spawner.child(command.name, command.incarnation)
        if child is not None:
            child.signal(*signals)

    def _kill(self, command: p.Kill) -> None:
        spawner = self._shell.spawner
        child = spawner.child(command.name, command.incarnation)
        if child is not None:
            child.kill()
        elif not spawner.is_ordered(command.name, command.incarnation):
            self._shell.follow(p.Died(command.name, command.incarnation, "was never forked"))

    def _kill_launcher(self, command: p.KillLauncher) -> None:
        if not self._shell.spawner.kill_launcher():
            self._shell.follow(p.Died(command.name, command.incarnation, "was never forked"))

    def _look(self, command: p.Look) -> None:
        spawner = self._shell.spawner
        child = spawner.child(command.name, command.incarnation)
        spawner.reap()
        if child is None and spawner.launcher_pid and spawner.is_ordered(command.name, command.incarnation):
            told = replace(FORKED, **scheduled_with_children(spawner.launcher_pid)._asdict())
            self._shell.follow(p.Sampled(command.name, command.incarnation, told))
        if child is None or child.channel.fileno() < 0:
            return
        self._shell.follow(p.Sampled(command.name, command.incarnation, self.sample(child)))

    def sample(self, child: Child) -> Sample:
        """What its black box and its descriptors say; its control socket is open."""
        reading = child.blackbox.read()
        generation = self._shell.supervision.generation
        looks = {Phase.CREDITS: self._links.starved, Phase.SLOTS: self._links.full}
        held_up = looks.get(reading.phase, self._links.blocked)
        return Sample(
            pulse=reading.pulse,
            phase=reading.phase,
            waiting_input=self._links.waiting(generation, child.name),
            waiting_control=child.channel.queued > 0 or unsent_bytes(child.channel.fileno()) > 0,
            blocked_output=held_up(generation, child.name),
            **scheduled(child.pid)._asdict(),
        )

    # generations and epochs

    def _send_reset(self, command: p.SendReset) -> None:
        plan = self._shell.plan
        spec, outputs = plan.spec(command.name), plan.outputs(command.name)
        message = m.Reset(
            command.generation,
            command.epoch,
            self._shell.disk.snapshot_of(command.name, command.epoch),
            list(spec.inputs),
            list(outputs),
            [list(span) for span in command.suspects],
            [dict(change) for change in command.changes],
        )
        child = self._shell.spawner.child(command.name, command.incarnation)
        if child is not None and self._links.has(command.generation):  # else `LinksFailed` is on its way
            seen = plan.seen(spec.name)
            child.channel.send(message, self._links.ends(command.generation, spec.inputs, spec.name, outputs, seen))

    async def _write_manifest(self, command: WriteManifest) -> None:
        try:
            await self._shell.disk.commit(command)
        except OSError as error:
            self._shell.dispatch(p.ManifestFailed(command.generation, command.epoch, f"manifest: {error}"))
        else:
            self._shell.dispatch(p.ManifestWritten(command.generation, command.epoch))

    def _tell_committed(self, command: TellCommitted) -> None:
        self._shell.heed(command)
        for spec in self._shell.plan.stages:
            self.tell(spec.name, m.Committed(command.generation, command.epoch))
        self._shell.disk.retain(command.epoch)

    # operators and the end

    def _on_stops_kept(self, names: tuple[str, ...], refused: str | None) -> None:
        if refused is not None:
            self._emit("command_failed", command="RememberStopped", reason=refused)
        self._shell.dispatch(p.StopsKept(names, refused))

    def _finished(self, _: p.Finished) -> None:
        if self._shell.foreground is not None:
            asyncio.get_running_loop().call_soon(self._shell.dispatch, p.Shutdown("every source has ended"))

    async def _farewell(self) -> None:
        try:
            if self._shell.foreground is not None:
                await self._shell.foreground.take_report()
        finally:
            self._shell.dispatch(p.FarewellSaid())
