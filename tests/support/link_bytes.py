"""Feeds bytes to a frame reader as a link would, and turns frames into values that can be compared bit by bit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from streampiped.records import Batch
from streampiped.wire.frames import FRAME_BYTES_MAX, Frame, FrameReader, FrameWriter

GENERATION = 7


def encoded(frames: Iterable[Frame], generation: int = GENERATION) -> bytes:
    """What one writer puts on the link for these frames."""
    writer = FrameWriter(generation)
    return b"".join(bytes(memoryview(b).cast("B")) for frame in frames for b in writer.encode(frame))


def feed(reader: FrameReader, data: bytes, step: int | None = None) -> list[Any]:
    """Give the reader `data`, at most `step` bytes at a time; the frames that came out, as `plain` values."""
    frames: list[Any] = []
    rest = memoryview(data)
    while rest:
        room = reader.space()
        count = min(len(room), len(rest), step or len(rest))
        room[:count] = rest[:count]
        reader.filled(count)
        rest = rest[count:]
        while (frame := reader.next()) is not None:
            frames.append(plain(frame))
    return frames


def decoded(data: bytes, step: int | None = None, limit: int = FRAME_BYTES_MAX) -> list[Any]:
    """The frames of `data` as a new reader sees them, as `plain` values."""
    return feed(FrameReader(GENERATION, limit), data, step)


def plain(frame: Frame) -> Any:
    """A frame as a value: a batch as its fields and the bytes of its blocks (NaN equals itself there)."""
    if not isinstance(frame, Batch):
        return frame
    blocks = (frame.floats.data.tobytes(), frame.ints.data.tobytes())
    texts = {name: list(column) for name, column in frame.texts.items()}
    return (frame.schema, frame.rows, frame.sequence, frame.spans, frame.ingest_ns, *blocks, texts)


def only_batch(reader: FrameReader, data: bytes) -> Batch:
    """The first batch of `data`, as the view of the reader's buffer that a stage gets."""
    room = reader.space()
    assert len(room) >= len(data), "a test's batch fits into the first buffer"
    room[: len(data)] = data
    reader.filled(len(data))
    while not isinstance(frame := reader.next(), Batch):
        assert frame is not None
    return frame


def floats(rows: int, columns: int, seed: int = 1) -> dict[str, Any]:
    """Columns x0, x1, ... of numbers whose sums depend on the order of summation."""
    rng = np.random.default_rng(seed)
    table = rng.standard_normal((columns, rows)) * 10.0 ** rng.integers(-8, 9, (columns, rows))
    return {f"x{i}": column for i, column in enumerate(table)}
