"""What operators have asked for and has not come about yet. One wish at a time is begun; stop beats the others.

Pure. A wish that has timed out is answered, still worked on, and answered once more when it has ended: a client that
goes away does not undo what it asked.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from streampiped.core.epoch_commands import Change
from streampiped.core.protocol import Verb
from streampiped.topology import Plan

Kind: TypeAlias = Verb | Literal["checkpoint", "change", "reload"]


@dataclass(slots=True)
class Wish:
    """`deadline`: when the operator wants to hear of it at the latest (None: has been told that it takes longer).
    `force`: a restart that waits for no barrier. `change`: of a "change". `epoch`: the one that a "checkpoint" waits
    for, once it is at work. Of a "reload": `plan`; `heirs`, by name the incarnations of the successors that it waits
    for; `adopted`: the plan has taken effect."""

    ticket: int
    verb: Kind
    names: tuple[str, ...]
    timeout: float
    deadline: float | None
    force: bool = False
    change: Change | None = None
    epoch: int = 0
    plan: Plan | None = None
    heirs: dict[str, int] = field(default_factory=dict)
    adopted: bool = False

    @property
    def brings(self) -> bool:
        """It wants its processes to run, and has not come so far yet that another wish cannot take them away."""
        return self.verb in ("start", "restart") or (self.verb == "reload" and not self.adopted)


class Operations:
    """A queue; one wish at work that the next ones wait for; and those at work beside it that nobody waits for."""

    def __init__(self) -> None:
        self._queue: deque[Wish] = deque()
        self._current: Wish | None = None
        self._beside: list[Wish] = []

    def add(self, wish: Wish, *, halts: bool = False) -> list[Wish]:
        """Queue a wish. A stop goes first and removes every start, restart and reload that names one of its stages and,
        when it `halts` the pipeline, whatever waits for an epoch; these are returned."""
        if wish.verb != "stop":
            self._queue.append(wish)
            return []
        beaten = [w for w in self._all() if w.brings and set(w.names) & set(wish.names)]
        for loser in beaten:
            self._remove(loser)
        self._queue.appendleft(wish)
        return beaten + (self.take_epochs() if halts else [])

    def take_stops(self, wish: Wish) -> list[Wish]:
        """Take off the stops that nobody waits for any more and that `wish`, a start or restart, makes impossible."""
        return self._take(lambda w: w is not wish and w.verb == "stop" and bool(set(w.names) & set(wish.names)))

    def join(self, wish: Wish) -> None:
        """It is at work already, by another one."""
        self._beside.append(wish)

    def take_epochs(self) -> list[Wish]:
        """Take off whatever waits for an epoch: there will be none until an operator says start."""
        waiting = [wish for wish in self._all() if wish.verb in ("checkpoint", "change")]
        for wish in waiting:
            self._remove(wish)
        return waiting

    def next(self) -> Wish | None:
        """The wish to begin now, or None while one is at work or none waits. One that has timed out in the queue is
        begun, and holds up nobody: it may never come about."""
        if self._current is not None or not self._queue:
            return None
        wish = self._queue.popleft()
        if wish.deadline is None:
            self._beside.append(wish)
        else:
            self._current = wish
        return wish

    def due(self, is_done: Callable[[Wish], bool]) -> list[Wish]:
        """The wishes at work that have come about; they are taken off."""
        return self._take(is_done)

    def timed_out(self, now: float) -> list[Wish]:
        """Wishes whose operators have waited long enough, each once."""
        late = [w for w in self._all() if w.deadline is not None and now >= w.deadline]
        for wish in late:
            wish.deadline = None
            if wish is self._current:  # what it began goes on by itself, and must not hold up what is asked next
                self._current = None
                self._beside.append(wish)
        return late

    def about(self, name: str) -> list[Wish]:
        """Take off the wishes at work that want `name` to run and cannot have it."""
        return self._take(lambda wish: wish.verb in ("start", "restart", "reload") and name in wish.names)

    @property
    def reload(self) -> Wish | None:
        """The reload that is at work and has not taken effect."""
        return next((w for w in self._at_work() if w.verb == "reload" and not w.adopted), None)

    def reload_of(self, name: str, incarnation: int) -> Wish | None:
        """The reload that waits for this successor."""
        wish = self.reload
        return wish if wish is not None and wish.heirs.get(name) == incarnation else None

    def take(self, wish: Wish) -> None:
        """It will not come about."""
        self._remove(wish)

    def clear(self) -> list[Wish]:
        """Take off everything."""
        everything = self._all()
        self._queue.clear()
        self._beside.clear()
        self._current = None
        return everything

    def is_queued(self, wish: Wish) -> bool:
        return wish in self._queue

    def deadline(self) -> float | None:
        return min((w.deadline for w in self._all() if w.deadline is not None), default=None)

    def _take(self, is_wanted: Callable[[Wish], bool]) -> list[Wish]:
        taken = [wish for wish in self._at_work() if is_wanted(wish)]
        for wish in taken:
            self._remove(wish)
        return taken

    def _at_work(self) -> list[Wish]:
        return [*([self._current] if self._current is not None else []), *self._beside]

    def _all(self) -> list[Wish]:
        return [*self._at_work(), *self._queue]

    def _remove(self, wish: Wish) -> None:
        if wish is self._current:
            self._current = None
        elif wish in self._beside:
            self._beside.remove(wish)
        else:
            self._queue.remove(wish)
