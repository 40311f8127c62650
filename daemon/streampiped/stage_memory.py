"""The memory that one stage shares in one generation: where its batches lie, and what it holds of others'.

A batch of the stage takes a slot of its own memory (`core/slots.py`). Of a batch that comes in, the parts that lie in
somebody's memory are seen, not copied; those that the stage hands on untouched are named again to its own readers, as
often as there are, and its hold is given back when `process` has returned.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from streampiped.core.slots import SLOTS_MAX, Slots
from streampiped.records import Batch, Block, Place
from streampiped.runtime.slots import give_back, mapped, read_returns, returns_unread
from streampiped.topology import Plan
from streampiped.wire.frames import parts_of

Bytes: TypeAlias = NDArray[np.uint8]

INLINE_BYTES: Final = 32 << 10
"""What a stage adds to a batch goes through the pipe below this, with the header. A slot costs its owner 3 to 6
us of CPU, to copy 17 KB through a pipe costs each reader 3 us, 35 KB 8 us (docs/decisions/shared-memory.md)."""

POISON: Final = 0xFF
"""Of every byte: NaN as a float, -1 as an integer."""


class Sharing:
    """What a stage shares and holds, wherever the memory and the word of its readers come from: that is for subclasses,
    of which the simulation has one of its own (tests/sim/memory.py)."""

    def __init__(self, plan: Plan, name: str, inline_bytes: int = INLINE_BYTES) -> None:
        self._poison = plan.links.poison
        self._inline_bytes = inline_bytes
        self._readers = len(plan.outputs(name))
        self._shown = sum(name in plan.seen(spec.name) for spec in plan.stages)
        self._number = plan.number(name)
        self._lends = frozenset(plan.number(each) for each in plan.lends(name))
        self._slots: Slots | None = None
        self._own: Bytes = np.zeros(0, np.uint8)
        self._held: dict[tuple[int, int], int] = {}
        """(owner, slot) of the batch at hand -> by how much our holds of it change when we are done."""
        self.views: dict[int, Bytes] = {}
        """What a frame may name, by the owner's number. Read-only."""

    # what subclasses know

    def _give(self, owner: int, slot: int, holds: int) -> None:
        """Say to an owner by how much the holds of its slot change."""
        raise NotImplementedError

    def _returns(self) -> Iterable[tuple[int, int, int]]:
        """What our readers have said since we last asked, in the order in which they did: (slot, holds, generation)."""
        raise NotImplementedError

    # what we write

    def may_place(self) -> bool:
        """Whether a batch may be placed: there is a slot, or none is needed."""
        if self._slots is None or (self._slots.may_take() and not self._poison):
            return True
        self._collect()
        return self._slots.may_take()

    def place(self, batch: Batch) -> list[Place | None]:
        """Where each part of a batch that all our readers get now lies; none of them when no part lies anywhere. Parts
        of the batch at hand stay where they are; the others are copied into a slot, if they are worth it."""
        if not self._held and batch.floats.nbytes + batch.ints.nbytes < self._inline_bytes:
            return []
        parts = parts_of(batch)
        places: list[Place | None] = [self._lent(part.place) for part in parts]
        for owner, slot in {(place.owner, place.slot) for place in places if place is not None}:
            self._pass_on(owner, slot)
        if None not in places:
            return places
        size = sum([part.nbytes for part, place in zip(parts, places, strict=True) if place is None])
        if self._slots is None or size < self._inline_bytes or not self._slots.may_take():
            return places  # the last: of a source that gives a batch in pieces
        free = self._slots.take(size, self._readers)
        if free is not None:
            self._copy_to(free, parts, places)
        return places

    # what we read

    def hold(self, batch: Batch) -> None:
        """The batch at hand, as it came: we hold every slot that it names."""
        for block in (batch.floats, batch.ints):
            for part in block.parts:
                if part.place is not None:
                    self._held[part.place.owner, part.place.slot] = -1

    def done(self) -> None:
        """Nobody looks at the batch at hand any more."""
        if self._held:
            for (owner, slot), change in self._held.items():
                if change:
                    self._give(owner, slot, change)
            self._held.clear()

    def _forget(self) -> None:
        """What we hold dies with the generation."""
        self._held.clear()
        self.views.clear()  # in place: the readers of frames have it
        self._slots, self._own = None, np.zeros(0, np.uint8)

    def _copy_to(self, slot: int, parts: Sequence[Block], places: list[Place | None]) -> None:
        """Copy the parts that have no place side by side into our slot, which is theirs then."""
        assert self._slots is not None
        offset = self._slots.stretch(slot).start
        for at, part in enumerate(parts):
            if places[at] is None:
                self._own[offset : offset + part.nbytes] = part.data.view(np.uint8)
                places[at] = Place(self._number, slot, offset)
                offset += part.nbytes

    def _lent(self, place: Place | None) -> Place | None:
        """The place, if we hold it and all our readers see it. What was kept of an earlier batch is not held."""
        if place is None or place.owner not in self._lends or not self._held.get((place.owner, place.slot)):
            return None
        return place

    def _pass_on(self, owner: int, slot: int) -> None:
        """Our hold becomes that of our readers: of one as it is, of several once the owner can know of them, which
        has to be before they do."""
        self._held[owner, slot] = 0
        if self._readers > 1:
            self._give(owner, slot, self._readers - 1)

    def _collect(self) -> None:
        assert self._slots is not None
        for slot, holds, generation in self._returns():
            if self._slots.changed(slot, generation, holds) and self._poison:
                self._own[self._slots.stretch(slot)] = POISON


class StageMemory(Sharing):
    """`on_idle()` comes when a slot is free again, after `may_place` has said that none is."""

    def __init__(self, plan: Plan, name: str, loop: asyncio.AbstractEventLoop, on_idle: Callable[[], None]) -> None:
        super().__init__(plan, name)
        self._loop = loop
        self._on_idle = on_idle
        self._owner = name in plan.owners()
        self._copies = plan.copies()[name]
        self._seen = tuple(plan.number(each) for each in plan.seen(name))
        self._generation = 0
        self._returned = -1
        self._returning: dict[int, int] = {}

    def open(self, generation: int, descriptors: Sequence[int]) -> None:
        """Take what `LinkTable.ends` gives beside the links."""
        self._generation = generation
        pairs = list(zip(descriptors[::2], descriptors[1::2], strict=True))
        if self._owner:
            (memory, self._returned), *pairs = pairs
            self._own = _bytes_of(memory, writable=True)
            if self._number in self._lends:
                most = returns_unread(self._returned) // self._copies  # a stage with very many pipes gets small ones
                self._slots = Slots(generation, self._own.size, min(SLOTS_MAX, most), self._shown)
        for number, (memory, returning) in zip(self._seen, pairs, strict=True):
            self.views[number] = _bytes_of(memory, writable=False)
            self._returning[number] = returning

    def close(self) -> None:
        """Forget all of it."""
        if self._returned >= 0:
            self._loop.remove_reader(self._returned)
            os.close(self._returned)
            self._returned = -1
        for fd in self._returning.values():
            os.close(fd)
        self._returning.clear()
        self._forget()

    def may_place(self) -> bool:
        """As above; if not, `on_idle` comes as soon as it may."""
        if super().may_place():
            return True
        self._loop.add_reader(self._returned, self._came_back)
        return False

    def _came_back(self) -> None:
        if super().may_place():
            self._loop.remove_reader(self._returned)
            self._on_idle()

    def _give(self, owner: int, slot: int, holds: int) -> None:
        give_back(self._returning[owner], slot, holds, self._generation)

    def _returns(self) -> Iterable[tuple[int, int, int]]:
        return read_returns(self._returned)


def _bytes_of(fd: int, *, writable: bool) -> Bytes:
    """The memory as an array; the descriptor is closed."""
    try:
        return np.frombuffer(mapped(fd, writable=writable), np.uint8)
    finally:
        os.close(fd)
