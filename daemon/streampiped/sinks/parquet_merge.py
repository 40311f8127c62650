"""Small files of the Parquet sink become larger ones: a file for each epoch is one a second, and a reader opens all.

Only files behind the oldest epoch that a rollback may ask for; a slice of the work at each `prepare`. A merge begins
with MERGE_FILES small files, or when they are together as large as a file is to be. It takes an older file along when
those behind it are as large: so a row is copied a few times at most, and few small files are left.

The directory is exchanged, not its files: a new one has hard links to the files that stay and the new file, and the two
swap their names in one step (renameat2). So nobody who holds the directory open, or has it as the working directory,
sees a row twice or misses one: the old one stays as it is until the next merge, or until the disk refuses. Who looks
for each file by its path is told nothing when a small file goes between the list and the look: pyarrow leaves out what
is not there. No order of renames helps, for a name that is listed no more cannot be opened either. Hence merging is an
option.

Housekeeping: what fails here is left for later, or for good where the file system cannot do it.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from streampiped.sinks.parquet_files import UNFINISHED, Directory, Part, Rows, rows_in
from streampiped.sinks.parquet_rows import GROUP_BYTES, ROWS_MAX
from streampiped.stages.base import Emit

MERGE_FILES: Final = 64  # so that from 1 MB an epoch on a row is copied once
FILES_MAX: Final = 4  # times MERGE_FILES that one merge takes: it is done within some epochs, however many there are
MERGED_BYTES: Final = 64 << 20  # of a file that is large enough
FILE_COST: Final = 384 << 10  # bytes that are copied in the time that a small file takes: 1.2 ms of 17 columns
RETRY_EPOCHS: Final = 1000  # after a merge that failed: a full disk has other things to do
NEVER: Final = (errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.EXDEV, errno.ENOTSUP)  # no links, or no exchange


class File(NamedTuple):
    rows: Rows
    size: int


class Merger:
    """Knows the committed files, and which of them are being merged."""

    def __init__(self, files: Directory, compression: str, emit: Emit) -> None:
        self._files = files
        self._compression = compression
        self._emit = emit
        self._shown: list[File] | None = None  # of `data`, in order; None: to be listed
        self._merge: Merge | None = None
        self._wait = 0  # epochs
        self._is_off = False  # for good

    def forget(self) -> None:
        """What is in `data` may have changed, and what was begun is gone."""
        if self._merge is not None:
            self._merge.abandon()
        self._merge = self._shown = None

    def published(self, rows: Rows) -> None:
        """A file has come to `data`, the newest."""
        if self._shown is not None:
            with contextlib.suppress(FileNotFoundError):
                self._shown.append(File(rows, (self._files.data / rows.name).stat().st_size))

    def work(self, end: int, size: int) -> Rows | None:
        """Copy about `size` bytes of files before row `end`. The rows of a merged file that is ready for `install`."""
        if self._is_off:
            return None
        if self._wait:
            self._wait -= 1
            return None
        try:
            if self._merge is None:
                if not self._files.can_exchange:
                    raise OSError(errno.ENOSYS, "libc has no renameat2")
                self._begin(end)
            return self._merge.rows if self._merge is not None and self._merge.copy(size) else None
        except (OSError, pa.ArrowException) as error:
            self._give_up(error)
            return None

    def install(self) -> None:
        """Readers see the merged file instead of the small ones."""
        assert self._merge is not None
        try:
            self._files.exchange(self._merge.path, self._merge.rows, self._merge.sources)
        except OSError as error:
            self._give_up(error)
            with contextlib.suppress(OSError):
                self._files.drop_next()
        self._merge = self._shown = None

    def _begin(self, end: int) -> None:
        if self._shown is None:
            found = sorted(rows_in(self._files.data))
            self._shown = [File(rows, (self._files.data / rows.name).stat().st_size) for rows in found]
        if chosen := choose([file for file in self._shown if file.rows.end <= end]):
            self._merge = Merge(self._files, [file.rows for file in chosen], self._compression)

    def _give_up(self, error: Exception) -> None:
        self._wait = RETRY_EPOCHS
        self._is_off = isinstance(error, OSError) and error.errno in NEVER
        again = "not tried again before a restart" if self._is_off else f"tried again after {RETRY_EPOCHS} epochs"
        self._emit("files_not_merged", path=str(self._files.path), reason=f"{error}; {again}")
        self.forget()


def choose(files: Sequence[File]) -> Sequence[File]:
    """Which to merge, neighbours; none: it is too early."""
    first = len(files)
    while first and files[first - 1].size < MERGED_BYTES:
        first -= 1
    small, most = files[first:], FILES_MAX * MERGE_FILES
    ends = list(accumulate((file.size for file in small), initial=0))
    for number, file in enumerate(small):
        chosen = small[number : number + most]
        size = ends[number + len(chosen)] - ends[number]
        if 2 * file.size <= size:
            is_worth_it = len(chosen) >= MERGE_FILES or size >= MERGED_BYTES
            return chosen[: _enough(chosen)] if is_worth_it else ()
    return ()


def _enough(files: Sequence[File]) -> int:
    """How many of them make a file that is large enough, or all."""
    size = 0
    for number, file in enumerate(files):
        size += file.size
        if size >= MERGED_BYTES:
            return number + 1
    return len(files)


class Merge:
    """One file that is being made of several."""

    def __init__(self, files: Directory, sources: Sequence[Rows], compression: str) -> None:
        self.sources = sources
        self.rows = Rows(sources[0].first, sources[-1].end)
        self.path = files.prepared / f"{self.rows.name}.merged"
        paths = [files.data / rows.name for rows in sources]
        schema = pq.read_schema(paths[-1])  # the newest has the columns of all
        self._part = Part(self.path.with_name(self.path.name + UNFINISHED), schema, compression)
        self._copying = _copied(self._part, paths)

    def copy(self, size: int) -> bool:
        """About so many bytes more, or as much work; whether that was all."""
        for copied in self._copying:
            size -= copied
            if size <= 0:
                return False
        self._part.finish(self.path)
        return True

    def abandon(self) -> None:
        self._copying.close()
        self._part.abandon()
        for path in (self.path, self._part.path):
            with contextlib.suppress(OSError):
                path.unlink()


def _copied(part: Part, paths: Sequence[Path]) -> Any:
    """Write the rows of the files in row groups of the usual size, and tell what each that was read costs."""
    waiting: list[Any] = []
    rows = size = 0
    for path in paths:
        cost = FILE_COST
        for table in _groups(path, part.schema):
            if waiting and (rows + table.num_rows > ROWS_MAX or size >= GROUP_BYTES):
                part.write(pa.concat_tables(waiting))
                waiting, rows, size = [], 0, 0
            waiting.append(table)
            rows += table.num_rows
            size += table.nbytes
            yield cost + table.nbytes
            cost = 0
    if waiting:
        part.write(pa.concat_tables(waiting))


def _groups(path: Path, schema: pa.Schema) -> Iterator[Any]:
    """The row groups of a file, with all columns."""
    with pq.ParquetFile(path) as file:
        for number in range(file.num_row_groups):
            table = file.read_row_group(number, use_threads=False)
            columns = [
                table[field.name] if field.name in table.column_names else pa.nulls(table.num_rows, field.type)
                for field in schema
            ]
            yield pa.Table.from_arrays(columns, schema=schema)
