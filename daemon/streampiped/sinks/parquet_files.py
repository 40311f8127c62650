"""The files of the Parquet sink.

    data/         what a reader reads: committed rows and nothing else
    prepared/     rows that are not committed yet, and what is being written
    next/         what `data` was before the last merge, or what it is going to be (parquet_merge.py)
    old/          what is being removed of it
    epochs.json   the marks (side_file.py), and the columns

A file is named for its rows, FIRST-LAST.parquet, numbered from 0 in the order in which they came. So the names sort in
that order, no two files have the same rows, and one that is missing is seen.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from streampiped.errors import StateError
from streampiped.sinks.parquet_options import SIDE
from streampiped.sinks.parquet_rows import POSITION
from streampiped.sinks.side_file import sync_directory

UNFINISHED: Final = ".part"  # behind the name of a file that has no end yet
RENAMEAT2: Final[Any] = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)  # not in every libc
_AT_FDCWD: Final = -100  # fcntl.h
_RENAME_EXCHANGE: Final = 2  # renameat2(2): the two swap their names in one step
_NAME: Final = re.compile(r"([0-9]{15})-([0-9]{15})\.parquet")


class Rows(NamedTuple):
    """Of one file, by number: from `first` up to `end`, which is the next one's."""

    first: int
    end: int

    @property
    def name(self) -> str:
        return f"{self.first:015d}-{self.end - 1:015d}.parquet"


class Part:
    """A file that is being written. A failure leaves it unusable: `abandon` it."""

    def __init__(self, path: Path, schema: pa.Schema, compression: str) -> None:
        self.path = path
        self.schema = schema
        self._out = _Out(path)
        texts = [field.name for field in schema if field.type not in (pa.float64(), pa.int64())]
        # Dictionaries of random numbers cost six times what writing them does, and make the file larger. The types
        # of Arrow stay out of it: a reader would make the sources a pandas Categorical.
        try:
            self._writer = pq.ParquetWriter(
                self._out,
                schema,
                compression=compression,
                use_dictionary=texts,
                column_encoding={POSITION: "DELTA_BINARY_PACKED"},
                store_schema=False,
            )
        except BaseException:  # its first bytes found no room: nobody else could close what is open
            self._out.is_muted = True
            self._out.close()
            raise

    def write(self, table: pa.Table) -> None:
        """One row group."""
        self._writer.write_table(table, row_group_size=max(1, table.num_rows))

    def finish(self, path: Path) -> None:
        """Durable, but for its name, and at this path."""
        self._writer.close()
        os.fsync(self._out.fd)
        self._out.close()
        self.path.replace(path)

    def abandon(self) -> None:
        """Never raises; the file stays as it is. A writer that is still open would end it when it is collected."""
        self._out.is_muted = True
        with contextlib.suppress(Exception):
            self._writer.close()
        self._writer.is_open = False
        self._out.close()


class _Out(io.RawIOBase):
    """A file that is written whole or raises: pyarrow takes no notice of how much a `write` has written."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.is_muted = False
        self.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        size = len(view)
        while view and not self.is_muted:
            view = view[os.write(self.fd, view) :]
        return size

    def close(self) -> None:
        if not self.closed:
            super().close()
            os.close(self.fd)


class Directory:
    """Where the files are."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data = path / "data"
        self.prepared = path / "prepared"
        self.next = path / "next"
        self.old = path / "old"
        self.side = path / SIDE

    def make(self) -> None:
        """The directories are there. StateError for a place that is somebody else's."""
        self.look()
        for directory in (self.path, self.data, self.prepared):
            with contextlib.suppress(FileExistsError):
                directory.mkdir(0o750)
                sync_directory(directory.parent)

    def look(self) -> None:
        """StateError for a place that is somebody else's."""
        if self.path.exists() and not self.path.is_dir():
            raise StateError("is no directory; name another path")
        if self.path.exists() and not self.side.exists() and (found := self._files()):
            raise StateError(
                f"has {found} files and no {SIDE}: another program's, or copied without it. Name another path, put "
                "them together again, or move the directory away to begin a new one"
            )

    def first(self) -> int:
        """Number of the oldest row there is."""
        return min((rows.first for place in (self.data, self.prepared) for rows in rows_in(place)), default=0)

    def check(self, oldest: int, end: int) -> None:
        """Raise StateError when rows between `oldest` and `end` are missing, or no file ends there. Who needs the room
        may remove files from the beginning."""
        reached = None
        for rows in sorted({*rows_in(self.data), *rows_in(self.prepared)}):
            if rows.first >= end:
                break
            if reached not in (None, rows.first):
                break
            reached = rows.end if reached is not None or rows.first <= oldest else end + 1
        if end and reached != end:
            raise StateError(
                f"has not all of the {end} rows that were committed, from row {oldest} on; put the files back, or "
                "remove the directory to begin a new one"
            )

    def drop_prepared(self, end: int) -> None:
        """Remove what is not committed from row `end` on, and what was being written."""
        for entry in _entries(self.prepared):
            match = _NAME.fullmatch(entry)
            if match is None or int(match[1]) >= end:
                (self.prepared / entry).unlink()

    def show(self, end: int) -> None:
        """Exactly the rows before `end` are in `data`. The newest go first: what is there has no hole at any time."""
        for rows in sorted(rows_in(self.data), reverse=True):
            if rows.first >= end:
                (self.data / rows.name).unlink()
        for rows in sorted(rows_in(self.prepared)):
            self.publish(rows)

    def publish(self, rows: Rows) -> None:
        """A prepared file becomes visible. A power failure may have left it in both: one file that has two names is
        not renamed to either."""
        prepared = self.prepared / rows.name
        prepared.replace(self.data / rows.name)
        prepared.unlink(missing_ok=True)

    @property
    def can_exchange(self) -> bool:
        return RENAMEAT2 is not None

    def exchange(self, merged: Path, rows: Rows, replaced: Sequence[Rows]) -> None:
        """In one step `data` has `merged` in the place of the files with its rows. The old directory is `next` then."""
        self.drop_next()
        self.sync()  # or a file would be durable here, and in `prepared` too
        self._make_next()
        gone = {each.name for each in replaced}
        for entry in _entries(self.data):
            if entry not in gone:
                (self.next / entry).hardlink_to(self.data / entry)
        merged.replace(self.next / rows.name)
        sync_directory(self.next)
        if RENAMEAT2(_AT_FDCWD, bytes(self.next), _AT_FDCWD, bytes(self.data), _RENAME_EXCHANGE):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(self.data))
        sync_directory(self.path)

    def drop_next(self) -> None:
        """Remove what an exchange has left, or was killed in. It has another name first: one that is still
        `data` or `next` when its reader has done is one that nobody has begun to remove."""
        self.drop_old()
        if self.next.exists():
            self.next.rename(self.old)
            self.drop_old()

    def _make_next(self) -> None:
        """With the owner, group, mode and extended attributes that `data` was given. PermissionError where one may not
        give them: who may read stays so, and the files small."""
        self.next.mkdir(0o750)
        like, made = self.data.stat(), self.next.stat()
        if (like.st_uid, like.st_gid) != (made.st_uid, made.st_gid):
            os.chown(self.next, like.st_uid, like.st_gid)
        shutil.copystat(self.data, self.next)

    def drop_old(self) -> None:
        if self.old.exists():
            shutil.rmtree(self.old)

    def sync(self) -> None:
        sync_directory(self.prepared)
        sync_directory(self.data)

    def _files(self) -> int:
        """How many there are, but for a first side file that was not written to its end."""
        names = [name for _, _, names in os.walk(self.path) for name in names]
        return len([name for name in names if name != f"{SIDE}.new"])


def rows_in(directory: Path) -> Iterator[Rows]:
    """Of every file of ours, in no order; of none where the directory is not made yet."""
    for entry in _entries(directory) if directory.exists() else ():
        if match := _NAME.fullmatch(entry):
            yield Rows(int(match[1]), int(match[2]) + 1)


def _entries(directory: Path) -> list[str]:
    return [entry.name for entry in directory.iterdir()]
