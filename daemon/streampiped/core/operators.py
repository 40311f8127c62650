"""What operators want, and how it comes about: start, stop and restart, one wish at a time.

A data stage is restarted by a successor that imports first; a service is asked to leave and forked again, because
nobody waits for its output.
"""

from __future__ import annotations

from streampiped.core import protocol as p
from streampiped.core.births import Births
from streampiped.core.deaths import Deaths
from streampiped.core.ending import Ending
from streampiped.core.lifecycle import State
from streampiped.core.operations import Operations, Wish
from streampiped.core.processes import Desk, Process, Roster
from streampiped.errors import ExitCode


class Operators:
    """Begins wishes, sees when they have come about, answers."""

    def __init__(
        self, desk: Desk, roster: Roster, births: Births, deaths: Deaths, operations: Operations, ending: Ending
    ) -> None:
        self._desk = desk
        self._roster = roster
        self._births = births
        self._deaths = deaths
        self._operations = operations
        self._ending = ending

    def on_operate(self, event: p.Operate, now: float) -> None:
        if self._ending.closing is not None:
            self._refuse(event.ticket, self._ending.closing)
            return
        names = event.names or tuple(process.name for process in self._roster)
        wish = Wish(event.ticket, event.verb, names, event.timeout, now + event.timeout)
        for beaten in self._operations.add(wish):
            for name in beaten.names:
                self._deaths.drop_successor(self._roster[name], now)
            self._answer(beaten, ExitCode.REFUSED, f"overtaken by stop {', '.join(names)}")

    def settle(self, now: float) -> bool:
        """Answer the wish at work if it has come about, then begin the next; False when there is none to begin."""
        for wish in self._operations.due(self._is_done):
            self._answer(wish, ExitCode.OK, self._how_done(wish))
        following = self._operations.next()
        if following is None:
            return False
        for name in following.names:
            self._begin(following, self._roster[name], now)
        return True

    def tick(self, now: float) -> None:
        """Whoever has waited long enough is told so; the work goes on."""
        for wish in self._operations.timed_out(now):
            waits = ", ".join(f"{name} is {self._roster[name].state.value}" for name in wish.names)
            self._answer(wish, ExitCode.TIMED_OUT, f"still going on after {wish.timeout:g} s: {waits}")

    def close(self, reason: str, now: float) -> None:
        """We are shutting down: nothing that was wanted will come about."""
        for wish in self._operations.clear():
            self._refuse(wish.ticket, reason)
        for process in self._roster:
            self._deaths.drop_successor(process, now)

    def _begin(self, wish: Wish, process: Process, now: float) -> None:
        if wish.verb == "stop":
            self._deaths.stop(process, now)
        elif not process.alive:
            process.wanted = True
            process.intensity.forget()
            self._births.fork(process, now)
        elif wish.verb == "restart" and process.service:
            if process.stays:  # else its death is on the way, and a fork follows that as well
                self._deaths.ask(process, now)
        elif wish.verb == "restart" and process.successor is None:
            self._births.fork_successor(process, now)

    def _is_done(self, wish: Wish) -> bool:
        return all(self._has_come(self._roster[name], wish) for name in wish.names)

    def _has_come(self, process: Process, wish: Wish) -> bool:
        if wish.verb == "stop":
            return process.state is State.STOPPED
        if process.successor is not None:
            return False
        return process.state is State.RUNNING or (process.state is State.READY and self._roster.holding is not None)

    def _how_done(self, wish: Wish) -> str:
        held = self._roster.holding
        if wish.verb == "stop" or held is None:
            return "done"
        return f"done; the pipeline holds because {held.name} is {held.state.value}"

    def _answer(self, wish: Wish, code: ExitCode, text: str) -> None:
        self._desk.put(p.Answer(wish.ticket, code, text))

    def _refuse(self, ticket: int, reason: str) -> None:
        self._desk.put(p.Answer(ticket, ExitCode.REFUSED, f"refused: shutting down ({reason})"))
