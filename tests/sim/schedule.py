"""One run: a topology, a world and its faults from one seed, from the first process to the last."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from sim import manifests
from sim.daemon import Daemon, Setting
from sim.disk import Killed
from sim.faults import Fate
from sim.law import Law
from sim.stages import TOPOLOGIES, Node, Place
from sim.world import ETERNAL, ViolationError, World
from streampiped.core import protocol as p
from streampiped.core.lifecycle import State

TOTALS: Final = (6, 12)  # records of a source: a few epochs, some milliseconds of our time
POISONED: Final = 0.2  # of the schedules: a trial takes two deaths, and those take steps
POISONABLE: Final = {"chain": ("middle", "sink"), "diamond": ("left", "right", "sink"), "join": ("join",)}
"""Stages before which there is one order of the rows: else nobody could say what those in front have seen."""
FAULTS_MAX: Final = 5
RESTART_S: Final = 0.05  # from the end of the supervisor to the next start
STEPS_MAX: Final = 6000  # after the last fault; an undisturbed stream takes some hundred
SECONDS_MAX: Final = 400.0  # after the last fault, on the fake clock


@dataclass(frozen=True)
class Outcome:
    """`what`: the rows of every sink, and the last state of every stage."""

    topology: str
    steps: int
    faults: int
    changed: bool
    what: dict[str, list[Any]]


class Schedule:
    """`disturbed` false: nothing goes wrong; `only`: nothing but these deeds of fate. `daemon_of` is what mutations
    replace."""

    def __init__(
        self,
        seed: int,
        *,
        disturbed: bool = True,
        told: bool = False,
        daemon_of: type[Daemon] = Daemon,
        only: Collection[str] = (),
    ) -> None:
        world = self.world = World(seed, told=told)
        chance = world.random
        self.topology = chance.choice(tuple(TOPOLOGIES))
        self.total = chance.choice(TOTALS)
        capacity, torn = chance.choice(((4000, 0.0), (4000, 0.2), (300, 0.0), (150, 0.1)))
        nodes = TOPOLOGIES[self.topology](self.total)
        at_once, max_restarts = chance.random() < 0.5, chance.choice((1000, 1000, 2))
        poisoned = disturbed and chance.random() < POISONED
        poison = frozenset(draw_poison(POISONABLE[self.topology], nodes, chance) if poisoned else ())
        slots = {4000: 4, 300: 3, 150: 2}[capacity]
        self._setting = Setting(nodes, capacity, torn, at_once, poison, max_restarts, slots)
        self._daemon_of = daemon_of
        self._law = Law(nodes, world.disk, poison)
        self._fate = Fate(world, self._end, only)
        self._faults = 0
        self._due: list[int] = []
        if disturbed:
            horizon = 150 + 35 * self.total
            self._faults = chance.randint(1, FAULTS_MAX)
            self._due = sorted(chance.randrange(horizon) for _ in range(self._faults))
        self._awaited = False
        self._daemon = daemon_of(world, self._law, self._setting)

    @property
    def story(self) -> list[str]:
        return self.world.story or []

    def run(self) -> Outcome:
        """ViolationError, or another AssertionError of the machines, when the law does not hold."""
        while self._due:
            if self.world.steps >= self._due[0] or not self._step():
                self._strike()
        self._heal()
        self._finish()
        newest = manifests.newest(self.world.disk)
        if newest is None:
            raise ViolationError("the stream has finished, and nothing is committed")
        what = self._law.verdict(newest.epoch)
        return Outcome(self.topology, self.world.steps, self._faults, self._law.changed, what)

    def _step(self) -> bool:
        try:
            return self.world.step()
        except Killed:  # only the supervisor has none who catches it
            self._daemon.end()
            return True
        finally:
            if not self._daemon.alive:
                self._await_restart()

    def _await_restart(self) -> None:
        if not self._awaited:
            self._awaited = True
            self.world.at(self.world.now + RESTART_S, ETERNAL, self._begin)

    def _begin(self) -> None:
        self._awaited = False
        self._daemon = self._daemon_of(self.world, self._law, self._setting)

    def _end(self, daemon: Daemon, power: bool) -> None:
        daemon.end()
        if power:
            self.world.disk.power_loss()
            for sink in self._law.sinks:
                self._law.check(sink)

    def _strike(self) -> None:
        self._due.pop(0)
        if self._daemon.alive:
            try:
                self._fate.strike(self._daemon)
            except Killed:  # what an operator wanted was about to be written
                self._daemon.end()

    def _heal(self) -> None:
        """Nothing goes wrong any more, and whatever was stopped is started."""
        self.world.tell("fate", "nothing goes wrong any more")
        self.world.disk.heal()
        while not self._daemon.alive:
            self._await_restart()
            self._step()
        daemon = self._daemon
        daemon.fuse.left = 0
        for child in daemon.children.values():
            child.fuse.left = 0
        launcher = [daemon.launcher] if daemon.launcher is not None else []
        for actor in (daemon, *daemon.children.values(), *launcher):
            self.world.unfreeze(actor)
        if daemon.supervision.closing is None:
            daemon.ask(p.Operate(self._fate.ticket(), "start", (), 30.0))

    def _finish(self) -> None:
        """The stream comes to its end, everybody who asked is answered, what died when it came back is given back until
        it survives, and the daemon leaves when it is told to."""
        steps, until = self.world.steps + STEPS_MAX, self.world.now + SECONDS_MAX
        told = False
        daemon = self._daemon
        while daemon.alive:
            if not told and daemon.finished and not daemon.tickets:
                if self._fate.replay(daemon):
                    continue
                told = True
                for child in daemon.children.values():
                    child.memory.settled()
                daemon.dispatch(p.Shutdown("the end"))
                continue
            if not daemon.tickets and self._has_failed():  # of what went wrong before; an operator would do the same
                daemon.ask(p.Operate(self._fate.ticket(), "start", (), 30.0))
            if self.world.steps > steps or self.world.now > until or not self.world.step():
                waits = {name: q.state.value for name, q in daemon.supervision.processes.items()}
                epochs = daemon.supervision.epochs
                raise ViolationError(
                    f"no end after {self.world.steps} steps and {self.world.now - 100.0:.1f} s: {waits}, "
                    f"epoch {epochs.committed}, {epochs.step.value}, unanswered: {list(daemon.tickets.values())}"
                )

    def _has_failed(self) -> bool:
        processes = self._daemon.supervision.processes.values()
        return State.FAILED in [process.state for process in processes]


def draw_poison(stages: Sequence[str], nodes: Sequence[Node], chance: random.Random) -> Iterator[tuple[str, Place]]:
    """One or two records, each by one or several of the ways by which it comes to a stage."""
    sources = [node for node in nodes if node.role == "source"]
    given = [node for node in sources if node.total]
    for _ in range(chance.randint(1, 2)):
        source, name = chance.choice(given), chance.choice(stages)
        stage = next(node for node in nodes if node.name == name)
        others = {node.name for node in sources if node is not source}
        ways = [each for each in stage.inputs if each not in others] if len(stage.inputs) > 1 else [""]
        position = chance.randrange(source.total)
        for via in chance.sample(ways, chance.randint(1, len(ways))):
            yield name, (via, source.name, position)


@cache
def undisturbed(topology: str, total: int, daemon_of: type[Daemon] = Daemon) -> Outcome:
    """What comes out when nothing goes wrong."""
    for seed in range(1000):
        schedule = Schedule(seed, disturbed=False, daemon_of=daemon_of)
        if (schedule.topology, schedule.total) == (topology, total):
            return schedule.run()
    raise LookupError(topology)


def run(seed: int, *, daemon_of: type[Daemon] = Daemon, only: Collection[str] = ()) -> Outcome:
    """One schedule, checked whole."""
    schedule = Schedule(seed, daemon_of=daemon_of, only=only)
    outcome = schedule.run()
    compare(outcome, undisturbed(schedule.topology, schedule.total))
    return outcome


def compare(outcome: Outcome, reference: Outcome) -> None:
    """A chain's outcome is bit-identical to the undisturbed one; where streams join, every record is there once, in
    one of the possible orders (which `Law` has checked already). Replays add something to both."""
    if outcome.changed:
        return
    if outcome.topology == "chain":
        if outcome.what != reference.what:
            raise ViolationError(f"{outcome.what} is not {reference.what}")
        return
    for name, rows in reference.what.items():
        if sorted(map(_record, rows)) != sorted(map(_record, outcome.what[name])):
            raise ViolationError(f"{name} has {outcome.what[name]}, undisturbed {rows}")


def _record(value: Any) -> str:
    """A row without its hashes; of a state nothing but its kind."""
    return "/".join(part.partition(":")[0] for part in value.split("|")) if isinstance(value, str) else "state"
