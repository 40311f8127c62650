"""What systemd is told while we live: that decisions are made, what is going on, and that a start or a stop goes on.

Looks; decides nothing. One line at most every second, and only a line that is another one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from streampiped.core.lifecycle import State
from streampiped.core.supervision import Supervision
from streampiped.runtime.blackbox import Reading
from streampiped.runtime.notify import Notifier
from streampiped.status_view import WAITS, Rates
from streampiped.topology import Plan

STATUS_PERIOD_S: Final = 1.0
EXTENSION_S: Final = 30.0  # for a start or stop that goes on, from the last progress that was seen
OWED_S: Final = 0.1  # until the next attempt to say what systemd had no room for
NAMES_MAX: Final = 3  # of processes that are waited for; a line of `systemctl status` should stay one


class Seen(Protocol):
    """What of the pipeline is looked at."""

    plan: Plan
    supervision: Supervision

    def reading(self, name: str) -> Reading | None:
        """A look into the black box of a process that lives."""
        ...

    def state(self) -> tuple[str, str | None]:
        """Of the pipeline, with its reason."""
        ...


class Announcer:
    """Call `step` whenever decisions have been made, and at `due`."""

    def __init__(self, notifier: Notifier, seen: Seen, now: float) -> None:
        self._notifier = notifier
        self._seen = seen
        self._rates = Rates()
        self._ping_at = now if notifier.ping_every else float("inf")
        self._look_at = now if notifier.listening else float("inf")
        self._progress: tuple[Any, ...] = ()
        self._ready = False

    def step(self, now: float) -> None:
        self._notifier.catch_up()
        if now >= self._ping_at:
            self._notifier.ping()
            self._ping_at = now + self._notifier.ping_every
        if now >= self._look_at:
            self._look_at = now + STATUS_PERIOD_S
            self._notifier.status(self.line(now))
            if self._in_between:
                self._extend()

    def ready(self, now: float) -> None:
        """Every process is there. The line comes first: `systemctl start` returns with READY=1, and who looks then is
        not to read of a start."""
        self._ready = True
        if self._notifier.listening:
            self._look_at = now + STATUS_PERIOD_S
            self._notifier.status(self.line(now))
        self._notifier.ready()

    def stopping(self, seconds: float) -> None:
        """The end has begun; it may take so long without any progress."""
        self._notifier.stopping()
        self._notifier.extend(seconds)

    def due(self, now: float) -> float:
        """When the next step must be made, whether or not anything happens. While records flow something does, several
        times in every epoch: the line is then looked at on that occasion."""
        soon = now + OWED_S if self._notifier.owes else float("inf")
        return min(soon, self._ping_at, self._look_at if self._in_between else float("inf"))

    @property
    def _in_between(self) -> bool:
        return not self._ready or self._seen.supervision.closing is not None

    def _extend(self) -> None:
        """As long as something moves: a process to its next state, or the pulse of one that works or restores."""
        processes = self._seen.supervision.processes.values()
        readings = [self._seen.reading(process.name) for process in processes]
        pulse = sum(reading.pulse for reading in readings if reading is not None)
        progress = (pulse, *((process.state, process.incarnation) for process in processes))
        if progress != self._progress:
            self._progress = progress
            self._notifier.extend(EXTENSION_S)

    # the line

    def line(self, now: float) -> str:
        """What is going on, for people."""
        state, reason = self._seen.state()
        tell: dict[str, Callable[[], str | None]] = {
            "starting": self._waits_for,
            "running": lambda: self._flow(now),
            "draining": lambda: f"{reason}, {self._left()}",
        }
        more = tell[state]() if state in tell else reason
        return f"{state}: {more}" if more else state

    def _waits_for(self) -> str | None:
        up = (State.RUNNING, State.READY)
        late = [q for q in self._seen.supervision.processes.values() if q.wanted and q.state not in up]
        if not late:
            return None
        names = ", ".join(q.name for q in late[:NAMES_MAX])
        more = f" and {len(late) - NAMES_MAX} more" if len(late) > NAMES_MAX else ""
        return f"waiting for {names}{more}: {WAITS.get(late[0].state, late[0].state.value)}"

    def _flow(self, now: float) -> str:
        sources = [self._seen.reading(spec.name) for spec in self._seen.plan.stages if spec.role == "source"]
        records = sum(reading.records_out for reading in sources if reading is not None)
        began = min(self._seen.supervision.processes[spec.name].since for spec in self._seen.plan.stages)
        rate = self._rates.look("sources", records, began, now)
        return f"{rate:.3g} records/s, epoch {self._seen.supervision.epochs.committed}"

    def _left(self) -> str:
        """Records that were given and not yet taken, over all links; or processes, when these are asked to leave."""
        if self._seen.supervision.leaving:
            alive = sum(process.alive for process in self._seen.supervision.processes.values())
            return f"{alive} processes left"
        readings = {spec.name: self._seen.reading(spec.name) for spec in self._seen.plan.stages}
        left = 0
        for spec in self._seen.plan.stages:
            given = [reading.records_out for name in spec.inputs if (reading := readings[name]) is not None]
            taken = readings[spec.name]
            left += max(0, sum(given) - taken.records_in) if given and taken is not None else 0
        return f"{left} records left on the links"
