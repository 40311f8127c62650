"""Who holds which slot of the memory that one stage shares with those behind it: the owner's side. Pure.

The memory is divided into slots of one size. A batch takes one, held as often as there are readers that get it. Who is
done with a batch gives its hold back; who passes it on to several adds those before anybody can see them, so that the
count never is zero while somebody may read. At zero the slot may be written again, not before.

The size of a slot follows the batches. One that does not fit goes another way, and when every slot has come back the
memory is divided anew: batches grow a few times in the life of a stream, and nobody has to move.
"""

from __future__ import annotations

from typing import Final

from streampiped.errors import FrameError

SLOT_STEP_BYTES: Final = 4096  # a page: no two slots share one
SLOTS_MIN: Final = 2  # one is written while the other is read; a larger batch has no place in the memory
SLOTS_MAX: Final = 64  # more than the pipeline has use for: what is returned must fit into a pipe, unread
SLOTS_EACH: Final = 2  # for each stage that may be shown one, when they are large: what it works on, and what is next


class Slots:
    """The slots of one stage in one generation, `size` bytes together, at most `most` of them. No more than half of the
    memory is used, unless that is less than SLOTS_EACH for each of `readers`: more batches on their way make nobody
    faster, and every slot that was taken once stays in memory."""

    __slots__ = ("_enough", "_free", "_generation", "_holds", "_most", "_size", "_slot_bytes", "_wanted")

    def __init__(self, generation: int, size: int, most: int = SLOTS_MAX, readers: int = SLOTS_MAX) -> None:
        self._generation = generation
        self._size = size
        self._most = most
        self._enough = SLOTS_EACH * readers
        self._slot_bytes = 0
        self._wanted = 0  # bytes of a slot, once every slot is free
        self._holds: list[int] = []
        self._free: list[int] = []

    @property
    def largest(self) -> int:
        """Bytes of the largest batch that has a place."""
        return self._size // SLOTS_MIN // SLOT_STEP_BYTES * SLOT_STEP_BYTES

    @property
    def held(self) -> tuple[int, ...]:
        """How often each slot is held."""
        return tuple(self._holds)

    def may_take(self) -> bool:
        """Whether `take` can be asked. If not, something has to come back first."""
        if self._wanted:
            return len(self._free) == len(self._holds)
        return bool(self._free) or not self._holds

    def take(self, size: int, holds: int) -> int | None:
        """The slot for a batch of `size` bytes that goes to `holds` readers; None when it has no place."""
        assert self.may_take(), "no slot is free"
        if size > self.largest or not holds:
            return None
        if size > self._slot_bytes:
            self._wanted = max(self._wanted, min(max(_stepped(size), 2 * self._slot_bytes), self.largest))
        if self._wanted:
            if len(self._free) < len(self._holds):
                return None
            self._divide()
        slot = self._free.pop()
        self._holds[slot] = holds
        return slot

    def stretch(self, slot: int) -> slice:
        """Its bytes."""
        return slice(slot * self._slot_bytes, (slot + 1) * self._slot_bytes)

    def changed(self, slot: int, generation: int, holds: int) -> bool:
        """A reader says that `slot` is held by so many more (or, below zero, fewer); whether it is free now. FrameError
        for what nobody can have said who keeps the rules."""
        if generation != self._generation or slot >= len(self._holds):
            raise FrameError(
                f"slot {slot} of generation {generation}, there are {len(self._holds)} of {self._generation}"
            )
        left = self._holds[slot] + holds
        if left < 0 or not self._holds[slot]:
            raise FrameError(f"slot {slot} was held {self._holds[slot]} times, and changes by {holds}")
        self._holds[slot] = left
        if not left:
            self._free.append(slot)  # taken next: its memory is still in the cache
        return not left

    def _divide(self) -> None:
        """Nobody holds anything: cut the memory into slots of the size that is wanted."""
        self._slot_bytes, self._wanted = self._wanted, 0
        enough = max(self._enough, self._size // 2 // self._slot_bytes)
        count = min(self._most, enough, self._size // self._slot_bytes)
        self._holds = [0] * count
        self._free = list(range(count))[::-1]


def _stepped(size: int) -> int:
    return -(-size // SLOT_STEP_BYTES) * SLOT_STEP_BYTES
