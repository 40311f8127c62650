"""Rows in Parquet files, one for each epoch.

The rows of an epoch go to a file beside those that are read (`prepared/`), a row group at a time, so that memory stays
bounded. `prepare` ends it and makes it durable, `commit` renames it into `data/`: whoever reads that directory sees an
epoch whole or not at all, but for one in which new columns came (a second file begins there, and the two are renamed
one after the other), and with `merge` only if it holds the directory open. NaN is null.

The side file knows how many rows there were at each epoch, and a file's name which rows it has (parquet_files.py):
`rollback` removes the files beyond the mark, and shows those that are before it and were not shown yet. Marks go when
the files that they need are merged (parquet_merge.py) or were removed: those that the pipeline may ask for stay.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from streampiped.errors import StateError, StorageError
from streampiped.records import Batch, Schema
from streampiped.sinks.base import Refusal, Sink
from streampiped.sinks.parquet_files import UNFINISHED, Directory, Part, Rows
from streampiped.sinks.parquet_merge import Merger
from streampiped.sinks.parquet_options import ParquetOptions
from streampiped.sinks.parquet_rows import Columns, RowGroup
from streampiped.sinks.side_file import DAMAGE, Marks, sync_directory
from streampiped.stages.base import Emit

NOWHERE: Final = Path("/dev/null")
IN_FLIGHT: Final = 1  # epochs beyond the retained ones that a rollback may ask for: the one that is being committed
MERGE_BYTES: Final = 16 << 20  # copied for a merge in each `prepare`, or twice what the epoch has: 50 ms of 17 columns


class ParquetSink(Sink):
    """The directory is made at the first call, so that checking a configuration creates nothing."""

    def __init__(self, options: ParquetOptions, directory: Path, emit: Emit, retain_epochs: int = 3) -> None:
        """`retain_epochs` says how far back the pipeline may have to go."""
        self._options = options
        self._original: Sink | None = None
        self._stage_directory = directory
        self._path = directory / options.path
        self._emit = emit
        self._retain_epochs = retain_epochs
        self._committed: deque[int] = deque(maxlen=retain_epochs + IN_FLIGHT)  # rows of the newest, since `rollback`
        self._files = Directory(self._path)
        self._merger = Merger(self._files, options.compression, emit)
        self._marks = Marks(self._files.side, "rows")
        self._refusal = Refusal(self._path)
        self._is_open = False
        self._columns = Columns()
        self._schema: Schema | None = None  # of the last batch
        self._group: RowGroup | None = None
        self._part: Part | None = None
        self._part_first = 0  # number of its first row, or of that of the next one
        self._rows = 0  # ever written, as far as not taken back
        self._bytes = 0  # of the rows since the last epoch
        self._unseen: list[Rows] = []  # of the files that are prepared

    def write(self, batch: Batch) -> None:
        with self._guarded():
            if not batch.rows:
                return
            group = self._group_for(batch.schema)
            if not group.fits(batch):
                self._flush()
            if group.fits(batch):
                group.add(batch)
            else:
                self._write(group, group.whole(batch))
            self._rows += batch.rows
            if group.is_full:
                self._flush()

    def prepare(self, epoch: int) -> None:
        with self._guarded():
            self._finish()
            sync_directory(self._files.prepared)
            size = max(MERGE_BYTES, 2 * self._bytes)
            merged = self._merger.work(self._floor(), size) if self._options.merge else None
            self._bytes = 0
            self._marks.add(epoch, self._rows)
            if merged is not None:  # first the marks: a rollback to one of them could not be exact any more
                self._marks.forget_before(merged.end)
            self._save(durable=True)
            if merged is not None:
                self._merger.install()

    def commit(self, epoch: int) -> None:
        """The side file last: a crash before it leaves rows that are committed, and `rollback` says it again."""
        with self._guarded():
            if self._marks.show(epoch):
                end = self._marks.visible[1]
                self._committed.append(end)
                while self._unseen and self._unseen[0].end <= end:
                    self._files.publish(self._unseen[0])
                    self._merger.published(self._unseen.pop(0))
                self._save(durable=False)

    def rollback(self, epoch: int | None) -> None:
        """What no mark that counts reaches is removed first: the side file needs room, and the disk may be full of it.
        Committed rows go only when the side file says so: fewer than its mark would be taken for damage. What `data`
        was before a merge stays to its readers, unless the disk needs room."""
        needs_room = isinstance(self._refusal.failure, StorageError)
        self._refusal.clear()
        self.close()
        with self._guarded():
            mark = None if epoch is None else self._target(epoch)
            end = mark[1] if mark else 0
            if needs_room or not self._options.merge:
                self._files.drop_next()
            self._files.drop_old()
            self._files.drop_prepared(max(end, self._marks.visible[1]))
            self._marks.go_back(mark)
            self._save(durable=True)
            self._files.drop_prepared(end)
            self._files.show(end)
            self._files.sync()
            self._rows = self._part_first = end

    def foresee(self, epoch: int) -> None:
        """Raise and emit what `rollback(epoch)` would, and touch nothing. For a sink that does nothing else."""
        self._files.look()
        self._recall()
        self._target(epoch)

    def summary(self) -> Mapping[str, Any]:
        epoch, rows = self._marks.visible
        return {"sink": "parquet", "path": str(self._path), "rows": rows, "epoch": epoch}

    def double(self) -> Sink:
        """Row groups are made and go to /dev/null. The file of this one stays with it, without another end."""
        double = ParquetSink(self._options, self._stage_directory, self._emit)
        double._original = self
        double._columns = Columns(self._columns.listed())
        double._is_open = True
        return double

    def close(self) -> None:
        if self._part is not None:
            self._part.abandon()
        self._merger.forget()
        self._part = self._group = self._schema = None
        self._is_open = False

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """The directory is known. A write that failed may have left a part of a row group."""
        self._refusal.check()
        try:
            if not self._is_open:
                self._open()
            yield
        except (OSError, StorageError) as error:
            raise self._refusal.storage(error) from error
        except StateError as error:
            raise self._refusal.state(error) from error

    def _target(self, epoch: int) -> tuple[int, int] | None:
        """The mark to go back to, all of whose rows are there."""
        oldest = self._marks.oldest(epoch, self._retain_epochs)
        self._forget_removed()
        mark = self._marks.target(epoch, self._path, self._emit)
        self._files.check(oldest, mark[1] if mark else 0)
        return mark

    def _open(self) -> None:
        self._files.make()
        self._recall()
        self._unseen, self._bytes = [], 0
        self._committed.clear()
        self._is_open = True

    def _recall(self) -> None:
        """What the side file says."""
        self._marks.forget()
        self._columns = Columns()
        if self._files.side.exists():
            side = self._marks.load()
            try:
                self._columns = Columns(side["columns"])
            except DAMAGE as error:
                raise self._marks.damaged(error) from error

    def _save(self, *, durable: bool) -> None:
        self._marks.save(durable=durable, columns=self._columns.listed())

    def _forget_removed(self) -> None:
        """The marks of epochs whose files somebody removed from the beginning. That of what is visible stays: without
        it a directory that has lost everything would be taken for a new one."""
        if first := self._files.first():
            self._marks.forget_before(min(first + 1, self._marks.visible[1]))

    def _floor(self) -> int:
        """How many rows every epoch has that the pipeline may go back to. Only the commits themselves tell: some
        of the marks are of epochs that were prepared and given up."""
        return self._committed[0] if len(self._committed) == self._committed.maxlen else 0

    def _group_for(self, schema: Schema) -> RowGroup:
        """With all columns of this schema; new ones are in no file that was begun before."""
        if self._group is None or self._schema != schema:
            if self._columns.add(schema) or self._group is None:
                self._finish()
                self._group = RowGroup(self._columns)
            self._schema = schema
        return self._group

    def _flush(self) -> None:
        if self._group is not None and self._group.rows:
            self._write(self._group, self._group.take())

    def _write(self, group: RowGroup, table: Any) -> None:
        if self._part is None:
            path = self._files.prepared / f"{self._part_first:015d}{UNFINISHED}"
            self._part = Part(NOWHERE if self._original else path, group.schema, self._options.compression)
        self._part.write(table)
        self._bytes += table.nbytes

    def _finish(self) -> None:
        """The rows so far are in a file that has its end."""
        self._flush()
        if self._part is None:
            return
        rows, self._part_first = Rows(self._part_first, self._rows), self._rows
        if self._original:
            self._part.abandon()
        else:
            self._part.finish(self._files.prepared / rows.name)
            self._unseen.append(rows)
        self._part = None
