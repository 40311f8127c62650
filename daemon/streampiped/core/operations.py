"""What operators have asked for and has not come about yet. One wish at a time is worked on; stop beats the others.

Pure. A wish that has timed out is answered and still worked on: a client that goes away does not undo what it asked.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from streampiped.core.epoch_commands import Change
from streampiped.core.protocol import Verb

Kind: TypeAlias = Verb | Literal["checkpoint", "change"]


@dataclass(slots=True)
class Wish:
    """`deadline`: when the operator wants an answer at the latest (None: has had it). `force`: a restart that waits for
    no barrier. `change`: of a "change". `epoch`: the one that a "checkpoint" waits for, once it is at work."""

    ticket: int
    verb: Kind
    names: tuple[str, ...]
    timeout: float
    deadline: float | None
    force: bool = False
    change: Change | None = None
    epoch: int = 0


class Operations:
    """A queue with at most one wish at work."""

    def __init__(self) -> None:
        self._queue: deque[Wish] = deque()
        self._current: Wish | None = None

    def add(self, wish: Wish, *, halts: bool = False) -> list[Wish]:
        """Queue a wish. A stop goes first and removes every start and restart that names one of its stages and, when it
        `halts` the pipeline, whatever waits for an epoch; these are returned, also those whose operators have had an
        answer."""
        if wish.verb != "stop":
            self._queue.append(wish)
            return []
        beaten = [w for w in self._all() if w.verb in ("start", "restart") and set(w.names) & set(wish.names)]
        for loser in beaten:
            self._remove(loser)
        if halts:
            beaten += self.take_epochs()
        self._queue.appendleft(wish)
        return beaten

    def take_epochs(self) -> list[Wish]:
        """Take off whatever waits for an epoch: there will be none until an operator says start."""
        waiting = [wish for wish in self._all() if wish.verb in ("checkpoint", "change")]
        for wish in waiting:
            self._remove(wish)
        return waiting

    def next(self) -> Wish | None:
        """The wish to begin now, or None while one is at work or none waits. One whose operator has had an answer is
        begun, and holds up nobody: it may never come about."""
        if self._current is not None or not self._queue:
            return None
        wish = self._queue.popleft()
        self._current = wish if wish.deadline is not None else None
        return wish

    def due(self, is_done: Callable[[Wish], bool]) -> list[Wish]:
        """The wish at work, if it has come about; it is taken off. Empty if its operator has had an answer."""
        wish = self._current
        if wish is None or not is_done(wish):
            return []
        self._current = None
        return [wish] if wish.deadline is not None else []

    def timed_out(self, now: float) -> list[Wish]:
        """Wishes whose operators have waited long enough, each once."""
        late = [w for w in self._all() if w.deadline is not None and now >= w.deadline]
        for wish in late:
            wish.deadline = None
            if wish is self._current:  # what it began goes on by itself, and must not hold up what is asked next
                self._current = None
        return late

    def about(self, name: str) -> list[Wish]:
        """Take off the wish at work if it wants `name` to run and cannot have it."""
        wish = self._current
        if wish is None or wish.verb not in ("start", "restart") or name not in wish.names:
            return []
        self._current = None
        return [wish] if wish.deadline is not None else []

    def clear(self) -> list[Wish]:
        """Take off everything; returned are those that somebody waits for."""
        waiting = [wish for wish in self._all() if wish.deadline is not None]
        self._queue.clear()
        self._current = None
        return waiting

    def deadline(self) -> float | None:
        return min((w.deadline for w in self._all() if w.deadline is not None), default=None)

    def _all(self) -> list[Wish]:
        return ([self._current] if self._current is not None else []) + list(self._queue)

    def _remove(self, wish: Wish) -> None:
        if wish is self._current:
            self._current = None
        else:
            self._queue.remove(wish)
