"""What goes wrong and what operators want: each at one step of the world, drawn from the seed."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from sim.daemon import Daemon
from sim.process import Process
from sim.stages import REPLAY
from sim.verdicts import put_aside
from sim.world import World
from streampiped.core import protocol as p

LONG_S: Final = 30.0  # a stop that is taken for a hang, whatever it should be doing
AGAIN: Final = 0.5  # of what happens while a replayed row is put aside: an operator tries it again
OWN: Final = 0.5  # of changes that are the stage's own business
INTERVALS_S: Final = (0.04, 0.08, 0.2)  # between epochs, as reloads change it
ASK_S: Final = (0.05, 0.5, 5.0, 30.0)  # what operators wait


class Fate:
    """Does one of its deeds when it is told to."""

    def __init__(self, world: World, end: Callable[[Daemon, bool], None], only: Collection[str] = ()) -> None:
        """`end(daemon, power)` ends the supervisor, or the whole machine. `only` these deeds (empty: all)."""
        chosen = {deed: weight for deed, weight in _DEEDS.items() if not only or deed_name(deed) in only}
        self._deeds, self._weights = tuple(chosen), tuple(chosen.values())
        assert len(chosen) == len(only) or not only, only
        self._world = world
        self._random = world.random
        self._end = end
        self._tickets = 0
        self._replayed: dict[int, tuple[str, int]] = {}
        """Number of a replayed row -> the stage that it was given to, and the last attempt."""

    def strike(self, daemon: Daemon) -> None:
        if self._replayed and self._random.random() < AGAIN and self.replay(daemon):
            return
        deed = self._random.choices(self._deeds, self._weights)[0]
        self._world.tell("fate", deed_name(deed))
        deed(self, daemon)

    def ticket(self) -> int:
        self._tickets += 1
        return self._tickets

    def _victim(self, daemon: Daemon) -> Process | None:
        return self._random.choice(list(daemon.children.values())) if daemon.children else None

    def _names(self, daemon: Daemon, most: int = 2) -> tuple[str, ...]:
        names = [node.name for node in daemon.nodes]
        return tuple(self._random.sample(names, self._random.randint(1, most)))

    # deeds

    def _kill(self, daemon: Daemon) -> None:
        if victim := self._victim(daemon):
            victim.kill()

    def _kill_several(self, daemon: Daemon) -> None:
        for victim in list(daemon.children.values()):
            if self._random.random() < 0.6:
                victim.kill()

    def _kill_at_the_disk(self, daemon: Daemon) -> None:
        """Between two touches of it: also between those of a commit or a rollback."""
        sinks = [child for child in daemon.children.values() if child.node.role == "sink"]
        victim = self._random.choice(sinks) if sinks else self._victim(daemon)
        if victim is not None:
            victim.fuse.left = self._random.randint(1, 12)

    def _stop_for_a_while(self, daemon: Daemon) -> None:
        if victim := self._victim(daemon):
            seconds = LONG_S if self._random.random() < 0.25 else self._random.random() * 0.5
            self._world.freeze(victim, seconds)

    def _kill_the_launcher(self, daemon: Daemon) -> None:
        daemon.kill_launcher()

    def _stop_the_launcher(self, daemon: Daemon) -> None:
        if daemon.launcher is not None:
            self._world.freeze(daemon.launcher, self._random.random())

    def _stop_the_supervisor(self, daemon: Daemon) -> None:
        self._world.freeze(daemon, self._random.random() * 0.5)

    def _kill_the_supervisor(self, daemon: Daemon) -> None:
        self._end(daemon, False)

    def _kill_the_supervisor_at_the_disk(self, daemon: Daemon) -> None:
        daemon.fuse.left = self._random.randint(1, 8)

    def _lose_power(self, daemon: Daemon) -> None:
        self._end(daemon, True)

    def _refuse(self, daemon: Daemon) -> None:
        """A full disk, or a broken one: all of it, or only what one of them writes."""
        only = self._random.choice(("", "", "epochs/", "manifest", *(node.name for node in daemon.nodes)))
        self._world.disk.refuse(self._random.randint(1, 25), self._random.choice((0.3, 1.0)), only)

    def _restart(self, daemon: Daemon) -> None:
        self._operate(daemon, "restart", self._names(daemon))

    def _restart_by_force(self, daemon: Daemon) -> None:
        self._operate(daemon, "restart", self._names(daemon), force=True)

    def _stop(self, daemon: Daemon) -> None:
        self._operate(daemon, "stop", self._names(daemon))

    def _start(self, daemon: Daemon) -> None:
        self._operate(daemon, "start", ())

    def _operate(self, daemon: Daemon, verb: p.Verb, names: tuple[str, ...], force: bool = False) -> None:
        daemon.ask(p.Operate(self.ticket(), verb, names, self._random.choice(ASK_S), force))

    def _reload(self, daemon: Daemon) -> None:
        """One at a time, as in reloading.py."""
        if not any(isinstance(question, p.Reload) for question in daemon.tickets.values()):
            plan = daemon.plan(self._random.choice(INTERVALS_S))
            daemon.ask(p.Reload(self.ticket(), plan, self._names(daemon), self._random.choice(ASK_S)))

    def _checkpoint(self, daemon: Daemon) -> None:
        daemon.ask(p.Checkpoint(self.ticket(), self._random.choice(ASK_S)))

    def _change(self, daemon: Daemon) -> None:
        """A stage is changed; or rows come back into the stream, at one that has inputs."""
        if self._random.random() < OWN:
            stage, ticket = self._random.choice([node.name for node in daemon.nodes]), self.ticket()
            change = {"kind": "turn", "stage": stage, "params": {"number": ticket}}
            daemon.ask(p.Propose(ticket, change, self._random.choice(ASK_S)))
            return
        stage = self._random.choice([node.name for node in daemon.nodes if node.inputs])
        ticket = self.ticket()
        rows = [[ticket * 10 + n, 1] for n in range(self._random.randint(1, 2))]
        self._give(daemon, ticket, stage, rows)

    def replay(self, daemon: Daemon) -> bool:
        """Those of one stage come back that were put aside when they came back before; False: there are none."""
        dead = self._dead()
        if dead:
            stage = dead[0][0]
            rows = [[number, attempt + 1] for name, number, attempt in dead if name == stage]
            self._give(daemon, self.ticket(), stage, rows)
        return bool(dead)

    def _give(self, daemon: Daemon, ticket: int, stage: str, rows: list[list[int]]) -> None:
        self._replayed.update((number, (stage, attempt)) for number, attempt in rows)
        daemon.ask(p.Propose(ticket, {"kind": "replay", "stage": stage, "rows": rows}, self._random.choice(ASK_S)))

    def _dead(self) -> list[tuple[str, int, int]]:
        """Stage, number and last attempt of the rows whose last attempt is on the list."""
        disk = self._world.disk
        return [
            (stage, number, attempt)
            for number, (stage, attempt) in self._replayed.items()
            if (("", REPLAY, number), attempt) in put_aside(disk, stage)
        ]


def deed_name(deed: Callable[[Fate, Daemon], None]) -> str:
    return deed.__name__.strip("_").replace("_", " ")


_DEEDS: Final[dict[Callable[[Fate, Daemon], None], float]] = {
    Fate._kill: 6.0,
    Fate._kill_several: 1.5,
    Fate._kill_at_the_disk: 3.0,
    Fate._stop_for_a_while: 2.0,
    Fate._kill_the_launcher: 1.5,
    Fate._stop_the_launcher: 0.5,
    Fate._stop_the_supervisor: 0.5,
    Fate._kill_the_supervisor: 2.0,
    Fate._kill_the_supervisor_at_the_disk: 1.0,
    Fate._lose_power: 2.0,
    Fate._refuse: 3.0,
    Fate._restart: 2.5,
    Fate._restart_by_force: 1.0,
    Fate._reload: 1.5,
    Fate._stop: 1.0,
    Fate._start: 1.0,
    Fate._checkpoint: 1.0,
    Fate._change: 2.0,
}
"""How often each, relative to the others."""
