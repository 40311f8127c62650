"""Plays a transcript against the decisions: events in, the commands that must come out, on a fake clock."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from streampiped.core import protocol as p
from streampiped.core.epoch_commands import AskBarrier, AskCommit, Part, TellCommitted, WriteManifest
from streampiped.core.epochs import Coordinator
from streampiped.core.health import FORKED, Sample
from streampiped.core.intensity import Intensity
from streampiped.core.lifecycle import State
from streampiped.core.processes import Limits, Process, Successor
from streampiped.core.supervision import Supervision
from streampiped.core.watch import STACK_DUMP_GRACE_S
from streampiped.phases import Phase

LIMITS = Limits(start_timeout=60.0, reset_timeout=10.0, stop_timeout=5.0, drain_timeout=20.0)
CHAIN = ("source", "middle", "sink")


class Play:
    """A pipeline source -> middle -> sink with a service `monitor`, driven by hand."""

    def __init__(
        self,
        *,
        max_restarts: int = 3,
        finished: bool = False,
        committed: int | None = 0,
        stopped: tuple[str, ...] = (),
    ) -> None:
        def process(name: str, service: bool = False) -> Process:
            return Process(name, service, 8.0, Intensity(max_restarts, 60.0, 1.0, 8.0, 60.0, lambda: 1.0))

        chain = [replace(process(name), inputs=CHAIN[i - 1 : i] if i else ()) for i, name in enumerate(CHAIN)]
        epochs = Coordinator(CHAIN, ("source",), ("sink",), 1.0, committed, committed or 0, finished)
        self.machine = Supervision([process("monitor", True), *chain], LIMITS, epochs)
        self.now = 100.0
        self.pid = 1000
        self.emitted = 0
        self.remembers = True
        self.history: list[p.Command] = []
        self.out = self._keep(self.machine.start(self.now, stopped))

    def _keep(self, commands: list[p.Command]) -> list[p.Command]:
        self.history += commands
        return commands

    def say(self, event: p.Event) -> list[p.Command]:
        """Hand in one event; what comes out is also in `out`. A disk that works remembers at once who is stopped."""
        self.out = self._keep(self.machine.handle(event, self.now))
        for command in self.of(p.RememberStopped) if self.remembers else ():
            self.out = [*self.out, *self._keep(self.machine.handle(p.StopsKept(command.names), self.now))]
        return self.out

    def wait(self, seconds: float) -> list[p.Command]:
        """Let time pass, with a tick at every deadline on the way; all commands on the way."""
        until, out = self.now + seconds, []
        while (due := self.machine.deadline()) is not None and due <= until:
            self.now = max(self.now, due)
            out += self.machine.handle(p.Tick(self.emitted), self.now)
            for look in [c for c in out if isinstance(c, p.Look)]:
                out.remove(look)
        self.now = until
        self.out = self._keep(out)
        return out

    def kinds(self) -> list[str]:
        """The kinds of the last commands, logs left out."""
        return [type(c).__name__ for c in self.out if not isinstance(c, p.Log)]

    def of(self, kind: type[Any]) -> list[Any]:
        return [c for c in self.out if isinstance(c, kind)]

    def logged(self) -> list[str]:
        return [c.event for c in self.out if isinstance(c, p.Log)]

    @property
    def dumps(self) -> list[p.Command]:
        """All that were ever wanted."""
        return [c for c in self.history if isinstance(c, p.DumpStack)]

    def state(self, name: str) -> State:
        return self.machine.processes[name].state

    def incarnation(self, name: str) -> int:
        return self.machine.processes[name].incarnation

    # what a healthy world answers

    def forked(self, name: str, incarnation: int | None = None) -> list[p.Command]:
        self.pid += 1
        return self.say(p.Forked(name, incarnation or self.incarnation(name), self.pid))

    def born(self, name: str, incarnation: int | None = None) -> list[p.Command]:
        """Forked and loaded."""
        number = incarnation or self.incarnation(name)
        self.forked(name, number)
        return self.say(p.Loaded(name, number))

    def ready(self, name: str) -> list[p.Command]:
        return self.say(p.Ready(name, self.incarnation(name), self.machine.generation))

    def all_ready(self) -> list[p.Command]:
        """Whoever restores is ready."""
        for name in CHAIN:
            if self.state(name) is State.RESETTING:
                self.ready(name)
        return self.out

    def died(self, name: str, incarnation: int | None = None) -> list[p.Command]:
        return self.say(p.Died(name, incarnation or self.incarnation(name), "killed by SIGKILL"))

    def up(self) -> Play:
        """Everything runs."""
        self.say(p.LauncherReady())
        for name in ("monitor", *CHAIN):
            self.born(name)
        self.all_ready()
        assert self.machine.running
        return self

    def snapshots(self, epoch: int) -> list[p.Command]:
        for name in CHAIN:
            self.say(p.SnapshotDone(self.machine.generation, epoch, Part(name, f"{name}.{epoch}", 1, 2)))
        return self.out

    def commit(self, epoch: int) -> list[p.Command]:
        """From the barrier to the last answer."""
        self.snapshots(epoch)
        self.say(p.ManifestWritten(self.machine.generation, epoch))
        return self.say(p.CommitDone("sink", self.machine.generation, epoch))

    def hold(self) -> list[p.Command]:
        """The epochs that are asked for are committed, up to the one behind which the sources hold."""
        while True:
            barrier = [c for c in self.history if isinstance(c, AskBarrier)][-1]
            self.commit(barrier.epoch)
            if barrier.hold:
                return self.out

    def sample(self, name: str, pulse: int, phase: Phase = Phase.PROCESSING, **flags: Any) -> list[p.Command]:
        found = {"waiting_input": False, "waiting_control": False, "blocked_output": False, **flags}
        return self.say(p.Sampled(name, self.incarnation(name), Sample(pulse, phase, **found)))

    def look(self, heir: Successor, **found: Any) -> list[p.Command]:
        """One look at the successor of `middle`, or at the launcher that is to fork it."""
        return self.say(p.Sampled("middle", heir.incarnation, replace(FORKED, **found)))

    def stall(self, name: str, seconds: float, **found: Any) -> list[p.Command]:
        """It is looked at every second and its pulse does not move. What the scheduler counts comes in seconds of each
        second (`cpu`, `queued`)."""
        rates = {field: found.pop(field, 0.0) for field in ("cpu", "queued")}
        for second in range(int(seconds) + 1):
            times = {field: rate * second for field, rate in rates.items()}
            self.sample(name, 5, **found, **times)
            self.now += 1.0 if second < int(seconds) else 0.0
        return self.out

    def hang(self, name: str) -> list[p.Command]:
        """It has work and makes no progress until it is killed."""
        self.stall(name, self.machine.processes[name].hang_timeout)
        return self.wait(STACK_DUMP_GRACE_S)


__all__ = ["CHAIN", "AskBarrier", "AskCommit", "Play", "TellCommitted", "WriteManifest"]
