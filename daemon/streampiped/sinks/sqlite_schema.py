"""The tables of the SQLite sink.

`records` has a row per record and a column per batch column. `committed_records` is the view to query: the rows of
committed epochs, with the epoch of each. A row's epoch is not stored with it: when a row is inserted the number of its
epoch is not known yet (an aborted one is never used again), and writing it later would touch every row twice.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from streampiped.errors import StateError
from streampiped.records import Schema
from streampiped.sinks.base import outer_names

APPLICATION_ID: Final = 0x53505250  # "SPRP" in the file's header, so that another program's database is never touched
COLUMNS_MAX: Final = 1990  # SQLite's own limit is 2000 columns per table, and the sink adds some
VERSION: Final = 1

TABLES: Final = (
    "CREATE TABLE records (id INTEGER PRIMARY KEY, source TEXT, position INTEGER)",
    # the last row of each epoch: its high-water mark
    "CREATE TABLE epochs (epoch INTEGER PRIMARY KEY, last_id INTEGER NOT NULL)",
    "CREATE INDEX epochs_by_row ON epochs (last_id, epoch)",
    "CREATE TABLE visible (one INTEGER PRIMARY KEY CHECK (one = 1), epoch INTEGER, last_id INTEGER NOT NULL)",
    "INSERT INTO visible VALUES (1, NULL, 0)",
    "CREATE TABLE columns (name TEXT PRIMARY KEY, outer_name TEXT NOT NULL)",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {VERSION}",
)


REACH: Final = (
    # one row. `oldest`: the oldest epoch whose rows are all there, NULL when none was ever deleted; `newest`: the
    # newest that was ever prepared, also if it was taken back. A file made before this table had deleted rows that
    # its visible epoch does not need.
    "CREATE TABLE reach (one INTEGER PRIMARY KEY CHECK (one = 1), oldest INTEGER, newest INTEGER)",
    "INSERT INTO reach SELECT 1, CASE WHEN (SELECT min(id) FROM records) > 1 THEN (SELECT epoch FROM visible) END, "
    "(SELECT max(epoch) FROM epochs)",
)


def create(db: sqlite3.Connection, retain: int) -> None:
    """Make the tables in an empty database, or check that these are ours. Raises StateError without a path."""
    objects = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    found = db.execute("PRAGMA application_id").fetchone()[0], db.execute("PRAGMA user_version").fetchone()[0]
    if objects and found != (APPLICATION_ID, VERSION):
        raise StateError(f"holds another program's tables (application id and version {found}); give another path")
    if not objects or _view(db, retain) != _present_view(db) or not _has_reach(db):
        db.execute("BEGIN IMMEDIATE")
        for statement in (() if objects else TABLES) + (() if objects and _has_reach(db) else REACH):
            db.execute(statement)
        _make_view(db, retain)
        db.execute("COMMIT")


def columns(db: sqlite3.Connection) -> dict[str, str]:
    """Column name -> name in the table, in the table's order."""
    return dict(db.execute("SELECT name, outer_name FROM columns ORDER BY rowid").fetchall())


def add_columns(db: sqlite3.Connection, known: dict[str, str], schema: Schema, retain: int) -> None:
    """Give the table what `schema` has and `known` has not, and tell `known`. Part of the open transaction."""
    kinds = {**dict.fromkeys(schema.floats, "REAL"), **dict.fromkeys(schema.ints, "INTEGER")}
    new = outer_names([name for name in schema.names if name not in known], known.values())
    if not new:
        return
    if len(known) + len(new) > COLUMNS_MAX:
        raise StateError(f"would have {len(known) + len(new)} columns, SQLite takes {COLUMNS_MAX}; use the jsonl sink")
    for name, outer in new.items():
        db.execute(f"ALTER TABLE records ADD COLUMN {quoted(outer)} {kinds.get(name, 'TEXT')}")
        db.execute("INSERT INTO columns VALUES (?, ?)", (name, outer))
    known.update(new)
    _make_view(db, retain)


def adopt_columns(db: sqlite3.Connection, known: dict[str, str], retain: int) -> None:
    """Give an empty table the columns of another one. Types are left out: SQLite takes any value in any column."""
    for name, outer in known.items():
        db.execute(f"ALTER TABLE records ADD COLUMN {quoted(outer)}")
        db.execute("INSERT INTO columns VALUES (?, ?)", (name, outer))
    _make_view(db, retain)


def inserts(known: dict[str, str], schema: Schema, source: str | None) -> tuple[str, str]:
    """Statements that insert id, source, position and the columns in `schema`'s order, and the same without the id,
    which is then one more than the largest. A `source` is part of their text; None: a parameter."""
    names = ["source", "position", *(quoted(known[name]) for name in schema.names)]
    values = ["?" if source is None else _literal(source), *"?" * (len(names) - 1)]
    statement = "INSERT INTO records ({}) VALUES ({})"
    first = statement.format(", ".join(("id", *names)), ", ".join(("?", *values)))
    return first, statement.format(", ".join(names), ", ".join(values))


def quoted(name: str) -> str:
    """An SQL identifier."""
    return '"' + name.replace('"', '""').replace("\0", "_") + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _make_view(db: sqlite3.Connection, retain: int) -> None:
    db.execute("DROP VIEW IF EXISTS committed_records")
    db.execute(_view(db, retain))


def _view(db: sqlite3.Connection, retain: int) -> str:
    """With `retain` the view shows exactly that many rows, whatever the deletion in slices has left so far: what an
    observer sees must not depend on how often the pipeline was killed."""
    epoch = "(SELECT e.epoch FROM epochs e WHERE e.last_id >= r.id ORDER BY e.last_id, e.epoch LIMIT 1) AS epoch"
    names = ["r.id", "r.source", "r.position", epoch, *(f"r.{quoted(name)}" for name in columns(db).values())]
    newest = f" AND r.id > v.last_id - {retain}" if retain else ""
    body = f"SELECT {', '.join(names)} FROM visible v JOIN records r ON r.id <= v.last_id{newest}"
    return f"CREATE VIEW committed_records AS {body}"


def _present_view(db: sqlite3.Connection) -> str | None:
    found: tuple[str] | None = db.execute("SELECT sql FROM sqlite_master WHERE name = 'committed_records'").fetchone()
    return found[0] if found else None


def _has_reach(db: sqlite3.Connection) -> bool:
    return db.execute("SELECT 1 FROM sqlite_master WHERE name = 'reach'").fetchone() is not None
