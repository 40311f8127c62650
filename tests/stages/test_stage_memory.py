"""The memory of a generation between real descriptors: the supervisor's table, an owner, and those behind it."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from streampiped.core.slots import SLOTS_MAX
from streampiped.records import Batch, Place
from streampiped.runtime.channel import DESCRIPTORS_MAX
from streampiped.runtime.pipes import LinkTable
from streampiped.runtime.slots import RETURN, SharedMemory, mapped
from streampiped.stage_memory import INLINE_BYTES, StageMemory
from streampiped.topology import COPIES_MAX, PAIRS_MAX, SEEN_MAX, Links, Paths, Plan, StageSpec
from streampiped.wire.frames import FrameReader, FrameWriter, parts_of
from support.link_bytes import only_batch

GENERATION: Final = 5
ROWS: Final = INLINE_BYTES // 8
"""Of one column, which is just large enough."""


def plan_of(inputs: dict[str, tuple[str, ...]], **links: Any) -> Plan:
    stages = tuple(StageSpec(name, "a:B", "transform", above) for name, above in inputs.items())
    return Plan("p", 0, "", Paths("", "", ""), stages, links=Links(**{"buffer_bytes": 4 * INLINE_BYTES, **links}))


CHAIN: Final = plan_of({"a": (), "b": ("a",), "c": ("b",), "d": ("b",)}, poison=True)
"""One that two read behind another one."""


class Family:
    """The stages of a plan, each with its memory, in this process."""

    def __init__(self, plan: Plan, loop: asyncio.AbstractEventLoop) -> None:
        self.plan = plan
        self.table = LinkTable((), 4096, plan.owners())
        self.idle: list[str] = []
        self.memory = {
            spec.name: StageMemory(plan, spec.name, loop, lambda name=spec.name: self.idle.append(name))  # type: ignore[misc]  # mypy cannot infer a lambda with defaults
            for spec in plan.stages
        }

    def open(self, generation: int) -> None:
        self.table.make(generation)
        for name, memory in self.memory.items():
            ends = self.table.ends(generation, (), name, (), self.plan.seen(name))
            memory.open(generation, [os.dup(fd) for fd in ends])

    def close(self, generation: int) -> None:
        for memory in self.memory.values():
            memory.close()
        self.table.close_before(generation + 1)


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture
def family(loop: asyncio.AbstractEventLoop) -> Iterator[Family]:
    family = Family(CHAIN, loop)
    family.open(GENERATION)
    yield family
    family.close(GENERATION)


def batch(value: float = 1.0) -> Batch:
    return Batch.build({"x": np.full(ROWS, value)})


def arrives(family: Family, writer: str, sent: Batch, *readers: str) -> list[Batch]:
    """What each of the readers gets of a batch that the writer sends."""
    frames = FrameWriter(GENERATION)
    data = b"".join(bytes(memoryview(b).cast("B")) for b in frames.encode(sent, family.memory[writer].place))
    got = []
    for name in readers:
        got.append(only_batch(FrameReader(GENERATION, memory=family.memory[name].views), data))
        family.memory[name].hold(got[-1])
    return got


def places(sent: Batch) -> list[Place | None]:
    return [part.place for part in parts_of(sent)]


def test_a_batch_is_seen_where_it_was_written(family: Family) -> None:
    """The reader's columns are a read-only view of the owner's memory; what is small is in the frame."""
    (got,) = arrives(family, "a", batch(3.0), "b")
    assert places(got) == [Place(0, 0, 0)]
    assert got["x"].tolist() == [3.0] * ROWS
    with pytest.raises(ValueError, match="WRITEABLE"):
        got["x"].flags.writeable = True
    (small,) = arrives(family, "a", Batch.build({"x": np.ones(ROWS - 8)}), "b")
    assert places(small) == [None]


def test_a_slot_that_came_back_is_overwritten(family: Family) -> None:
    """With `poison` the view of a batch that is done with shows NaN once the owner has heard of it, not before."""
    (got,) = arrives(family, "a", batch(), "b")
    family.memory["a"].may_place()
    assert got["x"].tolist() == [1.0] * ROWS
    family.memory["b"].done()
    family.memory["a"].may_place()
    assert np.isnan(got["x"]).all()


def test_what_is_handed_on_is_held_until_the_last_has_it_back(family: Family) -> None:
    """Passed on to two with a column added: the old part is named again, untouched, and the slot is free only when both
    are done; the new one lies in the memory of who added it."""
    (got,) = arrives(family, "a", batch(), "b")
    ours, theirs = arrives(family, "b", got.with_columns({"z": np.zeros(ROWS)}), "c", "d")
    assert places(ours) == places(theirs) == [Place(0, 0, 0), Place(1, 0, 0)]
    for name in ("b", "d", "c"):
        family.memory["a"].may_place()
        assert theirs["x"].tolist() == [1.0] * ROWS, f"before {name} is done"
        family.memory[name].done()
    family.memory["a"].may_place()
    assert np.isnan(theirs["x"]).all()


def test_what_was_kept_is_not_named_again(family: Family) -> None:
    """A batch that comes out later than it came in is not held any more: its bytes are copied, whatever they are by
    now."""
    (kept,) = arrives(family, "a", batch(), "b")
    family.memory["b"].done()
    (late,) = arrives(family, "b", kept, "c")
    assert places(late) == [Place(1, 0, 0)]


def test_who_has_no_slot_is_told_when_there_is_one(family: Family, loop: asyncio.AbstractEventLoop) -> None:
    """The owner waits when all of its memory is held, and `on_idle` comes when the first slot does."""
    owner, reader = family.memory["a"], family.memory["b"]
    taken = 0
    while owner.may_place():
        arrives(family, "a", batch(), "b")
        taken += 1
    assert taken == 4
    reader.done()
    loop.call_later(0, loop.stop)
    while not family.idle:
        loop.call_soon(loop.stop)
        loop.run_forever()
    assert family.idle == ["a"]
    assert owner.may_place()


def test_what_is_far_away_is_copied_once() -> None:
    """Of a long chain a stage is shown the nearest; who reads one that was shown less gets what it can see."""
    names = [f"s{i:02}" for i in range(SEEN_MAX + 3)]
    plan = plan_of({name: (names[max(0, i - 1) : i] and (names[i - 1],)) or () for i, name in enumerate(names)})
    assert plan.seen(names[-1]) == tuple(reversed(names[-1 - SEEN_MAX : -1]))
    assert set(plan.lends(names[-2])) == set(names[-1 - SEEN_MAX : -1])


def test_too_many_copies_are_no_copies_in_memory() -> None:
    """What comes back at once fits into a pipe: the memory of a stage with very many readers is shown to nobody."""
    many = tuple(f"r{i}" for i in range(COPIES_MAX + 1))
    plan = plan_of({"a": (), "few": ("a",), **dict.fromkeys(many, ("few",))})
    assert plan.owners() == {}
    assert plan_of({"a": (), "few": ("a",), **dict.fromkeys(many[:-2], ("few",))}).owners().keys() == {"a", "few"}
    assert SLOTS_MAX * COPIES_MAX * RETURN.size <= 65536


def test_without_memory_everything_is_in_the_frame(loop: asyncio.AbstractEventLoop) -> None:
    """`buffer_bytes = 0`: no descriptors, no mapping, and no wait."""
    family = Family(plan_of({"a": (), "b": ("a",)}, buffer_bytes=0), loop)
    family.open(GENERATION)
    (got,) = arrives(family, "a", batch(), "b")
    assert places(got) == [None]
    assert family.memory["a"].may_place()
    family.close(GENERATION)


def test_memory_cannot_change_its_size_or_be_written_by_readers() -> None:
    """The seals hold, and a mapping for a reader is read-only to the machine as well."""
    memory = SharedMemory(1 << 16)
    seals = fcntl.fcntl(memory.memory, fcntl.F_GET_SEALS)
    assert seals == fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
    with pytest.raises(PermissionError):
        os.ftruncate(memory.memory, 1)
    with pytest.raises(TypeError):
        mapped(memory.memory, writable=False)[0] = 1
    memory.close()


def test_generations_leave_nothing_behind(family: Family) -> None:
    """Descriptors and mappings of this process are as many after twenty generations as after one."""
    counts = []
    for generation in range(GENERATION + 1, GENERATION + 21):
        family.close(generation - 1)
        family.open(generation)
        gc.collect()
        maps = Path("/proc/self/maps").read_text().count("memfd:streampipe")
        counts.append((maps, len(os.listdir("/proc/self/fd"))))
    family.close(GENERATION + 20)
    assert len(set(counts)) == 1


def test_no_more_slots_than_what_is_said_of_them_has_room(loop: asyncio.AbstractEventLoop) -> None:
    """Who has used up the system's pipes gets small ones: with one of 4 KiB and a hundred readers an owner has five
    slots, and all that its readers may say at once fits in, unread."""
    readers = tuple(f"r{i}" for i in range(COPIES_MAX))
    plan = plan_of({"a": (), **dict.fromkeys(readers, ("a",))}, buffer_bytes=32 * INLINE_BYTES)
    table = LinkTable((), 4096, plan.owners())
    table.make(GENERATION)
    ends = table.ends(GENERATION, (), "a", (), ())
    fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, 4096)
    owner = StageMemory(plan, "a", loop, lambda: None)
    owner.open(GENERATION, [os.dup(fd) for fd in ends])
    taken = 0
    while owner.may_place():
        owner.place(batch())
        taken += 1
    assert taken == 4096 // RETURN.size // COPIES_MAX
    owner.close()
    table.close_before(GENERATION + 1)


@pytest.mark.parametrize("spare", range(2 * 4 + 3))
def test_generation_is_made_whole_or_not_at_all(spare: int) -> None:
    """Whichever of the descriptors for its two links and one memory cannot be had: a generation that is not made leaves
    none of them open, and the one before stays."""
    table = LinkTable((("a", "b"), ("b", "c")), 4096, {"a": 4096})
    table.make(1)
    before = sorted(os.listdir("/proc/self/fd"))
    opened = {int(fd) for fd in before if Path("/proc/self/fd", fd).exists()}  # without that of the listing
    limit = next(n for n in range(spare, 4096) if n - sum(fd < n for fd in opened) == spare)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            table.make(2)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert [table.has(generation) for generation in (1, 2)] == [True, False]
    table.close_before(3)


def test_links_come_before_memory() -> None:
    """A stage with so many links that a message has no room for descriptors of memory beside them is shown less."""
    many = tuple(f"s{i:03}" for i in range(PAIRS_MAX - 5))
    plan = plan_of({**dict.fromkeys(many, ()), "all": many})
    assert len(plan.seen("all")) == 4
    assert 2 * (len(many) + len(plan.seen("all")) + 1) <= DESCRIPTORS_MAX
