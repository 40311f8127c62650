"""How another plan takes the place of the present one, as far as processes are concerned.

Successors that know the new plan import and rehearse while everything goes on. When all have loaded they take over as
in a planned restart, behind an epoch with which the sources hold; in the same moment the new plan takes effect, for
everybody. Until then nothing has changed, and whatever goes wrong leaves it so.
"""

from __future__ import annotations

from streampiped.core import protocol as p
from streampiped.core.births import Births
from streampiped.core.deaths import Deaths
from streampiped.core.generations import Generations
from streampiped.core.operations import Operations, Wish
from streampiped.core.poison import Poison
from streampiped.core.processes import Desk, Limits, Process, Roster
from streampiped.errors import ExitCode
from streampiped.topology import Plan


class Reloads:
    """Begins a reload, and sees when it takes effect."""

    def __init__(
        self,
        desk: Desk,
        roster: Roster,
        limits: Limits,
        births: Births,
        generations: Generations,
        deaths: Deaths,
        operations: Operations,
        poison: Poison,
    ) -> None:
        self._desk = desk
        self._roster = roster
        self._limits = limits
        self._births = births
        self._generations = generations
        self._deaths = deaths
        self._operations = operations
        self._poison = poison

    def begin(self, wish: Wish, now: float) -> None:
        """A successor for each stage that changes; who is stopped on purpose gets the plan when it is started. One that
        has failed, or waits for its next attempt, gets one as well: that may be what the edit was for."""
        for name in wish.names:
            process = self._roster[name]
            if process.service or not process.wanted:
                continue
            if process.successor is not None:  # of the plan that runs; who waits for it will get this one
                self._desk.put(p.Kill(name, process.successor.incarnation))
            self._births.fork_successor(process, now, renewed=True)
            wish.heirs[name] = self._births.incarnation
        if wish.heirs and self._generations.running:  # made while they import, it is out of the way
            self._generations.demand(now)

    def settle(self, now: float) -> None:
        """The plan takes effect as soon as every successor has taken over. They do so together."""
        wish = self._operations.reload
        if wish is None:
            return
        if any(self._roster[name].heir(number) is not None for name, number in wish.heirs.items()):
            return
        if lost := [name for name, number in wish.heirs.items() if self._roster[name].incarnation != number]:
            self._fail(wish, f"{', '.join(lost)}: another command has ended the successor, the old one stays", now)
            return
        assert wish.plan is not None
        wish.adopted = True
        self._desk.put(p.Adopt(wish.ticket, wish.plan))
        self._adopt(wish.plan, now)
        for name in wish.names:
            self._renew(self._roster[name], name in wish.heirs, now)

    def _fail(self, wish: Wish, reason: str, now: float) -> None:
        self._operations.take(wish)
        for name in wish.heirs:
            self._deaths.drop_successor(self._roster[name], now)
        self._desk.put(p.Answer(wish.ticket, ExitCode.FAILED, reason))

    def _adopt(self, plan: Plan, now: float) -> None:
        settings = plan.supervision
        self._limits.adopt(settings)
        self._poison.attempts = settings.poison_attempts
        self._generations.pace(plan.checkpoint.interval, now)
        for process in self._roster:
            process.hang_timeout = plan.spec(process.name).hang_timeout
            process.intensity.adopt(
                settings.max_restarts,
                settings.window,
                settings.backoff_first,
                settings.backoff_max,
                settings.stable_after,
            )

    def _renew(self, process: Process, has_taken_over: bool, now: float) -> None:
        """A service has no successor: nobody waits for its output. It is asked to leave, and forked again."""
        process.intensity.forget()
        if has_taken_over or not process.wanted:
            return
        if process.stays:
            self._deaths.ask(process, now)
        elif not process.alive:
            process.last_reason = None
            self._births.fork(process, now)
