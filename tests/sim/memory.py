"""Memory that stages share, simulated: real frames name real bytes, and the daemon's own accounting says whose they
are.

A slot that is free is overwritten at once, and every stage looks at the marks of its rows: who reads what somebody may
write finds garbage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Final

from sim.stages import Node
from sim.world import Actor, ViolationError, World
from streampiped.aligned import ITEM_BYTES, aligned_empty
from streampiped.core.slots import SLOT_STEP_BYTES, Slots
from streampiped.errors import FrameError
from streampiped.stage_memory import Bytes, Sharing
from streampiped.topology import Links, Paths, Plan, StageSpec

PACE_S: Final = 0.002  # from a word of a reader to the owner's look at it


@cache
def plan_of(nodes: tuple[Node, ...], slots: int) -> Plan:
    """What the daemon's plan says of who shows what to whom, in memories of so many slots."""
    stages = tuple(StageSpec(node.name, "sim:Stage", "transform", node.inputs) for node in nodes)
    links = Links(buffer_bytes=slots * SLOT_STEP_BYTES, poison=True)
    return Plan("sim", 0, "", Paths("", "", ""), stages, links=links)


class Memory:
    """That of one stage in one generation, and the pipe on which its readers say what they hold."""

    __slots__ = ("data", "generation", "said", "waits")

    def __init__(self, size: int, generation: int) -> None:
        self.generation = generation
        self.data: Bytes = aligned_empty(size // ITEM_BYTES, "u1")
        self.said: list[tuple[int, int, int]] = []
        self.waits: tuple[Actor, Callable[[], None]] | None = None
        """The owner, and what to do when something is said."""


class Shared(Sharing):
    """What one simulated process shares and holds."""

    def __init__(self, plan: Plan, name: str, world: World, owner: Actor, on_idle: Callable[[], None]) -> None:
        super().__init__(plan, name, inline_bytes=1)
        self._world = world
        self._wakes = owner, on_idle
        self._name = name
        self._plan = plan
        self._generation = 0
        self._memory: Memory | None = None
        self._others: dict[int, Memory] = {}

    def open(self, generation: int, memories: Mapping[str, Memory]) -> None:
        """As `StageMemory.open`, of those that the plan shows it."""
        self._generation = generation
        for name in (self._name, *self._plan.seen(self._name)):
            if name in memories and memories[name].generation != generation:
                raise ViolationError(f"{self._name} is given memory of generation {memories[name].generation}")
        if self._number in self._lends:
            self._memory = memories[self._name]
            if self._memory.said:
                raise ViolationError(f"{self._name} starts, and somebody has said {self._memory.said}")
            self._own = self._memory.data
            self._slots = Slots(generation, self._own.size, readers=self._shown)
        self._others = {self._plan.number(name): memories[name] for name in self._plan.seen(self._name)}
        for number, memory in self._others.items():
            view = memory.data.view()
            view.flags.writeable = False
            self.views[number] = view

    def close(self) -> None:
        """Nobody wakes it any more, and it gives nothing back."""
        if self._memory is not None:
            self._memory.waits = None
            self._memory = None
        self._others = {}
        self._forget()

    @property
    def waits(self) -> bool:
        """Whether it has no slot, and waits for one."""
        return self._memory is not None and self._memory.waits is not None

    def may_place(self) -> bool:
        if super().may_place():
            return True
        assert self._memory is not None
        self._memory.waits = self._wakes
        return False

    def settled(self) -> None:
        """Nothing is under way any more: every slot is free again."""
        if self._slots is not None:
            self._collect()
            if any(self._slots.held):
                raise ViolationError(f"{self._name} has lost slots: they are held {self._slots.held} times")

    def _give(self, owner: int, slot: int, holds: int) -> None:
        memory = self._others[owner]
        memory.said.append((slot, holds, self._generation))
        if memory.waits is not None:
            actor, deed = memory.waits
            memory.waits = None
            self._world.after(PACE_S, actor, deed)

    def _returns(self) -> Iterable[tuple[int, int, int]]:
        assert self._memory is not None
        said, self._memory.said = self._memory.said, []
        return said

    def _collect(self) -> None:
        try:
            super()._collect()
        except FrameError as error:
            raise ViolationError(f"{self._name} hears of {error}") from error


def memories_of(plan: Plan, generation: int) -> dict[str, Memory]:
    """Fresh, of every owner."""
    return {name: Memory(size, generation) for name, size in plan.owners().items()}
