"""How processes come into the world: the launcher and the forks that are asked of it.

A fork that is asked for while there is no launcher is asked for again of the next one; nothing is lost, and its time
runs from then on.
"""

from __future__ import annotations

from typing import Final

from streampiped.core import protocol as p
from streampiped.core.health import FORKED
from streampiped.core.lifecycle import Input, State
from streampiped.core.processes import Desk, Limits, Process, Roster, Successor

LAUNCHER_BACKOFF_S: Final = 1.0  # after a fork server that died before it was ready; doubled each time
LAUNCHER_BACKOFF_MAX_S: Final = 30.0
LAUNCHER_ATTEMPTS: Final = 4  # in a row and before anything has run; what fails so often is broken, not unlucky


class Births:
    """Forks, up to the moment at which a process exists."""

    def __init__(self, desk: Desk, roster: Roster, limits: Limits) -> None:
        self.launcher_ready = False
        self._launchers_lost = 0
        self.launcher_at: float | None = None
        """When the next launcher must be started."""
        self._desk = desk
        self._roster = roster
        self._limits = limits
        self.incarnation = 0
        """Of the process that was asked for last."""

    def fork(self, process: Process, now: float) -> None:
        """Ask for a process that bears this name. It must be dead."""
        self.incarnation += 1
        # without a fork server the clock starts when the next one is ready
        process.bear(self.incarnation, now, now + self._limits.start_timeout if self.launcher_ready else None)
        self._ask(process.name, process.incarnation)

    def fork_successor(self, process: Process, now: float, *, hurry: bool = False, renewed: bool = False) -> None:
        """Ask for a process that will bear this name, and leave the present one at work."""
        self.incarnation += 1
        process.successor = Successor(self.incarnation, hurry=hurry, renewed=renewed)
        self._ask_successor(process.name, process.successor, now)

    def _ask(self, name: str, incarnation: int) -> None:
        if self.launcher_ready:
            self._desk.put(p.Fork(name, incarnation))

    def _ask_successor(self, name: str, heir: Successor, now: float) -> None:
        heir.begin(now, now + self._limits.start_timeout)
        self._ask(name, heir.incarnation)
        if self.launcher_ready:
            self._desk.put(p.Look(name, heir.incarnation))

    def on_launcher_ready(self, _: p.LauncherReady, now: float) -> None:
        self.launcher_ready = True
        self.launcher_at = None
        for process in self._roster:
            if process.state is State.STARTING:
                process.begin_again(now, now + self._limits.start_timeout)
                self._ask(process.name, process.incarnation)
            if process.successor is not None and not process.successor.pid:
                self._ask_successor(process.name, process.successor, now)

    def lose_launcher(self, now: float) -> list[Process]:
        """The launcher is dead. Forks that were under way are asked for again; a fork that did happen finds its
        control socket closed and leaves. Returned are those that nobody wants any more and that never came about."""
        self._launchers_lost = 0 if self.launcher_ready else self._launchers_lost + 1
        delay = LAUNCHER_BACKOFF_S * 2.0 ** min(self._launchers_lost - 1, 10) if self._launchers_lost else 0.0
        self.launcher_at = now + min(delay, LAUNCHER_BACKOFF_MAX_S)
        self.launcher_ready = False
        for process in self._roster:
            if process.state is State.STARTING:
                process.deadline = None
        return [q for q in self._roster if q.alive and q.state is not State.STARTING and not q.pid]

    def on_forked(self, event: p.Forked, now: float) -> None:
        process = self._roster[event.name]
        if process.incarnation == event.incarnation and process.state is State.STARTING:
            process.pid = event.pid
            # a launcher that was starved has used up what was meant for both
            late = process.allowed > 0.0
            process.move(Input.FORKED, now, now + self._limits.start_timeout if late else process.deadline)
        elif process.incarnation == event.incarnation:
            process.pid = event.pid  # asked to leave or killed meanwhile
            self._desk.put(p.Kill(event.name, event.incarnation))
        elif (heir := process.heir(event.incarnation)) is not None:
            heir.pid = event.pid
            heir.begin(now, now + self._limits.start_timeout, FORKED)
        else:
            self._desk.put(p.Kill(event.name, event.incarnation))

    def tick(self, now: float) -> None:
        if self.launcher_at is not None and now >= self.launcher_at:
            self.launcher_at = None
            self._desk.put(p.StartLauncher())

    @property
    def hopeless(self) -> bool:
        """One launcher after the other has died before it was ready."""
        return self._launchers_lost >= LAUNCHER_ATTEMPTS

    def cease(self) -> None:
        """No launcher is started any more."""
        self.launcher_at = None
