"""Batches as Arrow tables: which columns the files have, and rows collected until they make a row group."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa

from streampiped.records import Batch, Block, Schema
from streampiped.sinks.base import outer_names

ROWS_MAX: Final = 1 << 16  # of a row group: 9 MB of 17 columns; twice as many are written no faster
ROWS_MIN: Final = 1 << 10  # however wide: what the file says of each row group would outgrow its rows
GROUP_BYTES: Final = 16 << 20  # of numbers or of texts in a row group; memory holds one, and what is made of it
TYPES: Final = {"float": pa.float64(), "int": pa.int64(), "text": pa.string()}
SOURCE, POSITION = "source", "position"  # the sink's own columns, the first two


class Columns:
    """What the columns of batches are called in the files, and their types. A column stays for good, and each file has
    all that are known when it is begun: so the newest one has those of all. What comes under a known name and with
    another type is another column."""

    def __init__(self, listed: Iterable[Sequence[str]] = ()) -> None:
        """`listed`, as the method of this name told it."""
        self._outer = {(name, kind): outer for name, kind, outer in listed}

    def listed(self) -> list[tuple[str, str, str]]:
        """Name, kind and outer name of each, for JSON."""
        return [(*key, outer) for key, outer in self._outer.items()]

    def add(self, schema: Schema) -> bool:
        """Know these too; whether there are new ones."""
        kinds = {**dict.fromkeys(schema.floats, "float"), **dict.fromkeys(schema.ints, "int")}
        keys = [(name, kinds.get(name, "text")) for name in schema.names]
        new = {name: kind for name, kind in keys if (name, kind) not in self._outer}
        for name, outer in outer_names(new, self._outer.values()).items():
            self._outer[name, new[name]] = outer
        return bool(new)

    def of(self, kind: str) -> dict[str, str]:
        """Name -> outer name of this kind's."""
        return {name: outer for (name, its), outer in self._outer.items() if its == kind}

    def schema(self) -> pa.Schema:
        """Of a file. The sources are numbers and a list of names; a reader sees texts."""
        own = [(SOURCE, pa.dictionary(pa.int32(), pa.string())), (POSITION, pa.int64())]
        return pa.schema([*own, *((outer, TYPES[kind]) for (_, kind), outer in self._outer.items())])


class RowGroup:
    """Rows of batches, copied column by column into memory that is used again for the next ones."""

    def __init__(self, columns: Columns) -> None:
        self.schema = columns.schema()
        self._floats, self._ints, self._texts = (columns.of(kind) for kind in TYPES)
        width = len(self._floats) + len(self._ints) + 1
        self.rows_max = min(ROWS_MAX, max(ROWS_MIN, GROUP_BYTES // (8 * width)))
        self._float_rows = np.empty((len(self._floats), self.rows_max))
        self._int_rows = np.empty((1 + len(self._ints), self.rows_max), np.int64)
        self._clear()

    @property
    def is_full(self) -> bool:
        return self.rows >= self.rows_max or self._text_bytes >= GROUP_BYTES

    def fits(self, batch: Batch) -> bool:
        return self.rows + batch.rows <= self.rows_max

    def add(self, batch: Batch) -> None:
        """Copy the rows of a batch that fits. UnicodeEncodeError for a text that is none, before anything is kept."""
        texts = self._texts_of(batch)
        here = slice(self.rows, self.rows + batch.rows)
        for row, name in zip(self._float_rows, self._floats, strict=True):
            values = _column(batch.floats, name)
            row[here] = np.nan if values is None else values
        for number, values in enumerate(self._ints_of(batch)):
            self._int_rows[number, here] = 0 if values is None else values
            if values is None:
                self._absent.setdefault(number, []).append(here)
        for outer, array in texts.items():
            self._chunks[outer].append(array)
            self._text_bytes += array.nbytes
        self._sources += _runs_of(batch)
        self.rows += batch.rows

    def take(self) -> pa.Table:
        """What was added. Its numbers are in the memory of the next rows: it is used up before they come."""
        rows = self.rows
        masks = {number: _mask(gaps, rows) for number, gaps in self._absent.items()}
        floats = [row[:rows] for row in self._float_rows]
        ints = [(row[:rows], masks.get(number)) for number, row in enumerate(self._int_rows)]
        texts = {outer: pa.chunked_array(chunks, pa.string()) for outer, chunks in self._chunks.items()}
        table = self._table(floats, ints, texts, self._sources, rows)
        self._clear()
        return table

    def whole(self, batch: Batch) -> pa.Table:
        """A batch that is a row group by itself, its numbers uncopied."""
        floats = [_column(batch.floats, name) for name in self._floats]
        ints = [(values, None) for values in self._ints_of(batch)]
        return self._table(floats, ints, self._texts_of(batch), _runs_of(batch), batch.rows)

    def _clear(self) -> None:
        self.rows = 0
        self._text_bytes = 0
        self._absent: dict[int, list[slice]] = {}  # row of the ints -> where it has none
        self._chunks: dict[str, list[Any]] = {outer: [] for outer in self._texts.values()}
        self._sources: list[tuple[str | None, int]] = []

    def _ints_of(self, batch: Batch) -> list[Any]:
        """The positions and the integer columns; None for one that the batch has not."""
        return [batch.positions() if batch.spans else None, *(_column(batch.ints, name) for name in self._ints)]

    def _texts_of(self, batch: Batch) -> dict[str, Any]:
        absent = pa.nulls(batch.rows, pa.string())
        return {
            outer: pa.array(batch.texts[name], pa.string()) if name in batch.texts else absent
            for name, outer in self._texts.items()
        }

    def _table(
        self,
        floats: Sequence[Any],
        ints: Sequence[tuple[Any, Any]],
        texts: Mapping[str, Any],
        sources: Sequence[tuple[str | None, int]],
        rows: int,
    ) -> pa.Table:
        """NaN is null, as in the other sinks: what is missing is missing to every reader, and in no sum."""
        made = {outer: pa.array(v, from_pandas=True) for outer, v in _present(self._floats.values(), floats)}
        for outer, (values, mask) in zip((POSITION, *self._ints.values()), ints, strict=True):
            if values is not None:
                made[outer] = pa.array(values, mask=mask)
        made.update(texts)
        made[SOURCE] = _repeated(sources)
        arrays = [made[field.name] if field.name in made else pa.nulls(rows, field.type) for field in self.schema]
        return pa.Table.from_arrays(arrays, schema=self.schema)


def _present(names: Iterable[str], values: Iterable[Any]) -> Iterable[tuple[str, Any]]:
    return ((name, value) for name, value in zip(names, values, strict=True) if value is not None)


def _column(block: Block, name: str) -> Any:
    try:
        return block.column(name)
    except KeyError:
        return None


def _mask(gaps: Iterable[slice], rows: int) -> Any:
    mask = np.zeros(rows, bool)
    for gap in gaps:
        mask[gap] = True
    return mask


def _runs_of(batch: Batch) -> list[tuple[str | None, int]]:
    """The source of the rows, and of how many."""
    if not batch.spans:
        return [(None, batch.rows)]
    return [(span.source, span.count) for span in batch.spans]


def _repeated(runs: Sequence[tuple[str | None, int]]) -> Any:
    names = {name: number for number, name in enumerate(dict.fromkeys(name for name, _ in runs if name is not None))}
    codes = np.array([-1 if name is None else names[name] for name, _ in runs], np.int32)
    each = np.repeat(codes, [count for _, count in runs])
    indices = pa.array(each, mask=each < 0) if None in dict(runs) else pa.array(each)
    return pa.DictionaryArray.from_arrays(indices, pa.array(list(names), pa.string()))
