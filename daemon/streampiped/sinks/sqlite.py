"""Rows in an SQLite database that anybody may query while it is written.

A transaction is only a unit of I/O here; what counts as committed is told by one row, the high-water mark in
`visible`. So `commit` is one UPDATE and `rollback` a DELETE beyond a mark, where moving rows from a pending table would
write every row twice (measured in a prototype: 225 instead of 320-465 k rows/s of 17 columns).

WAL, so that readers never wait and never make the writer wait; a reader that stays in one transaction only keeps the
WAL file from being used again from its start. `synchronous` is NORMAL (no fsync at a COMMIT) but for the mark that
`prepare` writes, in a transaction of its own after the rows': its fsync covers the whole WAL, and `commit`, which the
data path waits for, needs none: after a crash `rollback` sets the mark again from the manifest. Copying the WAL back
into the database costs two fsyncs more and is done in `prepare` alone, before the mark: so that the first write into a
WAL begun anew, which SQLite always makes durable, is in `prepare` too.

A mark says that a rollback to its epoch is exact. With `retain`, rows that the oldest epoch still needed may be deleted
only after `reach.oldest` has gone on, in the same transaction; and `reach.newest` remembers how far the sink has ever
been, so that an epoch whose mark is gone is told from one that this file never saw.

A full disk. Rows that were not prepared are in the WAL at most, behind its last valid frame: the next transaction
overwrites them, so a rollback finds room there even before anybody has made some. What fails, fails whole: SQLite rolls
back, and an automatic checkpoint that finds no room is tried again with the next. After a failure the connection is
opened anew, whatever state it was in. After an I/O error an fsync that succeeds proves nothing about the pages of the
one that failed: everything is copied into the database and the WAL begun anew before anything else is built on it.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from streampiped.errors import StateError, StorageError
from streampiped.records import Batch, Schema
from streampiped.sinks import sqlite_schema
from streampiped.sinks.base import Refusal, Sink, positions_of, sources_of, unreachable
from streampiped.stages.base import Emit, StageOptions

BUSY_S: Final = 10.0  # how long another writer (a person in the sqlite3 shell) may hold the lock; then the stage fails
PAGE_BYTES: Final = 8192  # 289 k rows/s of 17 columns with pages of 8 KiB, 251 k with SQLite's default of 4
CHECKPOINT_PAGES: Final = 4000  # 32 MiB of WAL before it is copied back: 337 k rows/s, 289 k with the default of 1000
WAL_BYTES_KEPT: Final = 64 << 20  # a WAL that a long reader let grow is cut back to this
PIECE_ROWS: Final = 256  # made into objects at a time
DELETE_ROWS: Final = 4096  # per batch, or twice its rows if that is more: so that a shortened `retain` is reached
IN_FLIGHT: Final = 1  # epochs beyond the retained ones that a rollback may ask for: the one that is being committed

DISK_REFUSES: Final = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
    }
)
"""Primary result codes after which the same file may be as good as ever."""
PRIMARY: Final = 0xFF  # the part of an extended result code that is the primary one
SQLITE_IOERR_CORRUPTFS: Final = (
    sqlite3.SQLITE_IOERR | 33 << 8
)  # Python 3.11 does not name it: the file system is damaged
MEMORY: Final = Path(":memory:")


class SqliteOptions(StageOptions):
    """`type = "sqlite"`."""

    type: Literal["sqlite"] = "sqlite"
    path: Path = Path("records.sqlite")
    """Relative to the stage's directory."""
    retain: Annotated[int, Field(ge=0)] = 1_000_000
    """Rows that stay, the newest; about 180 MB with 17 columns. 0: all, until the disk is full."""


class SqliteSink(Sink):
    """The database is opened at the first call, so that checking a configuration creates nothing."""

    def __init__(self, options: SqliteOptions, directory: Path, emit: Emit, retain_epochs: int = 3) -> None:
        """`retain_epochs` says how far back the pipeline may have to go."""
        self._options = options
        self._original: Sink | None = None
        self._path = directory / options.path
        self._retain = options.retain
        self._retain_epochs = retain_epochs
        self._emit = emit
        self._opened: sqlite3.Connection | None = None
        self._refusal = Refusal(self._path)
        self._suspect = False  # an I/O error has happened: the WAL is to be begun anew
        self._columns: dict[str, str] = {}
        self._statement: tuple[Schema | None, str | None, str, str] = (None, None, "", "")  # schema, source, and SQL
        self._last = 0  # id of the newest row
        self._oldest = 1  # id of the oldest row that may be there
        self._floor: tuple[int, int] = (0, 0)  # epoch that still needs every row beyond this id
        self._reach: tuple[int | None, int | None] = (None, None)  # epochs, of the table of this name
        self._visible: tuple[int | None, int] = (None, 0)  # epoch and id

    def write(self, batch: Batch) -> None:
        with self._guarded() as db:
            if not db.in_transaction:
                db.execute("BEGIN IMMEDIATE")
            source = _only_source(batch)
            if self._statement[:2] != (batch.schema, source):
                sqlite_schema.add_columns(db, self._columns, batch.schema, self._retain)
                self._statement = (batch.schema, source, *sqlite_schema.inserts(self._columns, batch.schema, source))
            self._insert(db, _rows_of(batch, with_source=source is None))
            self._last += batch.rows
            self._delete_old(db, max(DELETE_ROWS, 2 * batch.rows))

    def prepare(self, epoch: int) -> None:
        with self._guarded() as db:
            db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")  # at the COMMIT of the rows, or of the mark
            if db.in_transaction:
                db.execute("COMMIT")
            db.execute("PRAGMA synchronous = FULL")  # may only change between transactions
            db.execute("BEGIN IMMEDIATE")
            db.execute("INSERT OR REPLACE INTO epochs VALUES (?, ?)", (epoch, self._last))
            if self._reach[0] is not None:  # marks that no rollback uses and no row needs to know its epoch
                db.execute("DELETE FROM epochs WHERE last_id < ? AND epoch < ?", (self._oldest, self._reach[0]))
            self._go_on(db, (self._reach[0], max(epoch, -1 if self._reach[1] is None else self._reach[1])))
            db.execute("COMMIT")
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute("PRAGMA wal_autocheckpoint = 0")

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
        if self._refusal.failure is not None:
            self.close()
        self._refusal.clear()
        with self._guarded() as db:
            if db.in_transaction:
                db.execute("ROLLBACK")
            if self._suspect:
                _begin_wal_anew(db)
                self._suspect = False
            mark = None if epoch is None else self._target(db, epoch)
            db.execute("BEGIN IMMEDIATE")
            if mark is None:  # without a condition SQLite drops the pages and looks at no row
                db.execute("DELETE FROM records")
                db.execute("DELETE FROM epochs")
                self._go_on(db, (None, self._reach[1]))
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

    def double(self) -> Sink:
        """The same tables in memory. The connection of this one stays with it, untouched: SQLite's locks belong to the
        process that took them, and a close in another one would take the WAL file away."""
        double = SqliteSink(self._options, MEMORY, self._emit, self._retain_epochs)
        double._original = self
        double._path = MEMORY
        with double._guarded() as db:
            sqlite_schema.adopt_columns(db, self._columns, self._retain)
            double._load(db)
        return double

    def close(self) -> None:
        if self._opened is not None:
            with contextlib.suppress(sqlite3.Error):  # it may be broken
                self._opened.close()  # rolls back what is not committed
            self._opened = None

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[sqlite3.Connection]:
        """The open database. SQLite may have rolled back by itself when a statement fails (a full disk), and rows of
        earlier calls with it."""
        self._refusal.check()
        try:
            if self._opened is None:
                self._opened = self._open()
            yield self._opened
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)  # the module's own errors have none
            self._suspect = self._suspect or code & PRIMARY == sqlite3.SQLITE_IOERR
            if code & PRIMARY in DISK_REFUSES and code != SQLITE_IOERR_CORRUPTFS:
                raise self._refusal.storage(error) from error
            raise self._refusal.state(error) from error
        except (OSError, StorageError) as error:
            raise self._refusal.storage(error) from error
        except StateError as error:
            raise self._refusal.state(error) from error

    def _open(self) -> sqlite3.Connection:
        is_new = self._path != MEMORY and not self._path.exists()
        db = sqlite3.connect(self._path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            db.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            sqlite_schema.create(db, self._retain)
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute("PRAGMA wal_autocheckpoint = 0")
            db.execute(f"PRAGMA journal_size_limit = {WAL_BYTES_KEPT}")
            self._load(db)
        except BaseException:
            db.close()
            raise
        if is_new:
            _sync_directory(self._path.parent)
        return db

    def _insert(self, db: sqlite3.Connection, rows: Iterator[tuple[Any, ...]]) -> None:
        """The first row brings its id, and SQLite gives those behind it the next ones: a parameter less for each, of
        which every one costs 4 % of the whole."""
        for row in islice(rows, 1):
            db.execute(self._statement[2], (self._last + 1, *row))
        db.executemany(self._statement[3], rows)

    def _load(self, db: sqlite3.Connection) -> None:
        """Know what the file has."""
        self._columns = sqlite_schema.columns(db)
        self._statement = (None, None, "", "")
        self._visible = db.execute("SELECT epoch, last_id FROM visible").fetchone()
        self._reach = db.execute("SELECT oldest, newest FROM reach").fetchone()
        first, last = db.execute("SELECT (SELECT min(id) FROM records), (SELECT max(id) FROM records)").fetchone()
        self._last = max(last or 0, self._visible[1])
        self._oldest = first or self._last + 1
        self._set_floor(db)

    def _target(self, db: sqlite3.Connection, epoch: int) -> tuple[int, int] | None:
        """The mark to go back to. Raises StateError when `epoch` was there and cannot be shown exactly any more."""
        mark = _mark(db, epoch)
        oldest, newest = self._reach
        exact = mark is not None and mark[0] == epoch and (oldest is None or epoch >= oldest)
        if not exact and newest is not None and epoch <= newest:
            query = "SELECT min(epoch), max(epoch) FROM epochs WHERE epoch >= ?"
            raise unreachable(epoch, *db.execute(query, (-1 if oldest is None else oldest,)).fetchone())
        if not exact:
            reason = "the file is new" if mark is None else f"the newest epoch it knows is {mark[0]}"
            self._emit("sink_incomplete", path=str(self._path), epoch=epoch, reason=reason)
        return mark

    def _go_on(self, db: sqlite3.Connection, reach: tuple[int | None, int | None]) -> None:
        if reach != self._reach:
            db.execute("UPDATE reach SET oldest = ?, newest = ?", reach)
            self._reach = reach

    def _set_floor(self, db: sqlite3.Connection) -> None:
        """Every epoch that the pipeline may go back to keeps its newest `retain` rows: counted by the marks of
        committed epochs, not by rows or time, for that is how the pipeline counts them."""
        if self._retain and self._visible[0] is not None:
            query = "SELECT epoch, last_id FROM epochs WHERE epoch <= ? ORDER BY epoch DESC LIMIT 1 OFFSET ?"
            mark = db.execute(query, (self._visible[0], self._retain_epochs - 1 + IN_FLIGHT)).fetchone()
            self._floor = (mark[0], mark[1] - self._retain) if mark else (0, 0)

    def _delete_old(self, db: sqlite3.Connection, rows_max: int) -> None:
        """A bounded slice of what nobody needs, in the transaction of the batch."""
        end = min(self._floor[1], self._oldest + rows_max - 1)
        if end >= self._oldest:
            self._go_on(db, (max(self._floor[0], self._reach[0] or 0), self._reach[1]))
            db.execute("DELETE FROM records WHERE id <= ?", (end,))
            self._oldest = end + 1


def _only_source(batch: Batch) -> str | None:
    """Of all its rows, when it can stand in an SQL text."""
    sources = {span.source for span in batch.spans}
    source = sources.pop() if len(sources) == 1 else ""
    return source if source and source.isprintable() else None


def _rows_of(batch: Batch, *, with_source: bool) -> Iterator[tuple[Any, ...]]:
    """Source, if asked for, position and values of each row. Objects are made for so many rows at a time as stay in the
    processor's cache until SQLite has taken them: 8192 rows of 16 columns at once, 4 MB, cost a sixth more in all."""
    heads = [iter(sources_of(batch)), iter(positions_of(batch))][not with_source :]
    columns = batch.columns().values()

    def piece(start: int) -> Iterator[tuple[Any, ...]]:
        rows = slice(start, start + PIECE_ROWS)
        values = (v[rows] if isinstance(v, list) else v[rows].tolist() for v in columns)
        count = min(PIECE_ROWS, batch.rows - start)
        return zip(*(islice(head, count) for head in heads), *values, strict=True)

    return chain.from_iterable(map(piece, range(0, batch.rows, PIECE_ROWS)))


def _mark(db: sqlite3.Connection, epoch: int) -> tuple[int, int] | None:
    """Epoch and last row of the newest prepared epoch <= `epoch`."""
    query = "SELECT epoch, last_id FROM epochs WHERE epoch <= ? ORDER BY epoch DESC LIMIT 1"
    found: tuple[int, int] | None = db.execute(query, (epoch,)).fetchone()
    return found


def _begin_wal_anew(db: sqlite3.Connection) -> None:
    """Copy everything into the database, durably. Raises StorageError while a reader is in the way."""
    busy, _, _ = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:
        raise StorageError("after an I/O error the write-ahead log must be begun anew, and a reader is still using it")


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
