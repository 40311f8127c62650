"""The vocabulary of the data plane: schemas and batches.

A batch is columnar. Numeric columns of one type form one *block*: column-major, every column starting on a 64-byte
boundary, the padding zero. The layout is the same for a batch built in the process, read from a pipe or taken by
reference: unaligned or differently ordered float64 gives other last bits in sums and products, and a recovered run
would no longer be bit-identical to an undisturbed one. A block may consist of *parts*, each with some of the columns:
so columns are added without touching those that are there.

Missing is NaN in a float column and None in a text column. Integer columns have no missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from streampiped.aligned import COLUMN_ALIGN_BYTES, ITEM_BYTES, aligned_empty
from streampiped.column_values import held_as

COLUMNS_MAX = 4096  # per batch; a header must stay readable and bounded
ROWS_MAX = 1 << 20  # per batch; bounds what one `process` call may be handed
NAME_BYTES_MAX = 128  # of a column or stage name, as UTF-8
PARTS_MAX = 8  # of a block; a column is looked for in one after the other, and a frame names each

Array: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]
Column: TypeAlias = "Array | IntArray | list[str | None]"


def is_column_name(name: str) -> bool:
    return 0 < len(name.encode()) <= NAME_BYTES_MAX


@dataclass(frozen=True, slots=True)
class Schema:
    """Column names by type, in block order: float64, int64, text."""

    floats: tuple[str, ...] = ()
    ints: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = self.names
        if len(set(names)) != len(names):
            raise ValueError(f"column names must differ, got {names}")
        if len(names) > COLUMNS_MAX:
            raise ValueError(f"{len(names)} columns, at most {COLUMNS_MAX}")
        for name in names:
            if not is_column_name(name):
                raise ValueError(f"column name {name!r} must have 1 to {NAME_BYTES_MAX} bytes")

    @property
    def names(self) -> tuple[str, ...]:
        return self.floats + self.ints + self.texts


@lru_cache(maxsize=64)
def schema_of(floats: tuple[str, ...], ints: tuple[str, ...], texts: tuple[str, ...]) -> Schema:
    """A schema is checked when it is made, which takes longer than a small batch should: made once."""
    return Schema(floats, ints, texts)


@lru_cache(maxsize=64)
def _is_without(schema: Schema, names: tuple[str, ...]) -> bool:
    """Whether there are columns, and none of these among them."""
    return bool(schema.names) and set(schema.names).isdisjoint(names)


@dataclass(frozen=True, slots=True)
class Span:
    """`count` records of `source` with consecutive positions from `start` on. `via`: which input they have come by, at
    every stage on their way that has several, joined by slashes: what tells a record that comes over one branch from
    the same record over another. The shell adds to it, a stage passes it on."""

    source: str
    start: int
    count: int
    via: str = ""


def stride_of(rows: int) -> int:
    """Items from one column's start to the next: `rows`, rounded up to the column alignment."""
    per_line = COLUMN_ALIGN_BYTES // ITEM_BYTES
    return -(-rows // per_line) * per_line


class Place(NamedTuple):
    """Where a block lies in memory that processes share: `offset` bytes into that of the stage `owner` (its number in
    the plan), within slot `slot`."""

    owner: int
    slot: int
    offset: int


class Block:
    """Columns of one numeric type over one aligned buffer of `len(names) * stride` items, or over several such."""

    __slots__ = ("_data", "_index", "_parts", "names", "place", "rows", "stride")

    def __init__(self, names: tuple[str, ...], rows: int, data: NDArray[Any], place: Place | None = None) -> None:
        """Take `data` as it is: 1-D, aligned, `len(names) * stride_of(rows)` items. Views of it are read-only."""
        self.names = names
        self.rows = rows
        self.stride = stride_of(rows)
        assert data.size == len(names) * self.stride, (data.size, names, rows)
        data.flags.writeable = False
        self.place = place
        self._data: NDArray[Any] | None = data
        self._parts: tuple[Block, ...] = ()
        self._index: dict[str, int] | None = None

    @classmethod
    def seen(
        cls, names: tuple[str, ...], rows: int, data: Any, place: Place | None = None, parts: tuple[Block, ...] = ()
    ) -> Block:
        """The same without checks: of what a frame has, which is read-only, or of several `parts` and no `data`."""
        block = cls.__new__(cls)
        block.names, block.rows, block.stride, block.place = names, rows, stride_of(rows), place
        block._data, block._parts, block._index = data, parts, None
        return block

    @classmethod
    def build(cls, names: tuple[str, ...], rows: int, columns: Iterable[Any], dtype: Any) -> Block:
        """Copy the columns (each of `rows` items) into a fresh block."""
        stride = stride_of(rows)
        data = aligned_empty(len(names) * stride, dtype)
        if rows == 1:
            data[:] = 0
            for place, column in zip(range(0, data.size, stride), columns, strict=True):
                data[place] = column[0]
            return cls(names, rows, data)
        table = data.reshape(len(names), stride)
        table[:, rows:] = 0
        for row, column in zip(table, columns, strict=True):
            row[:rows] = column
        return cls(names, rows, data)

    @classmethod
    def joined(cls, first: Block, second: Block) -> Block:
        """The columns of both, of the same rows and type; uncopied, unless there were too many parts."""
        if not (first.names and second.names):
            return first if first.names else second
        names, parts = first.names + second.names, first.parts + second.parts
        both = cls.seen(names, first.rows, None, parts=parts)
        return both if len(parts) <= PARTS_MAX else cls.seen(names, first.rows, both.data)

    @property
    def parts(self) -> tuple[Block, ...]:
        """The blocks of one buffer each that it consists of, in the order of the names."""
        return self._parts or (self,)

    @property
    def data(self) -> NDArray[Any]:
        """All columns in one buffer: of several parts a copy."""
        if self._data is None:
            columns = [part.column(name) for part in self._parts for name in part.names]
            self._data = Block.build(self.names, self.rows, columns, self._parts[0].data.dtype).data
        return self._data

    @property
    def nbytes(self) -> int:
        return len(self.names) * self.stride * ITEM_BYTES

    def index(self, name: str) -> int:
        if self._index is None:
            self._index = _places_of(self.names)
        return self._index[name]

    def __contains__(self, name: object) -> bool:
        if self._index is None:
            self._index = _places_of(self.names)
        return name in self._index

    def column(self, name: str) -> NDArray[Any]:
        place = self.index(name)
        for part in self._parts:
            if place < len(part.names):
                return part.column(name)
            place -= len(part.names)
        start = place * self.stride
        return self.data[start : start + self.rows]

    def matrix(self, names: Sequence[str]) -> NDArray[Any]:
        """`(rows, len(names))`, Fortran order: a view when the names stand together in one part, else a copy in the
        same layout, so that what is computed from it does not depend on which of both it was."""
        start = _run_of(self.names, tuple(names))
        if start is not None:
            first, stop = 0, start + len(names)
            for part in self.parts:
                if first <= start and stop <= first + len(part.names):
                    table = part.data.reshape(len(part.names), self.stride)
                    view = table[start - first : stop - first, : self.rows].T
                    view.flags.writeable = False
                    return view
                first += len(part.names)
        if len(set(names)) < len(names):
            raise ValueError(f"a column is named twice: {list(names)}")
        columns = (self.column(n) for n in names)
        return Block.build(tuple(names), self.rows, columns, self.parts[0].data.dtype).matrix(names)


@lru_cache(maxsize=64)
def _places_of(names: tuple[str, ...]) -> dict[str, int]:
    return {name: place for place, name in enumerate(names)}


@lru_cache(maxsize=64)
def _run_of(names: tuple[str, ...], wanted: tuple[str, ...]) -> int | None:
    """Where the wanted ones begin, if they stand together; KeyError for one that is not there."""
    found = [_places_of(names)[name] for name in wanted]
    return found[0] if found and found == list(range(found[0], found[0] + len(found))) else None


class Batch:
    """Rows in columns, with where they came from and when.

    `sequence` counts the batches of the emitting stage within an epoch's replayable order, `spans` say which source
    positions the rows have, in row order, `ingest_ns` is CLOCK_MONOTONIC in ns when the source emitted the oldest row.
    Views returned by a batch that came over a link are valid until `process` returns, and so are batches that share its
    memory (`with_columns`, and `select` of every row); who keeps one keeps a `copy`.
    """

    __slots__ = ("floats", "ingest_ns", "ints", "rows", "schema", "sequence", "spans", "texts")

    def __init__(
        self,
        schema: Schema,
        rows: int,
        floats: Block,
        ints: Block,
        texts: Mapping[str, list[str | None]],
        *,
        sequence: int = 0,
        spans: tuple[Span, ...] = (),
        ingest_ns: int = 0,
    ) -> None:
        self.schema = schema
        self.rows = rows
        self.floats = floats
        self.ints = ints
        self.texts = texts
        self.sequence = sequence
        self.spans = spans
        self.ingest_ns = ingest_ns

    @classmethod
    def build(
        cls,
        columns: Mapping[str, Any],
        *,
        sequence: int = 0,
        spans: tuple[Span, ...] = (),
        ingest_ns: int = 0,
    ) -> Batch:
        """A batch from name -> float array, int array or list of text, copied into blocks.

        Types are told by the values: a list whose first entry that is not None is a str (or that is all None) is
        text, an integer array is int64, everything else float64. ValueError for what the type has no place for.

        >>> b = Batch.build({"x": [1.0, 2.0], "who": ["a", None]})
        >>> b.schema.floats, b.schema.texts, b["x"].tolist(), b["who"]
        (('x',), ('who',), [1.0, 2.0], ['a', None])
        """
        floats: dict[str, Any] = {}
        ints: dict[str, Any] = {}
        texts: dict[str, list[str | None]] = {}
        rows = len(next(iter(columns.values()))) if columns else 0
        by_kind: dict[str, dict[str, Any]] = {"f": floats, "i": ints, "t": texts}
        for name, values in columns.items():
            if len(values) != rows:
                raise ValueError(f"column {name!r} has {len(values)} rows, the first one {rows}")
            if type(values) is np.ndarray and values.dtype.kind in "fi":
                by_kind[values.dtype.kind][name] = values
            else:
                kind, held = held_as(name, values)
                by_kind[kind][name] = held
        if rows > ROWS_MAX:
            raise ValueError(f"{rows} rows in one batch, at most {ROWS_MAX}")
        schema = schema_of(tuple(floats), tuple(ints), tuple(texts))
        return cls(
            schema,
            rows,
            Block.build(schema.floats, rows, floats.values(), np.float64),
            Block.build(schema.ints, rows, ints.values(), np.int64),
            texts,
            sequence=sequence,
            spans=spans,
            ingest_ns=ingest_ns,
        )

    def __len__(self) -> int:
        return self.rows

    @property
    def nbytes(self) -> int:
        """About what it holds in memory: the numbers, and a byte for each character."""
        texts = sum(len(text) for column in self.texts.values() for text in column if text)
        return self.floats.nbytes + self.ints.nbytes + texts

    def __contains__(self, name: object) -> bool:
        return name in self.floats or name in self.ints or name in self.texts

    def __getitem__(self, name: str) -> Any:
        """A read-only contiguous view of a numeric column, or the list of a text column."""
        if name in self.texts:
            return self.texts[name]
        block = self.floats if name in self.floats else self.ints
        try:
            return block.column(name)
        except KeyError:
            raise KeyError(f"no column {name!r}; there are {list(self.schema.names)}") from None

    def matrix(self, names: Sequence[str]) -> Array:
        """Float columns as `(rows, len(names))` in Fortran order, read-only (see `Block.matrix`)."""
        return cast(Array, self.floats.matrix(names))

    def columns(self) -> dict[str, Any]:
        """Every column by name, in schema order."""
        return {name: self[name] for name in self.schema.names}

    def with_columns(self, columns: Mapping[str, Any]) -> Batch:
        """This batch with columns added or replaced; order is kept, new ones come last of their type. Where none is
        replaced the old ones are not copied: the result shares the memory of this batch."""
        if not _is_without(self.schema, tuple(columns)):
            return self._rebuilt({**self.columns(), **columns}, self.spans)
        added = Batch.build(columns)
        if columns and added.rows != self.rows:
            raise ValueError(f"column {next(iter(columns))!r} has {added.rows} rows, the batch {self.rows}")
        ours, theirs = self.schema, added.schema
        return Batch(
            schema_of(ours.floats + theirs.floats, ours.ints + theirs.ints, ours.texts + theirs.texts),
            self.rows,
            Block.joined(self.floats, added.floats),
            Block.joined(self.ints, added.ints),
            {**self.texts, **added.texts} if added.texts else self.texts,
            sequence=self.sequence,
            spans=self.spans,
            ingest_ns=self.ingest_ns,
        )

    def copy(self) -> Batch:
        """The same in memory of its own: what to keep when `process` returns."""
        return self._rebuilt(self.columns(), self.spans)

    def without(self, names: Iterable[str]) -> Batch:
        """This batch without the named columns; names that are not there are no error."""
        gone = set(names)
        return self._rebuilt({n: v for n, v in self.columns().items() if n not in gone}, self.spans)

    def select(self, keep: NDArray[np.bool_]) -> Batch:
        """The rows where `keep` (`rows` booleans) is true, with their positions."""
        if bool(keep.all()):
            return self
        chosen = np.flatnonzero(keep)
        columns = {
            name: ([values[i] for i in chosen] if isinstance(values, list) else values[chosen])
            for name, values in self.columns().items()
        }
        return self._rebuilt(columns, _spans_of(self.spans, chosen))

    def positions(self) -> IntArray:
        """The source position of every row, int64; rows of several sources each in their own numbering."""
        parts = [np.arange(s.start, s.start + s.count, dtype=np.int64) for s in self.spans]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)

    def _rebuilt(self, columns: Mapping[str, Any], spans: tuple[Span, ...]) -> Batch:
        return Batch.build(columns, sequence=self.sequence, spans=spans, ingest_ns=self.ingest_ns)


def _spans_of(spans: tuple[Span, ...], chosen: NDArray[np.intp]) -> tuple[Span, ...]:
    """The spans of the chosen row numbers (ascending)."""
    result: list[Span] = []
    first = 0
    for span in spans:
        inside = chosen[(chosen >= first) & (chosen < first + span.count)] - first + span.start
        if inside.size:
            runs = np.split(inside, np.flatnonzero(np.diff(inside) != 1) + 1)
            result.extend(Span(span.source, int(run[0]), int(run.size), span.via) for run in runs)
        first += span.count
    return tuple(result)


def origins(batch: Batch, rows: NDArray[np.intp]) -> list[tuple[str, int]]:
    """Source and position of these rows (ascending)."""
    result: list[tuple[str, int]] = []
    first = 0
    for span in batch.spans:
        low, high = np.searchsorted(rows, (first, first + span.count))
        result += [(span.source, span.start + row - first) for row in rows[low:high].tolist()]
        first += span.count
    return result
