"""The supervisor, simulated: performs what the real `core/supervision.py` decides, with its launcher and its disk."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, TypeAlias

from sim import manifests
from sim.disk import Fuse, Killed
from sim.launcher import Launcher
from sim.law import Law
from sim.memory import Memory, memories_of, plan_of
from sim.pipes import Pipe
from sim.process import Ends, Process
from sim.stages import Node, Place, Verdict, save
from sim.verdicts import DISK_S, RETRY_S, Verdicts
from sim.world import Actor, ViolationError, World
from streampiped.core import protocol as p
from streampiped.core.epoch_commands import (
    AskBarrier,
    AskCommit,
    AskPause,
    AskResume,
    Part,
    TellCommitted,
    WriteManifest,
)
from streampiped.core.epochs import Coordinator
from streampiped.core.health import Sample
from streampiped.core.intensity import Intensity
from streampiped.core.supervision import Limits, Supervision
from streampiped.core.supervision import Process as Known
from streampiped.errors import ExitCode
from streampiped.topology import Checkpoint, Paths, Plan, StageSpec
from streampiped.topology import Supervision as Timing
from streampiped.wire import messages as m

CONTROL_S: Final = 0.004  # a message on its way
INTERVAL_S: Final = 0.08  # between epochs
HANG_S: Final = 8.0
STOPPED: Final = "state/stopped"

Question: TypeAlias = p.Operate | p.Checkpoint | p.Propose | p.Reload

_LIMITS: Final = Limits(start_timeout=20.0, reset_timeout=10.0, stop_timeout=5.0, drain_timeout=20.0)


@dataclass(frozen=True)
class Setting:
    """What differs from schedule to schedule."""

    nodes: tuple[Node, ...]
    capacity: int = 2000
    torn: float = 0.0
    at_once: bool = False
    """A sink takes rows while it prepares those before."""
    poison: frozenset[tuple[str, Place]] = frozenset()
    """(stage, place) of the rows that a stage does not survive."""
    max_restarts: int = 1000
    slots: int = 3
    """Of the memory that a stage shares."""


class Daemon(Actor):
    """One life of the supervisor."""

    process_of: type[Process] = Process  # what mutations replace
    coordinator_of: type[Coordinator] = Coordinator
    supervision_of: type[Supervision] = Supervision

    def __init__(self, world: World, law: Law, setting: Setting) -> None:
        """Starts from what is on the disk."""
        super().__init__()
        self.fuse = Fuse()
        self.world = world
        self.law = law
        self.nodes = setting.nodes
        self.children: dict[tuple[str, int], Process] = {}
        self.launcher: Launcher | None = None
        self.tickets: dict[int, Question] = {}
        """Questions of operators that have no last answer."""
        self._told_late: set[int] = set()
        self._setting = setting
        self._verdicts = Verdicts(world, self, self.fuse)
        self._members: set[str] = set()
        """Processes that have been of a generation; a successor that was dropped never was."""
        self._named: dict[tuple[str, int], list[Verdict]] = {}
        self._stops: tuple[str, ...] = ()
        self._editions = {node.name: 0 for node in self.nodes}
        """Which configuration a stage should have: the number of the reload that changed it last."""
        self._has: dict[tuple[str, int], int] = {}
        """Which one each process was begun with."""
        self._links: dict[int, dict[tuple[str, str], Pipe]] = {}
        self._memories: dict[int, dict[str, Memory]] = {}
        self._plan = plan_of(setting.nodes, setting.slots)
        self._events: deque[p.Event] = deque()
        self._handling = False
        self._tick_at: float | None = None
        self._sync()
        self._manifest = manifests.newest(self.world.disk)
        law.begins(self._manifest.epoch if self._manifest else None, manifests.highest(self.world.disk))
        world.tell("supervisor", f"starts from {self._manifest}")
        self.supervision = self._decisions()
        stopped = (world.disk.read(STOPPED) or b"").decode().split()
        law.starts(stopped)
        self._perform(self.supervision.start(world.now, stopped))
        self._set_timer()

    def _decisions(self) -> Supervision:
        setting, manifest = self._setting, self._manifest
        known = [
            Known(node.name, False, HANG_S, Intensity(setting.max_restarts, 60.0, 0.1, 1.0, 60.0, lambda: 1.0))
            for node in self.nodes
        ]
        epochs = self.coordinator_of(
            tuple(node.name for node in self.nodes),
            tuple(node.name for node in self.nodes if node.role == "source"),
            tuple(node.name for node in self.nodes if node.role == "sink"),
            INTERVAL_S,
            manifest.epoch if manifest else None,
            manifests.highest(self.world.disk),
            manifest is not None and manifest.finished,
            manifest.changes if manifest else (),
        )
        return self.supervision_of(known, _LIMITS, epochs)

    # what is on the disk

    def _sync(self) -> None:
        """What is found is relied on: it must survive a power loss. The daemon does not start before it is."""
        self.world.disk.heal()
        self.world.disk.sync(self.fuse, manifests.EPOCHS)

    # events in, commands out

    def dispatch(self, event: p.Event) -> None:
        """As in supervisor.py: events that arise meanwhile come after this one."""
        self._events.append(event)
        if self._handling:
            return
        self._handling = True
        while self._events:
            event = self._events.popleft()
            if self.world.story is not None:
                self.world.tell("supervisor", f"<- {event}")
            self._perform(self.supervision.handle(event, self.world.now))
        self._handling = False
        self._set_timer()

    def _perform(self, commands: Sequence[p.Command]) -> None:
        for command in commands:
            if self.world.story is not None and not isinstance(command, p.Log):
                self.world.tell("supervisor", f"-> {command}")
            performer = self._performers.get(type(command))
            if performer is not None:
                performer(self, command)

    def _set_timer(self) -> None:
        due = self.supervision.deadline()
        if due is not None and (self._tick_at is None or due < self._tick_at):
            self._tick_at = due
            self.world.at(max(due, self.world.now), self, self._tick, due)

    def _tick(self, due: float) -> None:
        if due == self._tick_at:
            self._tick_at = None
            sources = (self.child(node.name) for node in self.nodes if node.role == "source")
            self.dispatch(p.Tick(sum(child.records_out for child in sources if child is not None)))

    def child(self, name: str) -> Process | None:
        return self.children.get((name, self.supervision.processes[name].incarnation))

    # processes: `process.Host`

    def said(self, process: Process, message: m.Message) -> None:
        """FIFO for one process; of two processes whichever message is faster."""
        arrives = max(process.said_until, self.world.now + self.world.lag(CONTROL_S))
        process.said_until = arrives
        self.world.at(arrives, self, self._hear, process, m.encode(message))

    def gone(self, process: Process, reason: str) -> None:
        """Its death may be seen before or after its last words."""
        self.world.after(CONTROL_S, self, self._died, process, reason)

    def heard(self, process: Process, epoch: int) -> None:
        self.law.heard(process.title, epoch)

    def restored(self, process: Process, epoch: int | None) -> None:
        self.law.restored(process.node, epoch)

    def _died(self, process: Process, reason: str) -> None:
        self.children.pop((process.name, process.incarnation), None)
        killed = reason == "killed by SIGKILL"
        self._verdicts.died(process.name, process.incarnation)
        self.dispatch(p.Died(process.name, process.incarnation, reason, process.inside, killed))

    def _hear(self, process: Process, data: bytes) -> None:
        name, incarnation, message = process.name, process.incarnation, m.decode(data)
        match message:
            case m.Loaded():
                self.dispatch(p.Loaded(name, incarnation))
            case m.Ready(generation):
                self.dispatch(p.Ready(name, incarnation, generation))
            case m.SnapshotDone(generation, epoch, file, length, checksum, position):
                part = Part(name, file, length, checksum, position)
                self.dispatch(p.SnapshotDone(generation, epoch, part))
            case m.SnapshotFailed(generation, epoch, reason):
                self.dispatch(p.SnapshotFailed(name, generation, epoch, reason))
            case m.Impaired(generation, reason):
                self.dispatch(p.Impaired(name, incarnation, generation, reason))
            case m.Failed(phase, reason):
                self.dispatch(p.Failed(name, incarnation, phase, reason))
            case m.Guilty(_, via, source, position, attempt):
                self._named.setdefault((name, incarnation), []).append(((via, source, position), attempt))
            case m.Judged(generation):
                rows = self._named.pop((name, incarnation), [])
                self._judged(p.Judged(name, incarnation, generation, len(rows)), rows)
            case m.CommitDone(generation, epoch):
                self.dispatch(p.CommitDone(name, generation, epoch))
            case m.SourceEnded(generation, records):
                self.dispatch(p.SourceEnded(name, generation, records))

    def _tell(self, name: str, message: m.Message, ends: Ends = Ends()) -> None:  # noqa: B008  a tuple
        child = self.child(name)
        if child is not None:
            arrives = max(child.heard_until, self.world.now + self.world.lag(CONTROL_S))
            child.heard_until = arrives
            child.unheard += 1
            self.world.at(arrives, child, child.receive, m.encode(message), ends)

    # the launcher

    def _start_launcher(self, _: p.StartLauncher) -> None:
        self.launcher = Launcher(self.world, lambda: self.dispatch(p.LauncherReady()))

    def kill_launcher(self) -> bool:
        """False: there is none."""
        launcher, self.launcher = self.launcher, None
        if launcher is None:
            return False
        launcher.alive = False
        self.world.after(CONTROL_S, self, self.dispatch, p.LauncherDied("killed by SIGKILL"))
        return True

    def _fork(self, command: p.Fork) -> None:
        if self.launcher is not None and self.launcher.ready:
            self.launcher.fork(partial(self._begin, command.name, command.incarnation))

    def _begin(self, name: str, incarnation: int) -> None:
        node = next(node for node in self.nodes if node.name == name)
        at_once, poison = self._setting.at_once, self._setting.poison
        child = self.process_of(self.world, node, incarnation, self, at_once=at_once, poison=poison, plan=self._plan)
        self.children[name, incarnation] = child
        heir = self.supervision.processes[name].heir(incarnation)
        renewed = heir is not None and heir.renewed
        reloads = [q.ticket for q in self.tickets.values() if isinstance(q, p.Reload) and name in q.names]
        self._has[name, incarnation] = max(reloads, default=self._editions[name]) if renewed else self._editions[name]
        self.dispatch(p.Forked(name, incarnation, len(self.children)))

    def _kill_launcher(self, command: p.KillLauncher) -> None:
        if not self.kill_launcher():
            self._events.append(p.Died(command.name, command.incarnation, "was never forked"))

    def _signal(self, command: p.AskLeave | p.Kill) -> None:
        child = self.children.get((command.name, command.incarnation))
        if child is not None:
            child.kill() if isinstance(command, p.Kill) else child.leave()

    def _look(self, command: p.Look) -> None:
        child = self.children.get((command.name, command.incarnation))
        if child is not None:
            waiting = any(link.pipe.waiting for link in child.inputs)
            blocked = child.memory.waits or any(not pipe.idle for pipe in child.outputs)
            sample = Sample(child.pulse, child.phase, waiting, child.unheard > 0, blocked)
            self._events.append(p.Sampled(command.name, command.incarnation, sample))

    # generations

    def _make_links(self, command: p.MakeLinks) -> None:
        setting = self._setting
        edges = ((source, node.name) for node in self.nodes for source in node.inputs)
        self._links[command.generation] = {edge: Pipe(self.world, setting.capacity, setting.torn) for edge in edges}
        self._memories[command.generation] = memories_of(self._plan, command.generation)

    def _close_old_links(self, command: p.CloseOldLinks) -> None:
        self._links = {g: links for g, links in self._links.items() if g >= command.generation}
        self._memories = {g: memories for g, memories in self._memories.items() if g >= command.generation}

    def _send_reset(self, command: p.SendReset) -> None:
        node = next(node for node in self.nodes if node.name == command.name)
        outputs = [other.name for other in self.nodes if node.name in other.inputs]
        snapshot = None
        if command.epoch is not None:
            assert self._manifest is not None
            assert self._manifest.epoch == command.epoch, (self._manifest, command)
            snapshot = self._manifest.parts[node.name]
        links = self._links[command.generation]
        pipes = [links[source, node.name] for source in node.inputs] + [links[node.name, to] for to in outputs]
        suspects = [list(span) for span in command.suspects]
        changes = [dict(change) for change in command.changes]
        message = m.Reset(
            command.generation, command.epoch, snapshot, list(node.inputs), outputs, suspects, changes
        )  # fmt: skip
        self._members.add(f"{node.name}#{command.incarnation}")
        self._tell(node.name, message, Ends(pipes, self._memories[command.generation]))

    def _send_go(self, command: p.SendGo) -> None:
        current = self.supervision.processes[command.name].incarnation
        ours = [child for child in self.children.values() if child.name == command.name and child.alive]
        old = [child.title for child in ours if child.incarnation != current and child.title in self._members]
        if old:
            raise ViolationError(f"go({command.generation}) for {command.name} while {', '.join(old)} is alive")
        has, should = self._has.get((command.name, current)), self._editions[command.name]
        if has not in (None, should):
            raise ViolationError(f"go({command.generation}) for {command.name} of reload {has}, not {should}")
        self._tell(command.name, m.Go(command.generation))

    def _judged(self, verdict: p.Judged, rows: Sequence[Verdict]) -> None:
        self.law.condemned(verdict.name, rows)
        self.dispatch(p.Judging(verdict.name, verdict.incarnation))
        lost = replace(verdict, guilty=None)
        kept: Callable[[bool], None] = lambda done: self.dispatch(verdict if done else lost)  # noqa: E731
        self._verdicts.keep(verdict.name, verdict.incarnation, rows, kept)

    # epochs

    def _ask_barrier(self, command: AskBarrier) -> None:
        self.law.asked(command.stage, command.epoch)
        self._tell(command.stage, m.Barrier(command.generation, command.epoch, command.hold))

    def _write_manifest(self, command: WriteManifest) -> None:
        self.law.attempt(command)
        steps = self._save(manifests.manifest_path(command.epoch), manifests.encode(command))
        self.world.after(DISK_S, self, self._manifest_step, command, steps)

    def _save(self, path: str, data: bytes) -> Iterator[None]:
        return save(self.world.disk, self.fuse, path, data)

    def _manifest_step(self, command: WriteManifest, steps: Iterator[None]) -> None:
        try:
            next(steps)
        except StopIteration:
            self._manifest = manifests.manifest_of(command)
            self.law.promise(command.epoch)
            self.dispatch(p.ManifestWritten(command.generation, command.epoch))
        except OSError as error:
            self._withdraw(command, str(error))
        except Killed:
            self.end()
        else:
            self.world.after(DISK_S, self, self._manifest_step, command, steps)

    def _withdraw(self, command: WriteManifest, reason: str) -> None:
        """As in disk.py: nobody is told before it is certain that no later start finds the manifest."""
        path = manifests.manifest_path(command.epoch)
        try:
            self.world.disk.unlink(self.fuse, path + ".tmp")
            self.world.disk.unlink(self.fuse, path)
            self.world.disk.sync(self.fuse, manifests.EPOCHS)
        except OSError:
            self.world.after(RETRY_S, self, self._withdraw, command, reason)
        except Killed:
            self.end()
        else:
            self.dispatch(p.ManifestFailed(command.generation, command.epoch, reason))

    def _tell_committed(self, command: TellCommitted) -> None:
        for node in self.nodes:
            self._tell(node.name, m.Committed(command.generation, command.epoch))
        for path in manifests.old_files(self.world.disk, command.epoch):
            self._quietly(self.world.disk.unlink, path)

    def _remember_stopped(self, command: p.RememberStopped) -> None:
        self._stops = command.names
        self._begin_stops(command.names)

    def _begin_stops(self, names: tuple[str, ...]) -> None:
        steps = self._save(STOPPED, " ".join(names).encode())
        self.world.after(DISK_S, self, self._stops_step, names, steps)

    def _stops_step(self, names: tuple[str, ...], steps: Iterator[None]) -> None:
        """As in stops.py: again until it is durable, unless newer names have come."""
        if names != self._stops:
            return
        try:
            next(steps)
        except StopIteration:
            self.dispatch(p.StopsKept(names))
        except OSError as error:
            self.dispatch(p.StopsKept(names, str(error)))
            self.world.after(RETRY_S, self, self._begin_stops, names)
        except Killed:
            self.end()
        else:
            self.world.after(DISK_S, self, self._stops_step, names, steps)

    def _quietly(self, deed: Callable[..., None], *args: Any) -> None:
        """What does not succeed is no harm."""
        with contextlib.suppress(OSError):
            deed(self.fuse, *args)

    # operators and the end

    def ask(self, event: Question) -> None:
        self.tickets[event.ticket] = event
        if isinstance(event, p.Operate):
            self.law.ordered(event)
        self.dispatch(event)

    def plan(self, interval: float) -> Plan:
        """What a configuration file of this pipeline would be read as."""
        setting = self._setting
        stages = tuple(
            StageSpec(node.name, f"sim:{node.role}", node.role, node.inputs, hang_timeout=HANG_S) for node in self.nodes
        )
        limits = (_LIMITS.start_timeout, _LIMITS.reset_timeout, _LIMITS.stop_timeout, _LIMITS.drain_timeout)
        supervision = Timing(*limits, setting.max_restarts, 60.0, 0.1, 1.0, 60.0, _LIMITS.poison_attempts)
        paths = Paths("state", "run", "log")
        return Plan("sim", 0, "sim.toml", paths, stages, supervision=supervision, checkpoint=Checkpoint(interval))

    def _adopt(self, command: p.Adopt) -> None:
        question = self.tickets[command.ticket]
        assert isinstance(question, p.Reload)
        self._editions |= dict.fromkeys(question.names, command.ticket)

    def _answer(self, command: p.Answer) -> None:
        question = self.tickets.get(command.ticket)
        if question is None or (command.ticket in self._told_late and command.code == ExitCode.TIMED_OUT):
            raise ViolationError(f"{command} to nobody, or a second time")
        if command.code == ExitCode.TIMED_OUT:
            self._told_late.add(command.ticket)
            return
        del self.tickets[command.ticket]
        if isinstance(question, p.Propose) and command.code == ExitCode.OK:
            self.law.accepted(question.change)
        if isinstance(question, p.Operate):
            self.law.answered(question, command.code)

    @property
    def finished(self) -> bool:
        """The stream has ended, and nothing is under way any more."""
        epochs = self.supervision.epochs
        return self.alive and self.supervision.running and epochs.finished and epochs.held

    def end(self) -> None:
        """The supervisor is no more, and the kernel ends its children with it."""
        self.world.tell("supervisor", "dies")
        self.alive = False
        for child in self.children.values():
            child.alive = False
        if self.launcher is not None:
            self.launcher.alive = False

    def _quit(self, _: p.Quit) -> None:
        alive = [child.title for child in self.children.values() if child.alive]
        if alive:
            raise ViolationError(f"the supervisor quits and leaves {alive}")
        self.end()

    _performers: Final[dict[type, Callable[[Daemon, Any], None]]] = {
        p.StartLauncher: _start_launcher,
        p.Fork: _fork,
        p.MakeLinks: lambda self, c: self._make_links(c),
        p.CloseOldLinks: _close_old_links,
        p.SendReset: _send_reset,
        p.SendGo: _send_go,
        p.AskLeave: _signal,
        p.Kill: _signal,
        p.KillLauncher: _kill_launcher,
        p.Look: _look,
        p.Answer: _answer,
        p.Adopt: _adopt,
        p.RememberStopped: _remember_stopped,
        p.Farewell: lambda self, c: self._events.append(p.FarewellSaid()),
        p.Quit: _quit,
        AskBarrier: _ask_barrier,
        AskPause: lambda self, c: self._tell(c.stage, m.Pause(c.generation)),
        AskResume: lambda self, c: self._tell(c.stage, m.Resume(c.generation)),
        WriteManifest: _write_manifest,
        AskCommit: lambda self, c: self._tell(c.stage, m.Commit(c.generation, c.epoch)),
        TellCommitted: _tell_committed,
    }
