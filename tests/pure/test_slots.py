"""The slots of a stage's shared memory: never written while somebody may read, and always free again in the end."""

from __future__ import annotations

from collections import deque
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from streampiped.core.slots import SLOT_STEP_BYTES, SLOTS_MAX, SLOTS_MIN, Slots
from streampiped.errors import FrameError

GENERATION = 3
SIZE = 16 * SLOT_STEP_BYTES


def test_a_slot_is_free_when_all_have_given_it_back() -> None:
    """Two readers hold it; the first to give it back frees nothing, the second does, and it is taken next."""
    slots = Slots(GENERATION, SIZE)
    first = slots.take(100, 2)
    assert first is not None
    assert not slots.changed(first, GENERATION, -1)
    assert slots.take(100, 1) != first
    assert slots.changed(first, GENERATION, -1)
    assert slots.take(100, 1) == first


def test_without_a_free_slot_the_writer_waits() -> None:
    """Memory is bounded: as many batches as there are slots, then nothing until one comes back."""
    slots = Slots(GENERATION, SIZE)
    taken = 0
    while slots.may_take():
        slots.take(SLOT_STEP_BYTES, 1)
        taken += 1
    assert taken == 16
    slots.changed(5, GENERATION, -1)
    assert slots.may_take()


def test_slots_do_not_overlap_and_fit() -> None:
    """However the memory is divided, slots lie side by side on page boundaries within it, and there are at most
    SLOTS_MAX."""
    for size in (1, SLOT_STEP_BYTES, SLOT_STEP_BYTES + 1, SIZE // SLOTS_MIN):
        for memory in (SIZE, 1 << 24):
            slots = Slots(GENERATION, memory)
            taken = []
            while slots.may_take():
                taken.append(slots.take(size, 1))
            begins = sorted(slots.stretch(slot).start for slot in taken if slot is not None)
            assert len(begins) == len(taken) <= SLOTS_MAX
            assert all(begin % SLOT_STEP_BYTES == 0 for begin in begins)
            assert all(after - before >= size for before, after in pairwise(begins))
            assert begins[-1] + size <= memory


@pytest.mark.parametrize(
    ("pages", "readers", "count"),
    [
        (1, 1, 64),  # of 4 KiB in 1 MiB: as many as there may be
        (4, 1, 32),  # half of the memory
        (16, 4, 8),  # the same
        (20, 4, 8),  # half would be 6, too few for four readers
        (20, 9, 12),  # all that fit
        (100, 4, 2),
    ],
)
def test_large_slots_do_not_fill_the_memory(pages: int, readers: int, count: int) -> None:
    """Half of the memory is used, or two slots for each reader where that is more; never more than there is, nor more
    than SLOTS_MAX."""
    slots = Slots(GENERATION, 256 * SLOT_STEP_BYTES, readers=readers)
    taken = 0
    while slots.may_take():
        assert slots.take(pages * SLOT_STEP_BYTES, 1) is not None
        taken += 1
    assert taken == count


def test_what_is_too_large_has_no_place() -> None:
    """One batch of all the memory would be written only when the last had been read by everybody."""
    slots = Slots(GENERATION, SIZE)
    assert slots.take(SIZE // SLOTS_MIN + 1, 1) is None
    assert slots.may_take()
    assert slots.take(SIZE // SLOTS_MIN, 1) is not None


def test_larger_batches_get_larger_slots() -> None:
    """A batch that does not fit has no place, and the next ones wait until all slots are free: then they fit."""
    slots = Slots(GENERATION, SIZE)
    small = [slots.take(SLOT_STEP_BYTES, 1), slots.take(SLOT_STEP_BYTES, 1)]
    assert slots.take(3 * SLOT_STEP_BYTES, 1) is None
    for slot in small:
        assert slot is not None
        assert not slots.may_take()
        slots.changed(slot, GENERATION, -1)
    large = slots.take(3 * SLOT_STEP_BYTES, 1)
    assert large is not None
    assert slots.take(3 * SLOT_STEP_BYTES, 1) not in (None, large)


@pytest.mark.parametrize(
    ("slot", "generation", "holds"),
    [(0, GENERATION - 1, -1), (0, GENERATION, -2), (1, GENERATION, -1), (99, GENERATION, 1)],
)
def test_what_nobody_can_have_said(slot: int, generation: int, holds: int) -> None:
    """A slot of another generation, one that nobody holds, one that is not there: the owner fails."""
    slots = Slots(GENERATION, SIZE)
    assert slots.take(100, 1) == 0
    with pytest.raises(FrameError):
        slots.changed(slot, generation, holds)


class Sharing(RuleBasedStateMachine):
    """An owner, and readers that pass on and give back in any order, over one pipe that the owner reads when it likes.
    The rule of the readers: who passes a batch on to several says so before they can see it."""

    def __init__(self) -> None:
        super().__init__()
        self.slots = Slots(GENERATION, 6 * SLOT_STEP_BYTES)
        self.pipe: deque[tuple[int, int]] = deque()
        self.readers: dict[int, int] = {}
        """Slot -> how many may read it, in truth."""

    batches: Any = Bundle("batches")

    @rule(target=batches, size=st.integers(1, 4 * SLOT_STEP_BYTES), outputs=st.integers(1, 3))
    def write(self, size: int, outputs: int) -> Any:
        if not self.slots.may_take():
            return multiple()
        slot = self.slots.take(size, outputs)
        if slot is None:
            return multiple()
        assert not self.readers.get(slot), "written while somebody may read it"
        assert self.slots.stretch(slot).start + size <= 6 * SLOT_STEP_BYTES
        self.readers[slot] = outputs
        return multiple(*[slot] * outputs)

    @rule(target=batches, slot=consumes(batches), outputs=st.integers(0, 3))
    def process(self, slot: int, outputs: int) -> Any:
        """A reader gets a batch, and passes it on to so many."""
        if outputs != 1:
            self.pipe.append((slot, outputs - 1))
        self.readers[slot] += outputs - 1
        return multiple(*[slot] * outputs)

    @rule(count=st.integers(1, 5))
    def read(self, count: int) -> None:
        for _ in range(min(count, len(self.pipe))):
            slot, holds = self.pipe.popleft()
            self.slots.changed(slot, GENERATION, holds)

    @invariant()
    def nothing_is_lost(self) -> None:
        """What the owner believes and what lies in the pipe are together the truth."""
        counts = dict(enumerate(self.slots.held))
        for slot, holds in self.pipe:
            counts[slot] += holds
        assert {slot: count for slot, count in counts.items() if count} == {s: n for s, n in self.readers.items() if n}

    def teardown(self) -> None:
        """When all have given back everything, everything is free."""
        self.read(len(self.pipe))
        for slot, count in self.readers.items():
            for _ in range(count):
                self.slots.changed(slot, GENERATION, -1)
        assert not any(self.slots.held)
        assert self.slots.may_take()


TestSharing = Sharing.TestCase
TestSharing.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
