"""Frames on a link: bytes <-> hello, batch, barrier, end. Pure; docs/specs/frames.md is the contract.

A frame is a 64-byte prefix, a msgpack header, and the blocks of a batch, each part padded to 64 bytes. Because every
frame's length is a multiple of 64, frames that lie one behind another in an aligned buffer keep their columns aligned.
Blocks that lie in shared memory are named in the header and stay where they are.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import msgpack
import numpy as np

from streampiped.errors import FrameError
from streampiped.records import (
    COLUMN_ALIGN_BYTES,
    ITEM_BYTES,
    PARTS_MAX,
    ROWS_MAX,
    Batch,
    Block,
    Place,
    Schema,
    Span,
    schema_of,
    stride_of,
)

MAGIC: Final = b"SPFR"
VERSION: Final = 2
PREFIX: Final = struct.Struct("<4sHHIIQ40x")  # magic, version, kind, header bytes, header CRC-32, data bytes
HEADER_BYTES_MAX: Final = 16 << 20  # text columns live in the header
FRAME_BYTES_MAX: Final = 64 << 20  # default; the configuration may say less
SURROGATES: Final = "surrogatepass"
"""Half of a character, as json.loads gives it, has no UTF-8; it travels in its three bytes, as in wire/letters.py."""
BUFFER_BYTES: Final = 256 << 10  # first size of a reader's buffer: a few frames of the usual 1024 rows

assert PREFIX.size == COLUMN_ALIGN_BYTES

HELLO, BATCH, BARRIER, END = range(1, 5)
_SIX, _SEVEN = msgpack.packb([None] * 6)[:1], msgpack.packb([None] * 7)[:1]  # what a list of so many begins with

Placing: TypeAlias = Callable[[Batch], Sequence[Place | None]]
"""Where each part of a batch's blocks (`parts_of`) lies by now; None: nowhere that a reader sees."""


@dataclass(frozen=True, slots=True)
class Hello:
    """First on every link, and again whenever the schema changes."""

    schema: Schema


@dataclass(frozen=True, slots=True)
class Barrier:
    epoch: int


@dataclass(frozen=True, slots=True)
class End:
    """No batch will follow; barriers may."""


Frame: TypeAlias = Hello | Batch | Barrier | End


def padded(length: int) -> int:
    return -(-length // COLUMN_ALIGN_BYTES) * COLUMN_ALIGN_BYTES


def parts_of(batch: Batch) -> list[Block]:
    """Its blocks, in the order in which a frame has them."""
    return [part for block in (batch.floats, batch.ints) for part in block.parts if part.names]


class FrameWriter:
    """Encodes what one stage says on all of its links in one generation."""

    def __init__(self, generation: int, frame_bytes_max: int = FRAME_BYTES_MAX) -> None:
        self._generation = generation
        self._frame_bytes_max = frame_bytes_max
        self._schema: Schema | None = None

    def encode(self, frame: Frame, placing: Placing | None = None) -> list[Any]:
        """Buffers to be written in order. A batch's blocks are handed out uncopied, but for those that `placing` says
        to lie elsewhere; it is asked once, and only for a batch that makes a frame. FrameError when the frame is one
        that no reader would take, which does not depend on where blocks lie."""
        match frame:
            case Hello(schema):
                self._schema = schema
                return [_frame(HELLO, [self._generation, schema.floats, schema.ints, schema.texts], 0)]
            case Batch():
                hello = [] if frame.schema == self._schema else self.encode(Hello(frame.schema))
                return hello + self._batch(frame, placing)
            case Barrier(epoch):
                return [*self._opening(), _frame(BARRIER, [self._generation, epoch], 0)]
            case End():
                return [*self._opening(), _frame(END, [self._generation], 0)]

    def _opening(self) -> list[Any]:
        return [] if self._schema is not None else self.encode(Hello(Schema()))

    def _batch(self, batch: Batch, placing: Placing | None) -> list[Any]:
        spans = [[s.source, s.start, s.count, s.via] if s.via else [s.source, s.start, s.count] for s in batch.spans]
        texts = [batch.texts[name] for name in batch.schema.texts]
        body = _packed([self._generation, batch.rows, batch.sequence, batch.ingest_ns, spans, texts])
        parts = parts_of(batch)
        self._check(batch, PREFIX.size + padded(len(body) + 1), sum(part.nbytes for part in parts))
        places = placing(batch) if placing is not None else ()
        if not any(places):
            places, said = [None] * len(parts), []
        else:
            said = [[len(p.names), *(place or ())] for p, place in zip(parts, places, strict=True)]
        inline = [_steady(p) for p, place in zip(parts, places, strict=True) if place is None and p.nbytes]
        body = _SEVEN + body.removeprefix(_SIX) + msgpack.packb(said)
        return [_framed(BATCH, body, sum(data.nbytes for data in inline)), *inline]

    def _check(self, batch: Batch, head: int, data: int) -> None:
        if head - PREFIX.size > HEADER_BYTES_MAX:
            raise FrameError(
                f"a batch of {batch.rows} rows makes a header of {head} bytes with its texts, at most "
                f"{HEADER_BYTES_MAX}; lower the source's batch_max"
            )
        if head + data > self._frame_bytes_max:
            raise FrameError(
                f"a batch of {batch.rows} rows makes a frame of {head + data} bytes, at most {self._frame_bytes_max}; "
                "lower the source's batch_max, or raise links.frame_bytes_max"
            )


def _steady(part: Block) -> Any:
    """What may still be read when the batch at hand has been given back: memory of others is copied."""
    return part.data if part.place is None else part.data.copy()


def _frame(kind: int, header: list[Any], data_bytes: int) -> bytes:
    return _framed(kind, _packed(header), data_bytes)


def _packed(header: list[Any]) -> bytes:
    try:
        body: bytes = msgpack.packb(header)
    except UnicodeEncodeError:  # told by trying: the tolerant way is slower
        body = msgpack.packb(header, unicode_errors=SURROGATES)
    return body


def _framed(kind: int, body: bytes, data_bytes: int) -> bytes:
    prefix = PREFIX.pack(MAGIC, VERSION, kind, len(body), zlib.crc32(body), data_bytes)
    return b"".join((prefix, body, bytes(padded(len(body)) - len(body))))


class FrameReader:
    """Decodes one link of one generation from an aligned, reused buffer.

    Read into `space()`, say how much with `filled()`, take frames with `next()` until it gives None. A batch is a
    view of the buffer: valid until the next `space()`; and of the memory that frames name.
    """

    def __init__(
        self,
        generation: int,
        frame_bytes_max: int = FRAME_BYTES_MAX,
        via: str = "",
        memory: Mapping[int, Any] | None = None,
    ) -> None:
        """`via`: the input's name, of a stage with several; the spans of all batches get it. `memory`: that of the
        stages that may be named, by their number, as aligned arrays of bytes."""
        self._via = via
        self._memory = memory or {}
        self._generation = generation
        self._frame_bytes_max = frame_bytes_max
        self._buffer = _aligned_bytes(BUFFER_BYTES)
        self._start = 0
        self._end = 0
        self._wanted = PREFIX.size
        self._schema: Schema | None = None

    @property
    def pending(self) -> int:
        """Bytes read and not yet decoded."""
        return self._end - self._start

    def space(self) -> memoryview:
        """Where to read to: never empty. What is left of an unfinished frame moves to the front first, and the
        buffer grows to hold the whole of it."""
        left = self._end - self._start
        if self._start:
            self._buffer[:left] = self._buffer[self._start : self._end].copy()
            self._start, self._end = 0, left
        if self._wanted > self._buffer.size:
            grown = _aligned_bytes(self._wanted)
            grown[:left] = self._buffer[:left]
            self._buffer = grown
        return memoryview(self._buffer)[self._end :]

    def filled(self, count: int) -> None:
        self._end += count

    def next(self) -> Frame | None:
        """The next whole frame, or None when more bytes are needed. FrameError when the bytes are no frame."""
        if self.pending < PREFIX.size:
            self._wanted = PREFIX.size
            return None
        magic, version, kind, header_bytes, checksum, data_bytes = PREFIX.unpack_from(self._buffer, self._start)
        if magic != MAGIC or version != VERSION:
            raise FrameError(f"frame starts with {magic!r} version {version}, expected {MAGIC!r} version {VERSION}")
        if header_bytes > HEADER_BYTES_MAX:
            raise FrameError(f"frame header of {header_bytes} bytes, at most {HEADER_BYTES_MAX}")
        total = PREFIX.size + padded(header_bytes) + data_bytes
        if total > self._frame_bytes_max or data_bytes % COLUMN_ALIGN_BYTES:
            raise FrameError(f"frame of {total} bytes, at most {self._frame_bytes_max} in steps of 64")
        if self.pending < total:
            self._wanted = total
            return None
        at = self._start + PREFIX.size
        body = self._buffer[at : at + header_bytes]
        if zlib.crc32(body) != checksum:
            raise FrameError("checksum of a frame header does not match")
        data = self._buffer[at + padded(header_bytes) : self._start + total]
        self._start += total
        return self._decode(kind, body.tobytes(), data)

    def _decode(self, kind: int, body: bytes, data: Any) -> Frame:
        if kind not in _DECODERS:
            raise FrameError(f"frame of unknown kind {kind}")
        try:
            generation, *fields = msgpack.unpackb(body, unicode_errors=SURROGATES)
            if generation != self._generation:
                raise FrameError(f"frame of generation {generation}, expected {self._generation}")
            if kind == BATCH:
                return self._batch(data, *fields)
            if data.size:
                raise FrameError(f"frame of kind {kind} has {data.size} bytes of data, only batches have any")
            frame = _DECODERS[kind](*fields)
        except (ValueError, TypeError, AttributeError, msgpack.UnpackException) as error:
            raise FrameError(f"frame of kind {kind} cannot be read: {error}") from error
        if isinstance(frame, Hello):
            self._schema = frame.schema
        elif self._schema is None:
            raise FrameError("the first frame of a generation must be hello")
        return frame

    def _batch(
        self, data: Any, rows: int, sequence: int, ingest_ns: int, spans: Any, texts: Any, said: list[Any]
    ) -> Batch:
        schema = self._schema
        if schema is None:
            raise FrameError("the first frame of a generation must be hello")
        fits = 0 <= rows <= ROWS_MAX and len(texts) == len(schema.texts) and len(said) <= 2 * PARTS_MAX
        if not fits or any(len(text) != rows for text in texts):
            raise self._misfit(rows, data)
        floats, ints = self._blocks(data, rows, said or [[len(names)] for names in (schema.floats, schema.ints)])
        return Batch(
            schema,
            rows,
            floats,
            ints,
            dict(zip(schema.texts, texts, strict=True)),
            sequence=sequence,
            spans=tuple(self._span(*span) for span in spans) if self._via else tuple(Span(*span) for span in spans),
            ingest_ns=ingest_ns,
        )

    def _blocks(self, data: Any, rows: int, said: list[Any]) -> tuple[Block, Block]:
        """The float block and the int block: each part is a stretch of `data`, or of the memory where it lies."""
        assert self._schema is not None
        floats, ints = Block((), rows, data[:0].view(np.float64)), Block((), rows, data[:0].view(np.int64))
        whole, first, used = self._schema.floats + self._schema.ints, 0, 0
        for count, *where in said:
            names = whole[first : first + count]
            size = count * stride_of(rows) * ITEM_BYTES
            place = Place(*where) if where else None
            source = data[used:] if place is None else self._seen(place, size)
            if len(names) != count or len(source) < size:
                raise self._misfit(rows, data)
            if first + count <= len(self._schema.floats):
                floats = Block.joined(floats, Block(names, rows, source[:size].view(np.float64), place))
            elif first >= len(self._schema.floats):
                ints = Block.joined(ints, Block(names, rows, source[:size].view(np.int64), place))
            else:
                raise self._misfit(rows, data)
            first, used = first + count, used + (size if place is None else 0)
        if first != len(whole) or used != data.size:
            raise self._misfit(rows, data)
        return floats, ints

    def _seen(self, place: Place, size: int) -> Any:
        memory = self._memory.get(place.owner)
        if memory is None or place.offset < 0 or place.offset % COLUMN_ALIGN_BYTES or place.offset + size > memory.size:
            raise FrameError(f"{size} bytes at {place} are in no memory that this stage is shown")
        return memory[place.offset : place.offset + size]

    def _misfit(self, rows: int, data: Any) -> FrameError:
        names = self._schema.names if self._schema is not None else ()
        return FrameError(f"batch of {rows} rows with {data.size} bytes does not fit its schema {names}")

    def _span(self, source: str, start: int, count: int, via: str = "") -> Span:
        return Span(source, start, count, f"{via}/{self._via}" if via else self._via)


_DECODERS: Final[dict[int, Callable[..., Hello | Barrier | End]]] = {
    HELLO: lambda floats, ints, texts: Hello(schema_of(tuple(floats), tuple(ints), tuple(texts))),
    BARRIER: Barrier,
    END: End,
    BATCH: End,  # batches are decoded with the link's schema, see `FrameReader._batch`
}


def _aligned_bytes(count: int) -> Any:
    raw = np.empty(count + COLUMN_ALIGN_BYTES, dtype=np.uint8)
    skip = -raw.ctypes.data % COLUMN_ALIGN_BYTES
    return raw[skip : skip + count]
