"""What can still be read of a damaged list of dead letters, put into a new one."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from streampiped.runtime.dead_letters_schema import VERSION, build, version_of
from streampiped.runtime.durable import TEMPORARY, sync_directory
from streampiped.runtime.epoch_store import DAMAGED

JOURNAL: Final = "-journal"
KEYS: Final = {"letters": "id", "skips": "stage {0}, via {0}, source {0}, attempt {0}, position"}
"""Of each table, in which order its rows are read: from both ends, up to what is damaged."""


def readable(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """The rows of each table that SQLite still gives. sqlite3.Error or StateError when the version is not there."""
    with looked_at(path) as db:
        version_of(db, VERSION)
        return {table: _rows(db, table, order) for table, order in KEYS.items()}


@contextlib.contextmanager
def looked_at(path: Path) -> Iterator[sqlite3.Connection]:
    """The list as a start would find it, and nothing is changed. Who was killed within a transaction leaves a journal
    that has to be played back, which a connection that only reads cannot do: it is played back into a copy."""
    with contextlib.ExitStack() as stack:
        if (journal := Path(f"{path}{JOURNAL}")).exists():
            copies = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="streampipe-")))
            shutil.copyfile(journal, copies / journal.name)
            path = Path(shutil.copyfile(path, copies / path.name))
            mode = "rw"
        else:
            mode = "ro"
        uri = f"{path.absolute().as_uri()}?mode={mode}"
        yield stack.enter_context(contextlib.closing(sqlite3.connect(uri, uri=True, isolation_level=None)))


def salvage(path: Path) -> None:
    """Put a new list in the place of a damaged one, which stays beside it under another name. Durable and all or
    nothing: at no time is there no list, for that would be another stream. OSError or sqlite3.Error when it cannot be
    done. It belongs to whom the old one belonged."""
    rows = readable(path)
    with contextlib.closing(sqlite3.connect(path)) as db, contextlib.suppress(sqlite3.Error):
        db.execute("SELECT count(*) FROM sqlite_master")  # plays the journal back, as a start would
    made = Path(f"{path}{TEMPORARY}")
    made.unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(made, isolation_level=None)) as db:
        db.execute("PRAGMA synchronous = EXTRA")
        build(db, 0)
        db.execute("BEGIN")
        for table, found in rows.items():
            marks = ", ".join("?" * len(found[0])) if found else ""
            db.executemany(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", found)
        db.execute("COMMIT")
    owner = path.stat()
    os.chown(made, owner.st_uid, owner.st_gid)
    made.chmod(stat.S_IMODE(owner.st_mode))
    beside = Path(f"{path}{DAMAGED}")
    beside.unlink(missing_ok=True)
    os.link(path, beside)
    with contextlib.suppress(FileNotFoundError):  # one that nobody could play back is not the new file's
        os.rename(f"{path}{JOURNAL}", f"{beside}{JOURNAL}")
    os.replace(made, path)
    sync_directory(path.parent)


def _rows(db: sqlite3.Connection, table: str, order: str) -> list[tuple[Any, ...]]:
    """Without doubles, in the table's order as far as it could be read."""
    first, last = list(_read(db, table, order, "ASC")), list(_read(db, table, order, "DESC"))
    seen = set(first)
    return first + [row for row in reversed(last) if row not in seen]


def _read(db: sqlite3.Connection, table: str, order: str, direction: str) -> Iterator[tuple[Any, ...]]:
    with contextlib.suppress(sqlite3.Error):
        yield from db.execute(f"SELECT * FROM {table} ORDER BY {order.format(direction)} {direction}")
