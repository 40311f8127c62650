"""A small database of a service beside the data path: SQLite, forgiving of what the world does to it.

A full disk, a lock or an I/O error costs a write, not the service: it is said once, and tried again later. A file
that is no database any more is set aside (one such file is kept for whoever wants to look) and a new one begins:
a history is worth something, but not a restart loop.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from streampiped.errors import StateError
from streampiped.stages.base import Emit

RETRY_S: Final = 5.0  # after a failed write: a full disk is not emptied sooner
BUSY_MS: Final = 500  # for somebody's sqlite3 shell that holds the write lock; the service answers nobody meanwhile
PAGE_BYTES: Final = 4096  # SQLite's default, stated because the size limit counts pages
WAL_BYTES_MAX: Final = 4 << 20  # what stays of the write-ahead log after a checkpoint

_UNUSABLE: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class History:
    """The database at `path` with `schema` (its `PRAGMA user_version` is `version`), at most `bytes_max` large."""

    def __init__(self, path: Path, schema: str, version: int, emit: Emit, *, bytes_max: int) -> None:
        """Raises StateError when there can be no database at all."""
        self.path = path
        self.opened = 0
        """How often a new, empty database was begun; whoever keeps something in memory compares it."""
        self.retry_at = 0.0
        """CLOCK_MONOTONIC second before which `write` does nothing, after a failure."""
        self._schema = f"{schema}; PRAGMA user_version = {version}"
        self._version = version
        self._emit = emit
        self._bytes_max = bytes_max
        self.trouble: str | None = None
        """Why it cannot be written or read at present."""
        self._db = self._open()

    def write(self, act: Callable[[sqlite3.Connection], None], now: float) -> bool:
        """Run `act` in one transaction. False: nothing of it was written; try again at `retry_at`."""
        if now < self.retry_at:
            return False
        try:
            self._db.execute("BEGIN IMMEDIATE")
            act(self._db)
            self._db.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            self._undo()
            self._handle(error, now)
            return False
        except BaseException:
            self._undo()
            raise
        if self.trouble is not None:
            self.trouble = None
            self._emit("history_recovered", path=str(self.path))
        return True

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The answer to a SELECT; empty when the database cannot be read now."""
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.DatabaseError as error:
            self._handle(error, self.retry_at)
            return []

    def close(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._db.close()

    def _undo(self) -> None:
        if self._db.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")

    def _handle(self, error: sqlite3.DatabaseError, now: float) -> None:
        """Set an unusable file aside, note a failure of the world; a wrong statement is a wrong program."""
        if _is_unusable(error):
            self._db.close()
            self._db = self._begin_anew(str(error))
        elif not isinstance(error, sqlite3.OperationalError) or _code(error) == sqlite3.SQLITE_ERROR:
            raise error
        else:
            self.retry_at = now + RETRY_S
            if self.trouble is None:
                self._emit("history_failed", path=str(self.path), reason=str(error), seconds=RETRY_S)
            self.trouble = str(error)

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connect()
        except sqlite3.DatabaseError as error:
            if not _is_unusable(error):
                raise StateError(f"{self.path}: {error}") from error
            return self._begin_anew(str(error))

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        try:
            db.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
            # with a WAL, NORMAL survives a kill of any process; only a power cut may cost the last transactions
            db.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA temp_store = MEMORY")
            db.execute(f"PRAGMA journal_size_limit = {WAL_BYTES_MAX}")
            db.execute(f"PRAGMA max_page_count = {max(64, self._bytes_max // PAGE_BYTES)}")
            (found,) = db.execute("PRAGMA user_version").fetchone()
            if found == 0:
                db.executescript(f"BEGIN; {self._schema}; COMMIT")
            elif found != self._version:
                raise _no_database(f"its format is {found}, this program's {self._version}")
        except sqlite3.Error:
            db.close()
            raise
        return db

    def _begin_anew(self, reason: str) -> sqlite3.Connection:
        kept = self.path.with_name(self.path.name + ".unusable")
        os.replace(self.path, kept)
        for suffix in ("-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        self.opened += 1
        self._emit("history_reset", path=str(self.path), reason=reason, kept=str(kept))
        return self._connect()


def _is_unusable(error: sqlite3.DatabaseError) -> bool:
    return _code(error) in _UNUSABLE


def _code(error: sqlite3.DatabaseError) -> int:
    """The primary result code (sqlite.org/rescode.html); 0 for an error that is not of the library."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _no_database(reason: str) -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError(reason)
    error.sqlite_errorcode = sqlite3.SQLITE_NOTADB
    return error
