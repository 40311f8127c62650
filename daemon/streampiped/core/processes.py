"""What the supervision knows of every process, and the desk where its parts lay down what is to be done.

Data and the steps of one process alone; who decides about several is named in supervision.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from streampiped.core import protocol as p
from streampiped.core.causes import Cause
from streampiped.core.health import RestClock, Sample, StallClock
from streampiped.core.intensity import Intensity
from streampiped.core.lifecycle import TABLE, Input, State, is_alive
from streampiped.topology import Supervision

TIMED: Final = (State.STARTING, State.LOADING, State.RESETTING, State.STOPPING)
"""States in which a process works towards a deadline: only time of its own counts. Before it is forked it is the
launcher that works, and is looked at."""
STOP_STARVED_MAX: Final = 3.0
"""Of `stop_timeout` of wall time a starved process has at most so many to leave: a stop ends. With the defaults a drain
(20 s), the stages and then the services (15 s each) stay below the unit's TimeoutStopSec= of 60 s."""
LOOKS_PER_TIMEOUT: Final = 4  # how often within `hang_timeout` a process is looked at
OVERSLEPT_S: Final = 1.0  # a deadline that is looked at so late: it was us who stood still, and perhaps everybody
OVERSLEPT_MAX: Final = 3
"""So often a deadline that was slept through begins anew. A machine that was frozen oversleeps one; a supervisor that
oversleeps one after the other has too little CPU, and then the scheduler's account tells the hung from the starved:
without an end a hung process would live for as long as the machine is overloaded."""
LOOK_PERIOD_MIN_S: Final = 0.25  # a look reads one page and polls some descriptors; more often tells nothing new


@dataclass(slots=True)
class Limits:
    """Seconds; see topology.Supervision. All parts look at the same one: a reload changes it under their hands."""

    start_timeout: float
    reset_timeout: float
    stop_timeout: float
    drain_timeout: float
    poison_attempts: int = 2

    def adopt(self, settings: Supervision) -> None:
        for name in self.__slots__:
            setattr(self, name, getattr(settings, name))


@dataclass(slots=True)
class Successor:
    """A process that imports while its predecessor still works."""

    incarnation: int
    pid: int = 0
    loaded: bool = False
    deadline: float = 0.0
    """When it must have loaded, or (`asked`) a look at it must have been answered."""
    since: float = 0.0
    """When it was forked; before that, when it was asked for."""
    entry: Sample | None = None
    """What it looked like then: until it is forked it is the launcher that is looked at."""
    asked: bool = False
    overslept: int = 0
    """How often that was slept through."""
    said: str | None = None
    """Why it cannot, in its own words or in ours."""
    hurry: bool = False
    """It takes over at once: an operator does not want to wait for a barrier."""
    renewed: bool = False
    """It is of the plan that a reload brings, which takes effect when it takes over."""

    def begin(self, now: float, deadline: float, entry: Sample | None = None) -> None:
        """Its time begins to run."""
        self.since, self.deadline, self.entry = now, deadline, entry
        self.asked, self.overslept = False, 0

    def oversleep(self, now: float, seconds: float) -> None:
        """It was us who stood still when its time was over: it has so much once more."""
        count = self.overslept + 1
        self.begin(now, now + seconds)
        self.overslept = count


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
    causes: Counter[Cause] = field(default_factory=Counter)
    """Of the restarts."""
    last_reason: str | None = None
    said: str | None = None
    """The reason that it gave itself before it died."""
    deadline: float | None = None
    """When the present state has lasted too long (BACKOFF: when to fork)."""
    begun: float = 0.0
    """When the time of `deadline` began to run."""
    entry: Sample | None = None
    """What it looked like then."""
    allowed: float = 0.0
    """Seconds of its own that the state may last; 0 until the deadline has come."""
    asked: bool = False
    """The deadline has come, and a look is to tell whose fault that is."""
    overslept: int = 0
    """How often it was slept through."""
    ready_for: int = 0
    next_look: float | None = None
    kill_at: float | None = None
    stall: StallClock = field(default_factory=StallClock)
    rest: RestClock = field(default_factory=RestClock)
    inputs: tuple[str, ...] = ()
    """Whose records it reads."""
    successor: Successor | None = None

    @property
    def alive(self) -> bool:
        return is_alive(self.state)

    @property
    def stays(self) -> bool:
        """It lives and is not on its way out."""
        return self.alive and self.state not in (State.STOPPING, State.KILLING)

    def move(self, event: Input, now: float, deadline: float | None = None) -> None:
        """Into the next state, which has lasted too long at `deadline`."""
        self.state = TABLE.advance(self.state, event)
        self.since = now
        self.begin_again(now, deadline)

    def begin_again(self, now: float, deadline: float | None) -> None:
        """The present state has another deadline, and another process may be the one that is looked at for it."""
        self.deadline = deadline
        self.begun, self.entry, self.allowed, self.asked, self.overslept = now, None, 0.0, False, 0
        if self.state in TIMED:
            self.next_look = now

    def oversleep(self, now: float, last: float) -> None:
        """It was us who stood still when its time was over: it has all of it once more, but not beyond `last`."""
        assert self.deadline is not None
        count = self.overslept + 1
        self.begin_again(now, min(last, now + (self.allowed or self.deadline - self.begun)))
        self.overslept = count

    def bear(self, incarnation: int, now: float, deadline: float | None) -> None:
        """A new life begins: nothing of the last one counts."""
        self.incarnation, self.pid = incarnation, 0
        self.said, self.expected = None, False
        self.stall.forget()
        self.move(Input.FORK, now, deadline)

    def take_over(self, now: float) -> None:
        """The successor, which has loaded, is the process from now on; the predecessor must be dead."""
        successor, self.successor = self.successor, None
        assert successor is not None
        self.incarnation, self.pid = successor.incarnation, successor.pid
        self.said, self.last_reason, self.expected = None, None, False
        self.count_restart(Cause.PLANNED)
        for event in (Input.FORK, Input.FORKED, Input.LOADED):
            self.move(event, now)

    def count_restart(self, cause: Cause) -> None:
        self.restarts += 1
        self.causes[cause] += 1

    def heir(self, incarnation: int) -> Successor | None:
        """The successor, if this is the one that is meant."""
        known = self.successor is not None and self.successor.incarnation == incarnation
        return self.successor if known else None

    def watch(self, now: float) -> None:
        """From now on it must make progress."""
        self.stall.forget()
        self.rest.forget()
        self.look_later(now)

    @property
    def look_period(self) -> float:
        return max(LOOK_PERIOD_MIN_S, self.hang_timeout / LOOKS_PER_TIMEOUT)

    def look_later(self, now: float) -> None:
        self.next_look = now + self.look_period

    def unwatch(self) -> None:
        """It is on its way out: no look, and no death sentence, is due any more."""
        self.next_look = self.kill_at = None

    def due(self) -> tuple[float | None, ...]:
        """Every time at which something about it must be done."""
        heir = self.successor
        loading = heir.deadline if heir is not None and not heir.loaded else None
        return self.deadline, self.next_look, self.kill_at, loading


class Roster:
    """All processes by name, in the order of the plan."""

    def __init__(self, processes: Iterable[Process]) -> None:
        self.by_name = {process.name: process for process in processes}
        self.stages = [process for process in self.by_name.values() if not process.service]
        """The data stages, sources first."""
        self.services = [process for process in self.by_name.values() if process.service]

    def __getitem__(self, name: str) -> Process:
        return self.by_name[name]

    def __iter__(self) -> Iterator[Process]:
        return iter(self.by_name.values())

    @property
    def awaiting(self) -> list[Process]:
        """The data stages that have a successor."""
        return [stage for stage in self.stages if stage.successor is not None]

    def below(self, name: str) -> list[Process]:
        """All that a record of this stage can come to. A stage stands behind those that it reads from."""
        reached = {name}
        for stage in self.stages:
            if not reached.isdisjoint(stage.inputs):
                reached.add(stage.name)
        return [stage for stage in self.stages if stage.name in reached and stage.name != name]

    @property
    def holding(self) -> Process | None:
        """The first data stage that keeps the pipeline from running and will not come back by itself."""
        gone = (s for s in self.stages if s.state is State.FAILED or (s.state is State.STOPPED and not s.wanted))
        return next(gone, None)


class Desk:
    """The commands of one call, in the order in which they are to be performed."""

    def __init__(self) -> None:
        self._commands: list[p.Command] = []

    def put(self, command: p.Command) -> None:
        self._commands.append(command)

    def emit(self, event: str, stage: str = "supervisor", **values: object) -> None:
        """A line for the log; `event` is a name of the catalogue."""
        self._commands.append(p.Log(event, stage, values))

    def clear(self) -> list[p.Command]:
        """Everything that lies here, once."""
        commands, self._commands = self._commands, []
        return commands
