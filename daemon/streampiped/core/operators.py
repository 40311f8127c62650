"""What operators want, and how it comes about: start, stop, restart, an epoch, a changed state; one wish at a time.

A data stage is restarted by a successor that imports first; a service is asked to leave and forked again, because
nobody waits for its output. A stop is remembered for the next start of the daemon.
"""

from __future__ import annotations

from streampiped.core import protocol as p
from streampiped.core.births import Births
from streampiped.core.deaths import Deaths
from streampiped.core.ending import Ending
from streampiped.core.epochs import Step
from streampiped.core.generations import Generations
from streampiped.core.lifecycle import State
from streampiped.core.operations import Operations, Wish
from streampiped.core.processes import Desk, Process, Roster
from streampiped.core.reloads import Reloads
from streampiped.errors import ExitCode


class Operators:
    """Begins wishes, sees when they have come about, answers."""

    def __init__(
        self,
        desk: Desk,
        roster: Roster,
        births: Births,
        generations: Generations,
        deaths: Deaths,
        operations: Operations,
        ending: Ending,
        reloads: Reloads,
    ) -> None:
        self._desk = desk
        self._roster = roster
        self._births = births
        self._generations = generations
        self._deaths = deaths
        self._operations = operations
        self._ending = ending
        self._reloads = reloads
        self._remembered: tuple[str, ...] = ()
        """Who is stopped, as far as the next start of the daemon would know."""
        self.forgetful: str | None = None
        """Why it would not know better."""

    def begin(self) -> None:
        """Whoever is not wanted now was stopped in a former life of the daemon."""
        self._remembered = self._stopped()

    def on_operate(self, event: p.Operate, now: float) -> None:
        if self._ending.closing is not None:
            self._refuse(event.ticket, self._ending.closing)
            return
        names = event.names or tuple(process.name for process in self._roster)
        wish = Wish(event.ticket, event.verb, names, event.timeout, now + event.timeout, event.force)
        heirs = [self._roster[name].successor for name in names]
        if event.force and all(heirs):  # that restart is under way, and must not wait for its barrier any more
            for heir in filter(None, heirs):
                heir.hurry = True
            self._operations.join(wish)
            return
        halts = any(not self._roster[name].service for name in names)
        for beaten in self._operations.add(wish, halts=halts):
            self._drop(beaten, f"overtaken by stop {', '.join(names)}", now)

    def on_checkpoint(self, event: p.Checkpoint, now: float) -> None:
        """An epoch is made of a generation that runs, or will by itself."""
        if (reason := self._ending.closing or self._why_not_running()) is not None:
            self._refuse(event.ticket, reason)
            return
        self._operations.add(Wish(event.ticket, "checkpoint", (), event.timeout, now + event.timeout))

    def on_stops_kept(self, event: p.StopsKept, now: float) -> None:
        """The disk knows who is stopped, or refuses to."""
        self.forgetful = event.refused
        if event.refused is None:
            self._remembered = event.names

    def on_propose(self, event: p.Propose, now: float) -> None:
        if (reason := self._ending.closing or self._why_not_running()) is not None:
            self._refuse(event.ticket, reason)
            return
        names = (str(event.change["stage"]),)
        wish = Wish(event.ticket, "change", names, event.timeout, now + event.timeout, change=event.change)
        self._operations.add(wish)

    def on_reload(self, event: p.Reload, now: float) -> None:
        if self._ending.closing is not None:
            self._refuse(event.ticket, self._ending.closing)
            return
        deadline = now + event.timeout
        self._operations.add(Wish(event.ticket, "reload", event.names, event.timeout, deadline, plan=event.plan))

    def settle(self, now: float) -> bool:
        """Answer the wish at work if it has come about, then begin the next; False when there is none to begin."""
        for wish in self._operations.due(self._is_done):
            self._answer(wish, ExitCode.OK, self._how_done(wish))
        if (reason := self._why_not_running()) is not None:
            for wish in self._operations.take_epochs():
                self._drop(wish, self._refusal(reason), now)
        following = self._operations.next()
        if following is None:
            return False
        self._begin(following, now)
        return True

    def tick(self, now: float) -> None:
        """Whoever has waited long enough is told so; the work goes on."""
        for wish in self._operations.timed_out(now):
            waited = f"{wish.timeout:.2f}".rstrip("0").rstrip(".")
            self._answer(wish, ExitCode.TIMED_OUT, f"still going on after {waited} s: {self._waits(wish)}")

    def close(self, reason: str, now: float) -> None:
        """We are shutting down: nothing that was wanted will come about."""
        for wish in self._operations.clear():
            self._drop(wish, self._refusal(reason), now)
        for process in self._roster:
            self._deaths.drop_successor(process, now)

    def _begin(self, wish: Wish, now: float) -> None:
        if wish.verb == "checkpoint":
            wish.epoch = self._generations.demand(now)
        elif wish.change is not None:
            self._generations.epochs.propose(wish.change)
        elif wish.verb == "reload":
            self._reloads.begin(wish, now)
        else:
            for beaten in self._operations.take_stops(wish) if wish.verb != "stop" else ():
                self._drop(beaten, f"overtaken by {wish.verb} {', '.join(wish.names)}", now)
            stopped = self._stopped()
            for name in wish.names:
                self._set(wish, self._roster[name], now)
            if self._stopped() != stopped:
                self._desk.put(p.RememberStopped(self._stopped()))

    def _stopped(self) -> tuple[str, ...]:
        return tuple(process.name for process in self._roster if not process.wanted)

    def _set(self, wish: Wish, process: Process, now: float) -> None:
        if wish.verb == "stop":
            self._deaths.stop(process, now)
            return
        process.wanted = True  # also of one that is still on its way out because of a stop: a fork follows its death
        if not process.alive:
            process.intensity.forget()
            process.last_reason = None  # somebody has seen to it
            if process.successor is None:  # else that one is on its way
                self._births.fork(process, now)
        elif wish.verb == "restart" and process.service:
            if process.stays:  # else its death is on the way, and a fork follows that as well
                self._deaths.ask(process, now)
        elif wish.verb == "restart" and process.successor is None:
            if not wish.force and self._generations.running:  # made while the successor imports, it is out of the way
                self._generations.demand(now)
            self._births.fork_successor(process, now, hurry=wish.force)
        elif wish.force and process.successor is not None:
            process.successor.hurry = True

    def _is_done(self, wish: Wish) -> bool:
        epochs = self._generations.epochs
        if wish.verb == "checkpoint":
            return (epochs.told or 0) >= wish.epoch
        if wish.change is not None:
            return wish.change not in epochs.proposed and epochs.told == epochs.committed
        if wish.verb == "reload":
            wanted = [self._roster[name] for name in wish.names if self._roster[name].wanted]
            return wish.adopted and all(self._has_come(process, wish) for process in wanted)
        remembered = self._remembered == self._stopped()
        return remembered and all(self._has_come(self._roster[name], wish) for name in wish.names)

    def _has_come(self, process: Process, wish: Wish) -> bool:
        if wish.verb == "stop":
            return process.state is State.STOPPED
        if process.successor is not None:
            return False
        return process.state is State.RUNNING or (process.state is State.READY and self._roster.holding is not None)

    def _how_done(self, wish: Wish) -> str:
        if wish.verb in ("checkpoint", "change"):
            return str(self._generations.epochs.told or 0)
        held = self._roster.holding
        if wish.verb == "stop" or held is None:
            return "done"
        return f"done; the pipeline holds because {held.name} is {held.state.value}"

    def _waits(self, wish: Wish) -> str:
        """Never empty: every wait has a story."""
        if self._operations.is_queued(wish):
            return "what was asked for before is not done"
        told = [self._state(self._roster[name]) for name in wish.names]
        if wish.verb in ("start", "stop") and self.forgetful is not None:
            told.append(f"the disk refuses to remember who is stopped: {self.forgetful}")
        if wish.verb in ("restart", "reload", "checkpoint", "change"):
            told += self._epoch_waits()
        return ", ".join(told)

    def _epoch_waits(self) -> list[str]:
        epochs = self._generations.epochs
        if not self._generations.running:
            if self._generations.trouble is not None:
                return [f"all go back again and again: {self._generations.trouble}"]
            late = [self._state(stage) for stage in self._roster.stages if stage.state is not State.READY]
            return [f"the pipeline is not running: {', '.join(late)}"]
        if epochs.failure is not None:
            return [f"no epoch can be committed: {epochs.failure}"]
        return [] if epochs.step in (Step.IDLE, Step.HELD) else [f"the epoch under way is {epochs.step.value}"]

    def _state(self, process: Process) -> str:
        heir = process.successor
        loading = ", its successor still imports" if heir is not None and not heir.loaded else ""
        return f"{process.name} is {process.state.value}{loading}"

    def _why_not_running(self) -> str | None:
        """Who keeps the pipeline from running until an operator says start. A recovery is waited for."""
        held = self._roster.holding
        return f"{held.name} is {held.state.value}" if held is not None else None

    def _drop(self, wish: Wish, reason: str, now: float) -> None:
        """It will not come about. Only a change may, if the epoch that records it is on its way."""
        if wish.change is not None:
            if not self._generations.epochs.withdraw(wish.change):
                reason = f"{reason}; an epoch that records it is under way, and holds if it is committed"
        elif wish.adopted:
            reason = f"the configuration has been taken over; {reason}"
        elif wish.verb != "stop":
            for name in wish.names:
                self._deaths.drop_successor(self._roster[name], now)
        self._answer(wish, ExitCode.REFUSED, reason)

    def _answer(self, wish: Wish, code: ExitCode, text: str) -> None:
        self._desk.put(p.Answer(wish.ticket, code, text))

    def _refuse(self, ticket: int, reason: str) -> None:
        self._desk.put(p.Answer(ticket, ExitCode.REFUSED, self._refusal(reason)))

    def _refusal(self, reason: str) -> str:
        return f"refused: shutting down ({reason})" if self._ending.closing is not None else f"refused: {reason}"
