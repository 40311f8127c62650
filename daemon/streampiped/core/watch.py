"""The watch over time: who makes no progress, who is in one state for too long, who waits for the next attempt."""

from __future__ import annotations

from math import inf
from typing import Final

from streampiped.core import protocol as p
from streampiped.core.births import Births
from streampiped.core.deaths import Deaths
from streampiped.core.ending import Ending
from streampiped.core.generations import Generations
from streampiped.core.health import CONDITIONS, Sample, own_time
from streampiped.core.lifecycle import State
from streampiped.core.processes import (
    LOOK_PERIOD_MIN_S,
    LOOKS_PER_TIMEOUT,
    OVERSLEPT_MAX,
    OVERSLEPT_S,
    STOP_STARVED_MAX,
    TIMED,
    Desk,
    Limits,
    Process,
    Roster,
    Successor,
)
from streampiped.phases import BEHIND

STACK_DUMP_GRACE_S: Final = 0.5  # from the request of a stack dump to the kill; a dump takes milliseconds
ANSWER_S: Final = 1.0  # for a look, which is answered at once by whoever lives
LATE: Final = 0.5  # of `hang_timeout`: from here on one wants to see where a process is
LATE_LOOKS: Final = 2  # periods between two looks that are believed; when there are more it was us who stood still


class Watch:
    """Looks at processes when their times have come."""

    def __init__(
        self,
        desk: Desk,
        roster: Roster,
        limits: Limits,
        births: Births,
        generations: Generations,
        ending: Ending,
        deaths: Deaths,
    ) -> None:
        self._desk = desk
        self._roster = roster
        self._limits = limits
        self._births = births
        self._generations = generations
        self._ending = ending
        self._deaths = deaths

    def on_sampled(self, event: p.Sampled, now: float) -> None:
        """A process that is late has its stack dumped; one that hangs, once more, and is killed a moment later."""
        process = self._roster[event.name]
        if (heir := process.heir(event.incarnation)) is not None:
            self._judge_successor(process, heir, event.sample, now)
        if process.incarnation == event.incarnation and process.state in TIMED:
            self._judge_late(process, event.sample, now)
        if process.incarnation != event.incarnation or process.state is not State.RUNNING or process.kill_at:
            return
        process.rest.look(event.sample, now)
        self._judge_rest(process, now)
        stall = process.stall
        stall.look(event.sample, now, LATE_LOOKS * process.look_period)
        phase = event.sample.phase.name.lower()
        condition = CONDITIONS.get(event.sample.kernel, f"in state {event.sample.kernel}")
        if stall.own >= process.hang_timeout:
            process.said = f"hung: no progress for {stall.own:.1f} s in {phase}, {condition}"
            process.next_look = None
            process.kill_at = now + STACK_DUMP_GRACE_S
            self._desk.emit("stage_hung", process.name, seconds=stall.own, phase=phase, condition=condition)
        elif stall.own >= LATE * process.hang_timeout and not stall.told:
            self._desk.emit("stage_stalled", process.name, seconds=stall.own, phase=phase, condition=condition)
        elif stall.whole >= process.hang_timeout and not stall.told:
            # its dump is written when it has a turn, and says where the turns go that it gets
            self._desk.emit("stage_starved", process.name, seconds=stall.whole, own=stall.own, phase=phase)
        else:
            return
        stall.told = True
        self._desk.put(p.DumpStack(process.name, process.incarnation))

    def _judge_rest(self, process: Process, now: float) -> None:
        """A writer waits for credits or slots, and nobody below it has anything to give them back for: none of them is
        hung, and none will ever move. Both begin anew with a generation."""
        phase = process.rest.phase
        if phase not in BEHIND or not self._generations.running or self._ending.closing is not None:
            return
        below, limit = self._roster.below(process.name), process.hang_timeout
        stuck = below and all(stage.rest.rests(limit, LOOKS_PER_TIMEOUT // 2, now) for stage in (process, *below))
        if stuck:
            self._generations.reset(
                f"{process.name} without {phase.name.lower()} for {limit:g} s, and nobody below it with work"
            )

    def _judge_late(self, process: Process, sample: Sample, now: float) -> None:
        """Who was starved on the way to its deadline has the time that it did not have."""
        if process.entry is None:
            process.entry = sample
            return
        if not process.asked:
            return
        process.asked = False
        own = own_time(process.entry, sample, now - process.begun)
        last = self._last(process)
        if own >= process.allowed or now >= last:
            self._kill_late(process, now)
        else:
            process.deadline = min(last, now + max(LOOK_PERIOD_MIN_S, process.allowed - own))

    def _last(self, process: Process) -> float:
        """When it is killed, whosever fault it is: a stop ends."""
        if process.state is not State.STOPPING:
            return inf
        return process.since + STOP_STARVED_MAX * (process.allowed or self._limits.stop_timeout)

    def tick(self, now: float) -> None:
        for process in self._roster:
            self._tick_successor(process, now)
            self._tick_hang(process, now)
            self._tick_state(process, now)

    def _tick_successor(self, process: Process, now: float) -> None:
        successor = process.successor
        if successor is None or successor.loaded or now < successor.deadline:
            return
        if _slept_through(successor, successor.deadline, now):
            successor.oversleep(now, self._limits.start_timeout)
            self._desk.put(p.Look(process.name, successor.incarnation))
        elif (successor.pid or self._births.launcher_ready) and not successor.asked:
            successor.asked, successor.deadline = True, now + ANSWER_S
            self._desk.put(p.Look(process.name, successor.incarnation))
        else:
            self._kill_successor(process, successor, now)

    def _judge_successor(self, process: Process, heir: Successor, sample: Sample, now: float) -> None:
        """As `_judge_late`."""
        if heir.entry is None:
            heir.entry = sample
            return
        if not heir.asked:
            return
        heir.asked = False
        own = own_time(heir.entry, sample, now - heir.since)
        if own >= self._limits.start_timeout:
            self._kill_successor(process, heir, now)
        else:
            heir.deadline = now + max(LOOK_PERIOD_MIN_S, self._limits.start_timeout - own)

    def _kill_successor(self, process: Process, heir: Successor, now: float) -> None:
        """Or the launcher, when that does not fork it; the next one is asked again."""
        if heir.pid or not self._births.launcher_ready:
            heir.said = f"not loaded after {self._limits.start_timeout:g} s"
            self._desk.put(p.Kill(process.name, heir.incarnation))
        else:
            self._desk.put(p.KillLauncher(process.name, heir.incarnation))
        heir.asked, heir.deadline = True, now + self._limits.start_timeout  # its death is on the way

    def _tick_hang(self, process: Process, now: float) -> None:
        if process.kill_at is not None and now >= process.kill_at:
            self._deaths.kill(process, process.said or "hung", now)
        if process.next_look is not None and now >= process.next_look:
            process.look_later(now)
            self._desk.put(p.Look(process.name, process.incarnation))

    def _tick_state(self, process: Process, now: float) -> None:
        if process.deadline is None or now < process.deadline:
            return
        if process.state is State.BACKOFF:
            self._births.fork(process, now)
        elif _slept_through(process, process.deadline, now) and now < self._last(process):
            process.oversleep(now, self._last(process))
        elif process.entry is not None and not process.asked:
            process.allowed = process.allowed or process.deadline - process.begun
            process.asked, process.deadline = True, now + ANSWER_S
            self._desk.put(p.Look(process.name, process.incarnation))
        else:
            self._kill_late(process, now)

    def _kill_late(self, process: Process, now: float) -> None:
        self._deaths.kill(process, f"still {process.state.value} after {now - process.since:.1f} s", now)


def _slept_through(one: Process | Successor, deadline: float, now: float) -> bool:
    """It was us who stood still at its deadline, and not yet too often."""
    return now - deadline > OVERSLEPT_S and not one.asked and one.overslept < OVERSLEPT_MAX
