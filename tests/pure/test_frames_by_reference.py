"""Batches of several parts, in the frame and in memory that it names: the same batch to the bit, however it came."""

from __future__ import annotations

import struct
from typing import Any, Final

import msgpack
import numpy as np
import pytest
from test_frames import raw

from streampiped.aligned import COLUMN_ALIGN_BYTES, aligned_empty
from streampiped.errors import FrameError
from streampiped.records import PARTS_MAX, Batch, Place
from streampiped.wire.frames import BATCH, FrameReader, FrameWriter, Hello, parts_of
from support.link_bytes import GENERATION, encoded, feed, floats, plain

OWNER: Final = 2
MEMORY_BYTES: Final = 1 << 16
WIDE: Final = Batch.build(floats(100, 5) | {"n": np.arange(100), "who": ["a"] * 100})
ADDED: Final = WIDE.with_columns({"prediction": np.arange(100.0)}).with_columns(
    {"m": np.arange(100), "z": np.ones(100)}
)
"""Three parts of floats and two of integers."""


def shared(batch: Batch, chosen: tuple[bool, ...]) -> tuple[list[Any], Any]:
    """The buffers of a frame with the chosen parts in memory, and the memory."""
    memory = aligned_empty(MEMORY_BYTES // 8, np.int64).view(np.uint8)
    at = 0
    places: list[Place | None] = []
    for part, elsewhere in zip(parts_of(batch), chosen, strict=True):
        place = Place(OWNER, 1, at) if elsewhere else None
        if place is not None:
            memory[at : at + part.nbytes] = part.data.view(np.uint8)
            at += part.nbytes
        places.append(place)
    writer = FrameWriter(GENERATION)
    return [*writer.encode(Hello(batch.schema)), *writer.encode(batch, lambda _: places)], memory


def reader_of(buffers: list[Any], memory: Any) -> FrameReader:
    mapped = memory.view()
    mapped.flags.writeable = False
    reader = FrameReader(GENERATION, memory={OWNER: mapped})
    data = b"".join(bytes(memoryview(b).cast("B")) for b in buffers)
    reader.space()[: len(data)] = data
    reader.filled(len(data))
    return reader


def read(buffers: list[Any], memory: Any) -> Batch:
    reader = reader_of(buffers, memory)
    assert isinstance(reader.next(), Hello)
    batch = reader.next()
    assert isinstance(batch, Batch)
    return batch


CHOICES: Final = [tuple(bool(bits >> i & 1) for i in range(5)) for bits in range(32)]


def test_a_frame_that_names_memory_is_handed_on_as_it_came() -> None:
    """As long as our readers see all of that memory. Else what they do not see comes along, or lies elsewhere."""
    numbers = Batch.build(floats(100, 5))
    buffers, memory = shared(numbers, (True,))
    reader = reader_of(buffers, memory)
    assert isinstance(reader.next(), Hello)
    batch = reader.next()
    assert isinstance(batch, Batch)
    came = reader.came(batch)
    assert came == buffers[-1]
    place = batch.floats.place
    writer = FrameWriter(GENERATION)
    writer.encode(Hello(batch.schema))
    assert writer.encode(batch, lambda _: [place], came) == [came]
    hidden = writer.encode(batch, lambda _: [None], came)
    assert len(hidden) == 2
    assert plain(read([*writer.encode(Hello(batch.schema)), *hidden], memory)) == plain(numbers)


@pytest.mark.parametrize("chosen", CHOICES, ids=lambda c: "".join("ri"[not b] for b in c))
def test_where_parts_lie_changes_nothing(chosen: tuple[bool, ...]) -> None:
    """Any of the parts in memory, the others in the frame: the same batch, aligned, read-only, and what is computed
    from it has the same bits."""
    assert len(parts_of(ADDED)) == 5
    batch = read(*shared(ADDED, chosen))
    assert plain(batch) == plain(ADDED)
    for part in parts_of(batch):
        assert part.data.ctypes.data % COLUMN_ALIGN_BYTES == 0
        assert not part.data.flags.writeable
    names = ["x3", "x0", "prediction", "z"]
    weights = np.linspace(0.1, 0.7, 4)
    assert (batch.matrix(names) @ weights).tobytes() == (ADDED.matrix(names) @ weights).tobytes()
    assert batch["x2"].sum().tobytes() == WIDE["x2"].sum().tobytes()


def test_memory_is_seen_and_not_copied() -> None:
    """A part that is named is a view of the memory, with its place; what is in the frame has none."""
    buffers, memory = shared(ADDED, (True, False, False, True, False))
    batch = read(buffers, memory)
    first, second, *_ = batch.floats.parts
    assert first.place == Place(OWNER, 1, 0)
    assert second.place is None
    memory.view(np.float64)[0] = 42.0
    assert batch["x0"][0] == 42.0
    assert sum(memoryview(b).nbytes for b in buffers) < 100 * 8 * 5


def test_columns_are_added_without_touching_the_others() -> None:
    """The old part is the same memory; more than PARTS_MAX parts become one, and the batch stays the same."""
    assert ADDED.floats.parts[0] is WIDE.floats
    grown, wanted = WIDE, dict(WIDE.columns())
    for i in range(2 * PARTS_MAX):
        more = {f"more{i}": np.full(100, float(i))}
        grown, wanted = grown.with_columns(more), wanted | more
        assert len(grown.floats.parts) <= PARTS_MAX
    assert plain(grown) == plain(Batch.build(wanted))


def test_a_replaced_column_and_a_copy_share_nothing() -> None:
    """`with_columns` of a name that is there, and `copy`, have memory of their own."""
    for other in (WIDE.with_columns({"x1": np.zeros(100)}), ADDED.copy()):
        assert len(other.floats.parts) == 1
        assert not any(np.shares_memory(part.data, WIDE.floats.data) for part in other.floats.parts)


def test_columns_of_another_length_are_refused() -> None:
    """A batch has one number of rows."""
    with pytest.raises(ValueError, match="99 rows"):
        WIDE.with_columns({"short": np.zeros(99)})


def test_the_limit_does_not_depend_on_the_place() -> None:
    """A batch that makes no frame makes none by reference either, and memory is asked only for one that does: how a
    source cuts its batches must not depend on it."""
    asked = []

    def placing(batch: Batch) -> list[Place | None]:
        asked.append(batch)
        return [Place(OWNER, 0, 0) for _ in parts_of(batch)]

    inline = len(encoded([ADDED])) - len(encoded([Hello(ADDED.schema)]))
    FrameWriter(GENERATION, inline).encode(ADDED, placing)
    assert len(asked) == 1
    with pytest.raises(FrameError, match="at most"):
        FrameWriter(GENERATION, inline - 64).encode(ADDED, placing)
    assert len(asked) == 1


HELLO: Final = raw(1, [GENERATION, ["x", "y"], ["n"], []])


def batch(parts: Any, data: bytes = b"") -> bytes:
    """A batch of one row, whose columns lie where `parts` says."""
    return HELLO + raw(BATCH, [GENERATION, 1, 0, 0, [], [], parts], data)


REFUSED: Final = {
    "no_such_owner": (batch([[2, 9, 0, 0], [1, 9, 0, 0]]), "in no memory"),
    "beyond_the_end": (batch([[2, OWNER, 0, MEMORY_BYTES - 64], [1, OWNER, 0, 0]]), "in no memory"),
    "before_the_begin": (batch([[2, OWNER, 0, -64], [1, OWNER, 0, 0]]), "in no memory"),
    "unaligned": (batch([[2, OWNER, 0, 8], [1, OWNER, 0, 0]]), "in no memory"),
    "floats_and_ints_in_one": (batch([[3, OWNER, 0, 0]]), "does not fit"),
    "too_few_columns": (batch([[2, OWNER, 0, 0]]), "does not fit"),
    "too_many_columns": (batch([[2, OWNER, 0, 0], [2, OWNER, 0, 0]]), "does not fit"),
    "negative_columns": (batch([[-1, OWNER, 0, 0], [1, OWNER, 0, 0]]), "does not fit"),
    "data_left_over": (batch([[2, OWNER, 0, 0], [1, OWNER, 0, 0]], bytes(64)), "does not fit"),
    "data_missing": (batch([[2, OWNER, 0, 0], [1]]), "does not fit"),
    "half_a_place": (batch([[2, OWNER], [1, OWNER, 0, 0]]), "cannot be read"),
    "a_text": (batch([["2", OWNER, 0, 0]]), "cannot be read"),
    "no_list": (batch(7), "cannot be read"),
    "too_many_parts": (batch([[0]] * (2 * PARTS_MAX + 1)), "does not fit"),
}


@pytest.mark.parametrize(("data", "words"), REFUSED.values(), ids=REFUSED)
def test_what_names_no_memory_is_refused(data: bytes, words: str) -> None:
    """A frame that names what is not there, or not all of the columns, is a FrameError and never a wrong batch."""
    memory = aligned_empty(MEMORY_BYTES // 8, np.int64).view(np.uint8)
    with pytest.raises(FrameError, match=words):
        feed(FrameReader(GENERATION, memory={OWNER: memory}), data)


def test_a_frame_by_reference_is_small() -> None:
    """What travels does not grow with the rows."""
    long = Batch.build(floats(1000, 8))
    buffers, _ = shared(long, (True,))
    assert len(buffers[-1]) <= 192
    (length,) = struct.unpack_from("<I", buffers[-1], 8)
    assert msgpack.unpackb(buffers[-1][64 : 64 + length])[-1] == [[8, OWNER, 1, 0]]
