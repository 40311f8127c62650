"""The clock, the order in which things happen, and chance: all of it from one seed."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from typing import Any, TypeAlias

from sim.disk import Disk

Deed: TypeAlias = "tuple[float, int, Actor, Callable[..., None], tuple[Any, ...]]"
"""When, in which order of those that were said, whose, what."""


class ViolationError(AssertionError):
    """The law does not hold."""


class Actor:
    """Somebody who does things: what was to happen to him does not, once he is dead, and waits while he is stopped."""

    def __init__(self) -> None:
        self.alive = True
        self.thaw = 0.0
        """SIGSTOP until then. For `World.freeze` and `World.unfreeze` to set."""
        self.parked: list[Deed] = []


ETERNAL = Actor()
"""Who cannot die: fate, and the outer world."""


class World:
    """One seed's world."""

    def __init__(self, seed: int, *, told: bool = False) -> None:
        self.random = random.Random(seed)
        self.chance = self.random.random
        self.now = 100.0
        self.steps = 0
        self.disk = Disk(self.random)
        self.story: list[str] | None = [] if told else None
        self._heap: list[Deed] = []
        self._count = 0

    def at(self, when: float, actor: Actor, deed: Callable[..., None], *args: Any) -> None:
        """Let `deed(*args)` happen at `when`, if the actor lives then. What was said first of two at the same time
        happens first."""
        self._count += 1
        heapq.heappush(self._heap, (when, self._count, actor, deed, args))

    def after(self, scale: float, actor: Actor, deed: Callable[..., None], *args: Any) -> float:
        """The same, some time later: mostly less than `scale`, sometimes several times as long. Returns when."""
        r = self.chance()
        when = self.now + scale * r * r * r * 4.0
        self.at(when, actor, deed, *args)
        return when

    def lag(self, scale: float) -> float:
        """How long a message is on its way: as `after`, and now and then for long."""
        r = self.chance()
        return scale * (80.0 if r > 0.98 else r * r * r * 4.0)

    def step(self) -> bool:
        """The next thing happens; False: nothing will."""
        heap = self._heap
        while heap:
            next_one = heapq.heappop(heap)
            when, _, actor, deed, args = next_one
            if not actor.alive:
                continue
            if actor.thaw > max(when, self.now):
                actor.parked.append(next_one)
                continue
            self.now = max(self.now, when)  # who was stopped may have things to do that are long past
            self.steps += 1
            deed(*args)
            return True
        return False

    def freeze(self, actor: Actor, seconds: float) -> None:
        """SIGSTOP, and SIGCONT later."""
        actor.thaw = self.now + seconds
        self.at(actor.thaw, ETERNAL, self._thaw, actor, actor.thaw)

    def unfreeze(self, actor: Actor) -> None:
        """SIGCONT: whatever was to happen meanwhile happens now, in its order."""
        actor.thaw = 0.0
        for deed in actor.parked:
            heapq.heappush(self._heap, deed)
        actor.parked.clear()

    def _thaw(self, actor: Actor, until: float) -> None:
        if actor.thaw == until:  # nobody has stopped it again
            self.unfreeze(actor)

    def tell(self, who: str, what: str) -> None:
        """A line of the story. Callers look at `story` first where words cost much."""
        if self.story is not None:
            self.story.append(f"{self.steps:6d} {self.now - 100.0:9.4f}  {who:12s} {what}")
