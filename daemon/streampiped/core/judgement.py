"""How well is a stage, and the pipeline? A pure judgement from looks that are taken about once a second.

`health.py` beside this asks whether a process must be killed; here nothing is done, only said. The one that is slow is
named and not those that it holds up or keeps waiting: a stage is lagging when its records are late, nothing before it
is late for reasons of its own, and it is not itself held up by a reader. What waits for a reason that is nobody's fault
(no input, an operator's stop, `max_rate`) is healthy. docs/components/service_monitor.md has the rules.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from math import inf
from typing import Final

from streampiped.core.health import ASLEEP, CONDITIONS, RestClock, Sample, StallClock
from streampiped.core.lifecycle import State
from streampiped.phases import BEHIND, Phase
from streampiped.topology import Thresholds

HELD_LOOKS: Final = 5  # a stage that was held up at most of the last looks is held up
LAGGING_FOR_S: Final = 2.0  # one late batch is no lag
LAGGING_LEFT: Final = 0.5  # of the limit: below it a lagging stage has caught up


class Health(Enum):
    """From good to bad."""

    HEALTHY = "healthy"
    LAGGING = "lagging"  # works, and is behind
    STALLED = "stalled"  # has work and makes no progress
    FLAPPING = "flapping"  # dies again and again
    FAILED = "failed"  # given up until an operator says start

    @property
    def rank(self) -> int:
        """0 is good."""
        return _RANKS[self]


_RANKS: Final = {health: rank for rank, health in enumerate(Health)}
_OWN_TIME: Final = (State.STARTING, State.LOADING, State.RESETTING, State.STOPPING, State.KILLING)
"""States that a process leaves by itself; in the others it waits for somebody."""
_HELD: Final = (Phase.BLOCKED, *BEHIND)


@dataclass(frozen=True, slots=True)
class Member:
    """A process of the plan."""

    name: str
    inputs: tuple[str, ...] = ()
    service: bool = False
    hang_timeout: float = 30.0


@dataclass(frozen=True, slots=True)
class Look:
    """What there is to see of a process now. `sample` is None when there is no process; `batches` that are done in
    `generation`, the last of them `age` seconds old; `deaths` within the last `window` seconds."""

    state: State
    in_state: float = 0.0
    wanted: bool = True
    sample: Sample | None = None
    generation: int = 0
    batches: int = 0
    age: float = 0.0
    deaths: int = 0
    window: float = 60.0
    reason: str | None = None
    next_attempt: float | None = None


@dataclass(frozen=True, slots=True)
class Whole:
    """The pipeline: does data flow, what does the outer world refuse (`trouble`: to a stage, `epoch_trouble`: to the
    epochs), and how old is the last epoch, when one is due."""

    running: bool = True
    trouble: str | None = None
    epoch_trouble: str | None = None
    epoch_age: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """`reason` is for people, and of a healthy one often None; `cause`: the process that it is about, where that is
    another one; `since` on the clock of `now`."""

    health: Health
    reason: str | None = None
    cause: str | None = None
    since: float = 0.0


@dataclass(slots=True)
class _Chart:
    """What is remembered of one process between two looks."""

    stall: StallClock = field(default_factory=StallClock)
    rest: RestClock = field(default_factory=RestClock)
    phases: deque[str] = field(default_factory=lambda: deque(maxlen=HELD_LOOKS))
    seen: tuple[int, int] = (0, 0)
    still: float = 0.0
    late: float = 0.0
    blamed_since: float | None = None
    better_since: float | None = None
    verdict: Verdict = Verdict(Health.HEALTHY)

    def mostly(self, what: str) -> bool:
        """At most of the last looks."""
        return self.phases.count(what) * 2 > len(self.phases)


class Judge:
    """Looks at all processes together, for who is slow can only be told beside the others."""

    def __init__(self, members: Iterable[Member], thresholds: Thresholds, now: float = 0.0) -> None:
        """`members` in the order of the stream."""
        self._members = {member.name: member for member in members}
        self._limits = thresholds
        self._charts = {name: _Chart(verdict=Verdict(Health.HEALTHY, since=now)) for name in self._members}
        self._whole = Verdict(Health.HEALTHY, since=now)

    def adopt(self, members: Iterable[Member], thresholds: Thresholds) -> None:
        """The same processes, judged by other limits from now on."""
        self._members = {member.name: member for member in members}
        self._limits = thresholds

    def look(self, looks: Mapping[str, Look], whole: Whole, now: float) -> tuple[Verdict, dict[str, Verdict]]:
        """The verdict on the pipeline, and that on every process; one look for each of the members."""
        for name, look in looks.items():
            self._observe(self._charts[name], look, self._members[name], now)
        late = self._blame(looks, now)
        for name, look in looks.items():
            self._settle(self._charts[name], self._judge(name, look, looks, late, now), now)
        verdicts = {name: self._charts[name].verdict for name in looks}
        judged = self._of_all(whole, verdicts)
        since = self._whole.since if judged.health is self._whole.health else now
        self._whole = replace(judged, since=since)
        return self._whole, verdicts

    # what a look adds

    def _observe(self, chart: _Chart, look: Look, member: Member, now: float) -> None:
        sample = look.sample
        if look.state is not State.RUNNING or sample is None:
            chart.stall.forget()
            chart.rest.forget()
            chart.phases.clear()
            chart.still = chart.late = 0.0
            return
        chart.stall.look(sample, now, inf)
        chart.rest.look(sample, now)
        chart.still = chart.stall.whole  # starved or not: nobody dies of a verdict
        held = (sample.phase in _HELD and sample.blocked_output) or sample.phase is Phase.ALIGNING
        idle = sample.phase is Phase.WAITING and not sample.waiting_input
        chart.phases.append(
            "held" if held else "throttled" if sample.phase is Phase.THROTTLED else "idle" if idle else ""
        )
        seen = look.generation, look.batches
        if seen != chart.seen:
            chart.late = look.age
        elif sample.phase not in _HELD:  # a batch that is under way is getting older; nothing to do is never late
            busy = chart.still > 0 or sample.phase in (Phase.PROCESSING, Phase.PREPARING)
            chart.late = max(chart.late, chart.still) if busy else 0.0
        chart.seen = seen
        if member.service or sample.phase in (Phase.ENDED, Phase.HOLDING):
            chart.late = 0.0

    def _blame(self, looks: Mapping[str, Look], now: float) -> dict[str, str]:
        """For every stage whose records are late: who is behind, perhaps itself."""
        found = {name: self._culprit(name) for name in looks if self._charts[name].late > self._lagging_limit(name)}
        for name, chart in self._charts.items():
            if name not in found.values() or chart.mostly("throttled"):
                chart.blamed_since = None
            elif chart.blamed_since is None:
                chart.blamed_since = now
        return found

    def _lagging_limit(self, name: str) -> float:
        """Who is lagging has to come well below the limit before it is not."""
        left = LAGGING_LEFT if self._charts[name].verdict.health is Health.LAGGING else 1.0
        return self._limits.lagging_after * left

    def _culprit(self, name: str) -> str:
        """Itself, unless its records were late already when they came, or a reader does not take them."""
        chart = self._charts[name]
        if chart.mostly("throttled"):
            return name
        if chart.mostly("held"):
            return self._holder(name) or name
        late = {source: self._charts[source].late for source in self._members[name].inputs}
        first = max(late, key=lambda source: late[source], default=None)
        return self._culprit(first) if first is not None and late[first] * 2 > chart.late else name

    def _holder(self, name: str) -> str | None:
        """The first reader down the stream that is at work and not held up itself; behind a fork not the one that only
        waits for records."""
        readers = [member.name for member in self._members.values() if name in member.inputs]
        held = [reader for reader in readers if self._charts[reader].mostly("held")]
        free = [reader for reader in readers if reader not in held]
        busy = [reader for reader in free if not self._charts[reader].mostly("idle")]
        if busy or not held:
            return next(iter(busy or free), None)
        return self._holder(held[0])

    # the verdict of one look

    def _judge(self, name: str, look: Look, looks: Mapping[str, Look], late: Mapping[str, str], now: float) -> Verdict:
        limits, chart = self._limits, self._charts[name]
        if look.state is State.FAILED:
            return Verdict(Health.FAILED, f"given up: {look.reason}")
        if not look.wanted:
            return Verdict(Health.HEALTHY, "stopped by an operator")
        if look.deaths >= limits.flapping_deaths:
            return Verdict(
                Health.FLAPPING, f"died {look.deaths} times within {look.window:g} s, last: {look.reason}{_next(look)}"
            )
        if look.state is not State.RUNNING:
            return self._of_unready(name, look, looks)
        stalled = min(limits.stalled_after, self._members[name].hang_timeout / 2)
        if chart.still >= stalled and look.sample is not None:
            return Verdict(Health.STALLED, _standstill(chart.still, stalled, look.sample))
        if chart.rest.phase in BEHIND and self._is_stuck(name, stalled, now):
            return Verdict(
                Health.STALLED,
                f"no {chart.rest.phase.name.lower()} for {stalled:g} s, and nobody below it has any work: "
                "nothing will move",
            )
        age = f"its records are {chart.late:.1f} s old, at most {self._lagging_limit(name):g} s are healthy"
        if late.get(name) == name and chart.mostly("throttled"):
            return Verdict(Health.HEALTHY, f"its records are {chart.late:.1f} s old, for its max_rate lets no more in")
        if chart.blamed_since is not None and now - chart.blamed_since >= LAGGING_FOR_S:
            return Verdict(Health.LAGGING, age)
        if chart.mostly("held") and (holder := self._holder(name)) is not None:
            return Verdict(Health.HEALTHY, f"held up by {holder}", holder)
        if late.get(name, name) != name:
            return Verdict(Health.HEALTHY, f"its records come late, because {late[name]} is behind", late[name])
        return Verdict(Health.HEALTHY)

    def _is_stuck(self, name: str, seconds: float, now: float) -> bool:
        """It and all that read its records rest; `Watch` opens a generation when that has lasted `hang_timeout`."""
        reached = {name}
        for member in self._members.values():
            if not reached.isdisjoint(member.inputs):
                reached.add(member.name)
        rests = (self._charts[each].rest.rests(seconds, 1, now) for each in reached)
        return len(reached) > 1 and all(rests)

    def _of_unready(self, name: str, look: Look, looks: Mapping[str, Look]) -> Verdict:
        limit = self._limits.stalled_after
        if look.state in _OWN_TIME:
            if look.in_state >= limit:
                reason = f"still {look.state.value} after {look.in_state:.1f} s, at most {limit:g} s are healthy"
                return Verdict(Health.STALLED, reason)
            return Verdict(Health.HEALTHY, f"{look.state.value} for {look.in_state:.1f} s")
        if look.state in (State.LOADED, State.READY):
            others = [o for o in looks if o != name and looks[o].state not in (State.READY, State.RUNNING)]
            stages = [o for o in others if not self._members[o].service]
            if stages:
                return Verdict(Health.HEALTHY, f"waits for {stages[0]}, {_absence(looks[stages[0]])}", stages[0])
            return Verdict(Health.HEALTHY, "waits for the other stages")
        return Verdict(Health.HEALTHY, f"died: {look.reason}{_next(look)}")

    # what is said

    def _settle(self, chart: _Chart, raw: Verdict, now: float) -> None:
        """Worse at once, better only when it has stayed so for a while: a verdict must not flicker."""
        known = chart.verdict
        better = raw.health.rank < known.health.rank
        if better and known.health is not Health.FAILED:  # which an operator has ended
            if chart.better_since is None:
                chart.better_since = now
            if now - chart.better_since < self._limits.clear_after:
                return
        chart.better_since = None
        chart.verdict = replace(raw, since=known.since if raw.health is known.health else now)

    def _of_all(self, whole: Whole, verdicts: Mapping[str, Verdict]) -> Verdict:
        """The worst of all."""
        judged = max(verdicts, key=lambda name: verdicts[name].health.rank, default=None)
        worst = Verdict(Health.HEALTHY)
        if judged is not None and verdicts[judged].health is not Health.HEALTHY:
            worst = Verdict(verdicts[judged].health, f"{judged}: {verdicts[judged].reason}", judged)
        if whole.trouble is not None and worst.health.rank < Health.STALLED.rank:
            return Verdict(Health.STALLED, f"no records flow: {whole.trouble}")
        if worst.health is Health.HEALTHY and whole.running and whole.epoch_age is not None:
            limit = self._limits.epoch_after
            if whole.epoch_age > limit:
                why = f": {whole.epoch_trouble}" if whole.epoch_trouble else ""
                reason = f"no epoch committed for {whole.epoch_age:.0f} s, at most {limit:g} s are healthy{why}"
                return Verdict(Health.LAGGING, reason)
        return worst


def _next(look: Look) -> str:
    return "" if look.next_attempt is None else f"; next attempt in {look.next_attempt:.1f} s"


def _absence(look: Look) -> str:
    if look.state is State.FAILED:
        return "which has failed"
    return "which is stopped" if not look.wanted else f"which is {look.state.value}"


def _standstill(still: float, limit: float, sample: Sample) -> str:
    """What stands still, at what, and why."""
    work = (
        "with messages of the supervisor unread" if sample.waiting_control
        else "with input unread" if sample.waiting_input
        else ""
    )  # fmt: skip
    parts = [
        f"no progress for {still:.1f} s in phase {sample.phase.name.lower()}",
        work,
        CONDITIONS.get(sample.kernel, "") if sample.kernel != ASLEEP else "",
    ]
    return ", ".join(part for part in parts if part) + f"; at most {limit:g} s are healthy"
