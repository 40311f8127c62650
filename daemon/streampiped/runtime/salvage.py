"""What can still be read of a damaged list of dead letters, put into a new one."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from streampiped.runtime.dead_letters_schema import VERSION, build, version_of
from streampiped.runtime.durable import TEMPORARY, sync_directory
from streampiped.runtime.epoch_store import DAMAGED

KEYS: Final = {"letters": "id", "skips": "stage {0}, via {0}, source {0}, attempt {0}, position"}
"""Of each table, in which order its rows are read: from both ends, up to what is damaged."""


def readable(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """The rows of each table that SQLite still gives. sqlite3.Error or StateError when the version is not there."""
    with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
        version_of(db, VERSION)
        return {table: _rows(db, table, order) for table, order in KEYS.items()}


def salvage(path: Path) -> None:
    """Put a new list in the place of a damaged one, which stays beside it under another name. Durable and all or
    nothing: at no time is there no list, for that would be another stream. OSError or sqlite3.Error when it cannot be
    done."""
    rows = readable(path)
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
    beside = Path(f"{path}{DAMAGED}")
    beside.unlink(missing_ok=True)
    os.link(path, beside)
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
