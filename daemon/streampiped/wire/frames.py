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

from streampiped.aligned import COLUMN_ALIGN_BYTES, ITEM_BYTES
from streampiped.errors import FrameError, SchemaError
from streampiped.records import PARTS_MAX, ROWS_MAX, Batch, Block, Place, Schema, Span, schema_of, stride_of

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
SPANS_FEW: Final = 4
JOINED_BYTES: Final = 4096  # of blocks that are copied behind their header: less work than a list of buffers
HEAD_FEW_BYTES: Final = 64 << 10  # of prefix and header, at most, of so many spans without texts
_ZEROS: Final = bytes(COLUMN_ALIGN_BYTES)
_NO_FLOATS: Final = np.zeros(0, np.float64)
_NO_INTS: Final = np.zeros(0, np.int64)
for _empty in (_NO_FLOATS, _NO_INTS):
    _empty.flags.writeable = False

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
    return [part for part in (*batch.floats.parts, *batch.ints.parts) if part.names]


class FrameWriter:
    """Encodes what one stage says on all of its links in one generation."""

    def __init__(self, generation: int, frame_bytes_max: int = FRAME_BYTES_MAX) -> None:
        self._generation = generation
        self._frame_bytes_max = frame_bytes_max
        self._schema: Schema | None = None

    def encode(self, frame: Frame, placing: Placing | None = None, came: bytes | None = None) -> list[Any]:
        """Buffers to be written in order. A batch's blocks are handed out uncopied, but for few bytes and those that
        `placing` says to lie elsewhere; it is asked once, and only for a batch that makes a frame. `came`: the frame
        in which this very batch came (`FrameReader.came`). FrameError when the frame is one that no reader would take,
        which does not depend on where blocks lie, and SchemaError when its hello is: nothing was said then."""
        match frame:
            case Batch():
                if frame.schema is self._schema or frame.schema == self._schema:
                    return self._batch(frame, placing, came)
                buffers = [self._hello(frame.schema), *self._batch(frame, placing, came)]
                self._schema = frame.schema  # not before: of a batch that makes no frame nobody hears, nor of its hello
                return buffers
            case Hello(schema):
                hello = self._hello(schema)
                self._schema = schema
                return [hello]
            case Barrier(epoch):
                return [*self._opening(), _frame(BARRIER, [self._generation, epoch], 0)]
            case End():
                return [*self._opening(), _frame(END, [self._generation], 0)]

    def _opening(self) -> list[Any]:
        return [] if self._schema is not None else self.encode(Hello(Schema()))

    def _hello(self, schema: Schema) -> bytes:
        frame = _frame(HELLO, [self._generation, schema.floats, schema.ints, schema.texts], 0)
        if len(frame) > min(self._frame_bytes_max, PREFIX.size + HEADER_BYTES_MAX):
            raise SchemaError(
                f"the names of {len(schema.names)} columns make a frame of {len(frame)} bytes, at most "
                f"{min(self._frame_bytes_max, HEADER_BYTES_MAX)}; raise links.frame_bytes_max, or shorten the names"
            )
        return frame

    def _batch(self, batch: Batch, placing: Placing | None, came: bytes | None) -> list[Any]:
        places = placing(batch) if came is not None and placing is not None else None
        if places is not None and None not in places:
            return [came]
        spans = [[s.source, s.start, s.count, s.via] if s.via else [s.source, s.start, s.count] for s in batch.spans]
        texts = [batch.texts[name] for name in batch.schema.texts] if batch.schema.texts else []
        header = [self._generation, batch.rows, batch.sequence, batch.ingest_ns, spans, texts, []]
        data = batch.floats.nbytes + batch.ints.nbytes
        if texts or len(spans) > SPANS_FEW or data + HEAD_FEW_BYTES > self._frame_bytes_max:
            self._check(batch, PREFIX.size + padded(len(_packed(header))), data)
        if places is None:
            places = placing(batch) if placing is not None else ()
        parts = parts_of(batch)
        if not any(places):
            if data <= JOINED_BYTES:
                return [_frame(BATCH, header, data, [part.data for part in parts])]
            return [_frame(BATCH, header, data), *[_steady(part) for part in parts if part.nbytes]]
        found = list(zip(parts, places, strict=True))
        header[-1] = [[len(part.names), *(place or ())] for part, place in found]
        inline = [_steady(part) for part, place in found if place is None and part.nbytes]
        return [_frame(BATCH, header, sum([each.nbytes for each in inline])), *inline]

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


def _frame(kind: int, header: list[Any], data_bytes: int, data: Sequence[Any] = ()) -> bytes:
    body = _packed(header)
    prefix = PREFIX.pack(MAGIC, VERSION, kind, len(body), zlib.crc32(body), data_bytes)
    return b"".join((prefix, body, _ZEROS[: -len(body) % COLUMN_ALIGN_BYTES], *data))


def _packed(header: list[Any]) -> bytes:
    try:
        body: bytes = _PACKER.pack(header)
    except UnicodeEncodeError:  # told by trying: the tolerant way is slower
        _PACKER.reset()
        body = msgpack.packb(header, unicode_errors=SURROGATES)
    return body


_PACKER: Final = msgpack.Packer()  # to make one takes longer than to use it


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
        stages that may be named, by their number, as aligned read-only arrays of bytes."""
        self._via = via
        self._memory = memory if memory is not None else {}
        self._generation = generation
        self._frame_bytes_max = frame_bytes_max
        self._take(_aligned_bytes(BUFFER_BYTES))
        self._start = 0
        self._end = 0
        self._wanted = PREFIX.size
        self._schema: Schema | None = None
        self._last: Batch | None = None
        self._last_at = slice(0)
        self._last_had: tuple[Any, ...] = ()

    def _take(self, buffer: Any) -> None:
        """Read into this one from now on."""
        self._buffer = buffer
        self._room = memoryview(buffer)
        self._shown = buffer.view()
        self._shown.flags.writeable = False
        whole = self._shown[: buffer.size // COLUMN_ALIGN_BYTES * COLUMN_ALIGN_BYTES]
        self._floats, self._ints = whole.view(np.float64), whole.view(np.int64)

    @property
    def pending(self) -> int:
        """Bytes read and not yet decoded."""
        return self._end - self._start

    def space(self) -> memoryview:
        """Where to read to: never empty. What is left of an unfinished frame moves to the front first, and the
        buffer grows to hold the whole of it."""
        left = self._end - self._start
        if self._start:
            if left:
                self._buffer[:left] = self._buffer[self._start : self._end].copy()
            self._start, self._end = 0, left
        if self._wanted > self._buffer.size:
            grown = _aligned_bytes(self._wanted)
            grown[:left] = self._buffer[:left]
            self._take(grown)
        return self._room[self._end :]

    def filled(self, count: int) -> None:
        self._end += count

    def came(self, batch: Batch) -> bytes | None:
        """The frame in which this batch came, to be handed on as it is; None unless it is the last that `next` gave,
        nobody has changed it, and it has few bytes or lies in memory as a whole."""
        if batch is not self._last or _had(batch) != self._last_had:
            return None
        return bytes(self._room[self._last_at])

    def next(self) -> Frame | None:
        """The next whole frame, or None when more bytes are needed. FrameError when the bytes are no frame."""
        pending = self._end - self._start
        if pending < PREFIX.size:
            self._wanted = PREFIX.size
            return None
        magic, version, kind, header_bytes, checksum, data_bytes = PREFIX.unpack_from(self._room, self._start)
        if magic != MAGIC or version != VERSION:
            raise FrameError(f"frame starts with {magic!r} version {version}, expected {MAGIC!r} version {VERSION}")
        if header_bytes > HEADER_BYTES_MAX:
            raise FrameError(f"frame header of {header_bytes} bytes, at most {HEADER_BYTES_MAX}")
        total = PREFIX.size + padded(header_bytes) + data_bytes
        if total > self._frame_bytes_max or data_bytes % COLUMN_ALIGN_BYTES:
            raise FrameError(f"frame of {total} bytes, at most {self._frame_bytes_max} in steps of 64")
        if pending < total:
            self._wanted = total
            return None
        at = self._start + PREFIX.size
        body = self._room[at : at + header_bytes]
        if zlib.crc32(body) != checksum:
            raise FrameError("checksum of a frame header does not match")
        self._last_at = slice(self._start, self._start + total)
        self._start += total
        return self._decode(kind, body, data_bytes)

    def _decode(self, kind: int, body: memoryview, data_bytes: int) -> Frame:
        """Its data are the bytes right before `_start`."""
        if kind not in _DECODERS:
            raise FrameError(f"frame of unknown kind {kind}")
        try:
            generation, *fields = msgpack.unpackb(body, unicode_errors=SURROGATES)
            if generation != self._generation:
                raise FrameError(f"frame of generation {generation}, expected {self._generation}")
            if kind == BATCH:
                return self._batch(data_bytes, *fields)
            if data_bytes:
                raise FrameError(f"frame of kind {kind} has {data_bytes} bytes of data, only batches have any")
            frame = _DECODERS[kind](*fields)
        except (ValueError, TypeError, AttributeError, msgpack.UnpackException) as error:
            raise FrameError(f"frame of kind {kind} cannot be read: {error}") from error
        if isinstance(frame, Hello):
            self._schema = frame.schema
        elif self._schema is None:
            raise FrameError("the first frame of a generation must be hello")
        return frame

    def _batch(
        self, data_bytes: int, rows: int, sequence: int, ingest_ns: int, spans: Any, texts: Any, said: list[Any]
    ) -> Batch:
        schema = self._schema
        if schema is None:
            raise FrameError("the first frame of a generation must be hello")
        fits = 0 <= rows <= ROWS_MAX and len(texts) == len(schema.texts) and len(said) <= 2 * PARTS_MAX
        if not fits or (texts and any(len(text) != rows for text in texts)):
            raise self._misfit(rows, data_bytes)
        floats, ints = self._blocks(data_bytes, rows, said) if said else self._inline(schema, data_bytes, rows)
        batch = Batch(
            schema,
            rows,
            floats,
            ints,
            dict(zip(schema.texts, texts, strict=True)) if texts else {},
            sequence=sequence,
            spans=tuple([self._span(*span) if self._via else Span(*span) for span in spans]),
            ingest_ns=ingest_ns,
        )
        stays = not (texts or self._via) and data_bytes <= (0 if said else JOINED_BYTES)
        self._last, self._last_had = (batch, _had(batch)) if stays else (None, ())
        return batch

    def _inline(self, schema: Schema, data_bytes: int, rows: int) -> tuple[Block, Block]:
        """The float block and the int block of a frame that names no memory: one behind the other."""
        stride, stop = stride_of(rows), self._start // ITEM_BYTES
        start = stop - data_bytes // ITEM_BYTES
        cut = start + len(schema.floats) * stride
        if stop != cut + len(schema.ints) * stride:
            raise self._misfit(rows, data_bytes)
        floats = self._floats[start:cut] if start < cut else _NO_FLOATS
        ints = self._ints[cut:stop] if cut < stop else _NO_INTS
        return Block.seen(schema.floats, rows, floats), Block.seen(schema.ints, rows, ints)

    def _blocks(self, data_bytes: int, rows: int, said: list[Any]) -> tuple[Block, Block]:
        """The float block and the int block: each part is a stretch of the frame, or of the memory where it lies."""
        assert self._schema is not None
        data = self._shown[self._start - data_bytes : self._start]
        floats, ints = self._schema.floats, self._schema.ints
        stride, first, used = stride_of(rows), 0, 0
        found: tuple[list[Block], list[Block]] = [], []
        for count, *where in said:
            size = count * stride * ITEM_BYTES
            is_int = first >= len(floats)
            names = ints[first - len(floats) : first - len(floats) + count] if is_int else floats[first : first + count]
            if len(names) != count:
                raise self._misfit(rows, data_bytes)
            if where:
                place = Place(*where)
                items = self._items(place, size)
            else:
                place = None
                items = data[used : used + size]
                used += size
            if len(items) != size:
                raise self._misfit(rows, data_bytes)
            found[is_int].append(Block.seen(names, rows, items.view(np.int64 if is_int else np.float64), place))
            first += count
        if first != len(floats) + len(ints) or used != data.size:
            raise self._misfit(rows, data_bytes)
        return _whole(found[0], rows, _NO_FLOATS), _whole(found[1], rows, _NO_INTS)

    def _items(self, place: Place, size: int) -> Any:
        """Bytes of the memory that a frame names."""
        memory = self._memory.get(place.owner)
        if memory is None or place.offset < 0 or place.offset % COLUMN_ALIGN_BYTES or place.offset + size > memory.size:
            raise FrameError(f"{size} bytes at {place} are in no memory that this stage is shown")
        return memory[place.offset : place.offset + size]

    def _misfit(self, rows: int, data_bytes: int) -> FrameError:
        names = self._schema.names if self._schema is not None else ()
        return FrameError(f"batch of {rows} rows with {data_bytes} bytes does not fit its schema {names}")

    def _span(self, source: str, start: int, count: int, via: str = "") -> Span:
        return Span(source, start, count, f"{via}/{self._via}" if via else self._via)


def _had(batch: Batch) -> tuple[Any, ...]:
    """What a stage could change of a batch without texts; the columns cannot be written."""
    return batch.rows, batch.sequence, batch.ingest_ns, batch.spans, batch.schema, batch.floats, batch.ints


def _whole(parts: list[Block], rows: int, nothing: Any) -> Block:
    """One block of what the frame has of one type."""
    if not parts:
        return Block.seen((), rows, nothing)
    block = parts[0]
    for part in parts[1:]:
        block = Block.joined(block, part)
    return block


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
