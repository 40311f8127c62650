"""Rows in an SQLite database that anybody may query while it is written.

A transaction is only a unit of I/O here; what counts as committed is told by one row, the high-water mark in
`visible`. So `commit` is one UPDATE and `rollback` a DELETE beyond a mark, where moving rows from a pending table would
write every row twice (measured in a prototype: 225 instead of 320-465 k rows/s of 17 columns).

WAL, so that readers never wait and never make the writer wait; a reader that stays in one transaction only keeps the
WAL file from being used again from its start. `synchronous` is NORMAL (no fsync at a COMMIT) but for the mark that
`prepare` writes, in a transaction of its own after the rows': its fsync covers the whole WAL, and `commit`, which the
data path waits for, needs none: after a crash `rollback` sets the mark again from the manifest.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from streampiped.errors import StateError
from streampiped.records import Batch, Schema
from streampiped.sinks import sqlite_schema
from streampiped.sinks.base import Sink, positions_of, sources_of
from streampiped.stages.base import Emit, StageOptions

BUSY_S: Final = 10.0  # how long another writer (a person in the sqlite3 shell) may hold the lock; then the stage fails
PAGE_BYTES: Final = 8192  # 289 k rows/s of 17 columns with pages of 8 KiB, 251 k with SQLite's default of 4
CHECKPOINT_PAGES: Final = 4000  # 32 MiB of WAL before it is copied back: 337 k rows/s, 289 k with the default of 1000
WAL_BYTES_KEPT: Final = 64 << 20  # a WAL that a long reader let grow is cut back to this
DELETE_ROWS: Final = 4096  # per batch, or twice its rows if that is more: so that a shortened `retain` is reached
RETAINED_EPOCHS: Final = 4  # rows that were the newest `retain` of the last so many epochs stay, for a fall back
MARKS_KEPT: Final = 1000  # epochs whose mark outlives its rows; far more than any `retain_epochs`


class SqliteOptions(StageOptions):
    """`type = "sqlite"`."""

    type: Literal["sqlite"] = "sqlite"
    path: Path = Path("records.sqlite")
    """Relative to the stage's directory."""
    retain: Annotated[int, Field(ge=0)] = 1_000_000
    """Rows that stay, the newest; about 180 MB with 17 columns. 0: all, until the disk is full."""


class SqliteSink(Sink):
    """The database is opened at the first call, so that checking a configuration creates nothing."""

    def __init__(self, options: SqliteOptions, directory: Path, emit: Emit) -> None:
        self._path = directory / options.path
        self._retain = options.retain
        self._emit = emit
        self._opened: sqlite3.Connection | None = None
        self._broken = ""
        self._columns: dict[str, str] = {}
        self._statement: tuple[Schema | None, str] = (None, "")
        self._last = 0  # id of the newest row
        self._oldest = 1  # id of the oldest row that may be there
        self._floor = 0  # rows up to this id may be deleted
        self._visible: tuple[int | None, int] = (None, 0)  # epoch and id

    def write(self, batch: Batch) -> None:
        with self._guarded() as db:
            if not db.in_transaction:
                db.execute("BEGIN IMMEDIATE")
            if self._statement[0] != batch.schema:
                sqlite_schema.add_columns(db, self._columns, batch.schema, self._retain)
                self._statement = (batch.schema, sqlite_schema.insert(self._columns, batch.schema))
            ids = range(self._last + 1, self._last + batch.rows + 1)
            values = (v if isinstance(v, list) else v.tolist() for v in batch.columns().values())
            rows = zip(ids, sources_of(batch), positions_of(batch), *values, strict=True)
            db.executemany(self._statement[1], rows)
            self._last += batch.rows
            self._delete_old(db, max(DELETE_ROWS, 2 * batch.rows))

    def prepare(self, epoch: int) -> None:
        with self._guarded() as db:
            if db.in_transaction:
                db.execute("COMMIT")
            db.execute("PRAGMA synchronous = FULL")  # may only change between transactions
            db.execute("BEGIN IMMEDIATE")
            db.execute("INSERT OR REPLACE INTO epochs VALUES (?, ?)", (epoch, self._last))
            db.execute("DELETE FROM epochs WHERE last_id < ? AND epoch < ?", (self._oldest, epoch - MARKS_KEPT))
            db.execute("COMMIT")
            db.execute("PRAGMA synchronous = NORMAL")

    def commit(self, epoch: int) -> None:
        with self._guarded() as db:
            mark = _mark(db, epoch)
            if mark is not None and mark[0] > (-1 if self._visible[0] is None else self._visible[0]):
                db.execute("UPDATE visible SET epoch = ?, last_id = ?", mark)
                if db.in_transaction:
                    db.execute("COMMIT")
                self._visible = mark
            self._set_floor(db)

    def rollback(self, epoch: int | None) -> None:
        self._broken = ""
        if self._opened is not None and self._opened.in_transaction:
            self._opened.rollback()
        with self._guarded() as db:
            mark = None if epoch is None else _mark(db, epoch)
            if epoch is not None and (mark is None or mark[0] != epoch):
                reason = "the file is new" if mark is None else f"the newest epoch it knows is {mark[0]}"
                self._emit("sink_incomplete", path=str(self._path), epoch=epoch, reason=reason)
            db.execute("BEGIN IMMEDIATE")
            if mark is None:  # without a condition SQLite drops the pages and looks at no row
                db.execute("DELETE FROM records")
                db.execute("DELETE FROM epochs")
            else:
                db.execute("DELETE FROM records WHERE id > ?", (mark[1],))
                db.execute("DELETE FROM epochs WHERE epoch > ?", (mark[0],))
            db.execute("UPDATE visible SET epoch = ?, last_id = ?", mark or (None, 0))
            db.execute("COMMIT")
            self._load(db)

    def summary(self) -> Mapping[str, Any]:
        rows = self._visible[1] - self._oldest + 1 if self._opened else 0
        return {
            "sink": "sqlite",
            "path": str(self._path),
            "rows": max(0, min(rows, self._retain) if self._retain else rows),
            "epoch": self._visible[0],
        }

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()  # rolls back what is not committed
            self._opened = None

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[sqlite3.Connection]:
        """The open database. SQLite may have rolled back by itself when a statement fails (a full disk), and rows of
        earlier calls with it."""
        if self._broken:
            raise StateError(f"{self._path}: {self._broken}; the rows since the last epoch must be written again")
        try:
            if self._opened is None:
                self._opened = self._open()
            yield self._opened
        except sqlite3.Error as error:
            self._broken = str(error)
            raise StateError(f"{self._path}: {error}") from error
        except StateError as error:
            self._broken = str(error)
            raise StateError(f"{self._path}: {error}") from error

    def _open(self) -> sqlite3.Connection:
        is_new = not self._path.exists()
        db = sqlite3.connect(self._path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            db.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            sqlite_schema.create(db, self._retain)
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
            db.execute(f"PRAGMA journal_size_limit = {WAL_BYTES_KEPT}")
            self._load(db)
        except BaseException:
            db.close()
            raise
        if is_new:
            _sync_directory(self._path.parent)
        return db

    def _load(self, db: sqlite3.Connection) -> None:
        """Know what the file has."""
        self._columns = sqlite_schema.columns(db)
        self._statement = (None, "")
        self._visible = db.execute("SELECT epoch, last_id FROM visible").fetchone()
        first, last = db.execute("SELECT (SELECT min(id) FROM records), (SELECT max(id) FROM records)").fetchone()
        self._last = max(last or 0, self._visible[1])
        self._oldest = first or self._last + 1
        self._set_floor(db)

    def _set_floor(self, db: sqlite3.Connection) -> None:
        if self._retain and self._visible[0] is not None:
            query = "SELECT last_id FROM epochs WHERE epoch <= ? ORDER BY epoch DESC LIMIT 1 OFFSET ?"
            mark = db.execute(query, (self._visible[0], RETAINED_EPOCHS - 1)).fetchone()
            self._floor = mark[0] - self._retain if mark else 0

    def _delete_old(self, db: sqlite3.Connection, rows_max: int) -> None:
        """A bounded slice of what nobody needs, in the transaction of the batch."""
        end = min(self._floor, self._oldest + rows_max - 1)
        if end >= self._oldest:
            db.execute("DELETE FROM records WHERE id <= ?", (end,))
            self._oldest = end + 1


def _mark(db: sqlite3.Connection, epoch: int) -> tuple[int, int] | None:
    """Epoch and last row of the newest prepared epoch <= `epoch`."""
    query = "SELECT epoch, last_id FROM epochs WHERE epoch <= ? ORDER BY epoch DESC LIMIT 1"
    found: tuple[int, int] | None = db.execute(query, (epoch,)).fetchone()
    return found


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
