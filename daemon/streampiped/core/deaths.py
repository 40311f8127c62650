"""How processes leave the world, by themselves or asked, and who comes after them.

An unexpected death is followed by a fork, now or later, or by giving up. An expected one, which a restart or a stop has
asked for, counts for nothing. Where a successor waits, it takes over, behind an epoch with which the sources hold, so
that nothing has to be repeated. The death of a data stage opens a generation.
"""

from __future__ import annotations

from streampiped.core import protocol as p
from streampiped.core.births import Births
from streampiped.core.causes import Cause, cause_of
from streampiped.core.ending import Ending
from streampiped.core.generations import Generations
from streampiped.core.intensity import GiveUp
from streampiped.core.lifecycle import Input, State
from streampiped.core.operations import Operations, Wish
from streampiped.core.poison import Poison
from streampiped.core.processes import Desk, Limits, Process, Roster
from streampiped.errors import ExitCode


class Deaths:
    """Ends processes, buries them, and sees to what follows."""

    def __init__(
        self,
        desk: Desk,
        roster: Roster,
        limits: Limits,
        births: Births,
        generations: Generations,
        operations: Operations,
        ending: Ending,
        poison: Poison,
    ) -> None:
        self._desk = desk
        self._roster = roster
        self._limits = limits
        self._births = births
        self._generations = generations
        self._operations = operations
        self._ending = ending
        self._poison = poison

    # to end a process

    def stop(self, process: Process, now: float) -> None:
        """It shall not run, and stay away."""
        process.wanted = False
        self.drop_successor(process, now)
        if process.state in (State.BACKOFF, State.FAILED):
            process.move(Input.STAY_DOWN, now)
        elif process.stays:
            self.ask(process, now)

    def ask(self, process: Process, now: float) -> None:
        """Ask it to leave; whoever is deaf is killed at the deadline."""
        process.expected = True
        process.unwatch()
        process.move(Input.ASK, now, now + self._limits.stop_timeout)
        if process.pid or self._births.launcher_ready:
            self._desk.put(p.AskLeave(process.name, process.incarnation))
        else:
            self._bury(process, "was never forked", now)

    def kill(self, process: Process, reason: str, now: float) -> None:
        process.said = process.said or reason
        process.unwatch()
        process.move(Input.KILL, now)
        if process.pid:
            self._desk.put(p.Kill(process.name, process.incarnation))
        else:  # the fork has not come about: a launcher that is stopped, or hangs
            self._desk.put(p.KillLauncher(process.name, process.incarnation))

    # what is reported

    def on_launcher_died(self, event: p.LauncherDied, now: float) -> None:
        """Stages live on."""
        if not self._ending.leaving:
            self._desk.emit("launcher_died", "launcher", reason=event.reason)
        for process in self._births.lose_launcher(now):
            self._bury(process, "was never forked", now)
        if self._ending.leaving:
            self._births.cease()

    def on_failed(self, event: p.Failed, now: float) -> None:
        """A process says why it is about to die."""
        process = self._roster[event.name]
        self._desk.emit("stage_failed", event.name, phase=event.phase, reason=event.reason)
        if process.incarnation == event.incarnation:
            process.said = event.reason
        elif (heir := process.heir(event.incarnation)) is not None:
            heir.said = event.reason

    def on_fork_failed(self, event: p.ForkFailed, now: float) -> None:
        self.on_died(p.Died(event.name, event.incarnation, f"cannot be forked: {event.reason}"), now)

    def on_died(self, event: p.Died, now: float) -> None:
        process = self._roster[event.name]
        if (heir := process.heir(event.incarnation)) is not None:
            self._bury_successor(process, heir.said or event.reason, now)
        elif process.incarnation == event.incarnation and process.alive:
            bare = event.killed and process.said is None
            if not process.expected and self._poison.died(process.name, event.inside, killed=bare):
                self._desk.emit("records_suspected", process.name, records=told(event.inside))
            self._bury(process, event.reason, now)

    def on_judged(self, event: p.Judged, now: float) -> None:
        """A trial is over. Guilty rows are skipped from the next reset on, and no fault of the stage's."""
        self._generations.judged(event)
        process = self._roster[event.name]
        if process.incarnation != event.incarnation or event.guilty is None:
            return
        if not event.guilty:
            self._poison.judged(event.name)
        else:  # still suspected: the next trial says whether the batch is survived without them, or looks further
            process.intensity.forget()
            if event.generation == self._generations.current and self._ending.closing is None:
                self._generations.reset(f"{event.guilty} of {event.name}'s records put aside")

    # what follows

    def _bury(self, process: Process, reason: str, now: float) -> None:
        expected = process.expected
        process.move(Input.DIED, now)
        process.pid = 0
        process.unwatch()
        if not expected:
            process.last_reason = process.said or reason
            self._desk.emit("stage_died", process.name, reason=process.last_reason)
        if self._ending.leaving:
            return
        if self._ending.closing is not None:
            self._ending.bid_farewell()
            return
        self._replace(process, expected, now)
        if not process.service and process.successor is None:
            self._generations.reset(f"{process.name} {'left' if expected else 'died'}")

    def _replace(self, process: Process, expected: bool, now: float) -> None:
        if not process.wanted or process.successor is not None:
            return  # a successor takes over in `promote`
        if not expected:
            self._schedule(process, now)
            return
        process.count_restart(Cause.PLANNED)
        self._births.fork(process, now)

    def _schedule(self, process: Process, now: float) -> None:
        """After an unexpected death: again at once, later, or not at all."""
        decision = process.intensity.died(now)
        if isinstance(decision, GiveUp):
            self._give_up(process, decision.count, now)
            return
        process.count_restart(cause_of(process.last_reason or ""))
        if decision.at <= now:
            self._births.fork(process, now)
            return
        process.move(Input.RETRY, now, decision.at)
        delay, window = decision.at - now, process.intensity.window
        self._desk.emit("stage_restart_scheduled", process.name, delay=delay, count=decision.count, window=window)

    def _give_up(self, process: Process, count: int, now: float) -> None:
        process.last_reason = f"died {count} times in a row, last: {process.last_reason}"
        process.move(Input.GIVE_UP, now)
        self._desk.emit("stage_given_up", process.name, reason=process.last_reason)
        self._fail_wishes(process.name, f"{process.name} failed: {process.last_reason}", now)

    # successors

    def promote(self, now: float) -> None:
        """Let loaded successors take over: all that one wish has named together, so that there is one reset. While a
        generation runs, that comes behind an epoch with which the sources hold, however slow its barrier is."""
        waiting = self._roster.awaiting
        heirs = [stage.successor for stage in waiting if stage.successor is not None]
        if not waiting or not all(heir.loaded for heir in heirs):
            return
        patient = not any(heir.hurry for heir in heirs) and all(stage.stays for stage in waiting)
        if patient and self._generations.running and not self._generations.epochs.held:
            self._generations.hold(now, ahead=True)
            return
        for stage in waiting:
            if stage.stays:
                self.ask(stage, now)
        if any(stage.alive for stage in waiting):
            return
        for stage in waiting:
            stage.take_over(now)
        what = "reload" if any(heir.renewed for heir in heirs) else "restart"
        self._generations.reset(f"{what} of {', '.join(stage.name for stage in waiting)}")

    def drop_successor(self, process: Process, now: float) -> None:
        """Nobody wants it any more, loaded or not. A reload that waits for it ends with it, as a whole."""
        heir = process.successor
        if heir is None:
            return
        self._desk.put(p.Kill(process.name, heir.incarnation))
        process.successor = None
        self._miss_successor(process, now)
        wish = self._operations.reload_of(process.name, heir.incarnation)
        if wish is not None:
            self._operations.take(wish)
            self._fail_wish(wish, f"{process.name}: another command has ended the successor, the old one stays", now)

    def _bury_successor(self, process: Process, reason: str, now: float) -> None:
        process.successor = None
        self._desk.emit("stage_died", process.name, reason=f"successor: {reason}")
        self._fail_wishes(process.name, f"{process.name}'s successor failed, the old one stays: {reason}", now)
        self._miss_successor(process, now)

    def _miss_successor(self, process: Process, now: float) -> None:
        """Nobody takes over: if the old one has gone meanwhile, its death is an ordinary one after all."""
        if process.wanted and process.state is State.STOPPED and self._ending.closing is None:
            self._schedule(process, now)
            self._generations.reset(f"{process.name} died")

    def _fail_wishes(self, name: str, reason: str, now: float) -> None:
        """What an operator wanted of this process and of those named with it cannot come about."""
        for wish in self._operations.about(name):
            self._fail_wish(wish, reason, now)

    def _fail_wish(self, wish: Wish, reason: str, now: float) -> None:
        """It has been taken off. Successors that a reload has taken over from it stay."""
        for other in wish.names if not wish.adopted else ():
            heir = self._roster[other].successor
            if heir is not None and self._operations.reload_of(other, heir.incarnation) is None:
                self.drop_successor(self._roster[other], now)
        self._desk.put(p.Answer(wish.ticket, ExitCode.FAILED, reason))


def told(spans: p.Spans) -> str:
    """For people: where records came from.

    >>> told((("", "a", 5, 1), ("left", "b", 0, 10)))
    'a 5, b 0 to 9 via left'
    """
    return ", ".join(
        f"{source} {first}" + (f" to {first + n - 1}" if n > 1 else "") + (f" via {via}" if via else "")
        for via, source, first, n in spans
    )
