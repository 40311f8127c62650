"""The tables of dead_letters.sqlite, what is written into them, and how a file of the version before becomes one of
this. docs/specs/dead_letters.md is the contract."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from streampiped.errors import StateError

if TYPE_CHECKING:
    import sqlite3

APPLICATION_ID: Final = 0x5350444C  # "SPDL" in the file's header, so that another program's database is never touched
VERSION: Final = 2
VERSION_BEFORE: Final = 1
"""Its letters and skips did not know by which way their row had come."""

SKIP: Final = "INSERT INTO skips (stage, via, source, position, attempt) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
# A verdict of an attempt that the letter has already been judged for changes nothing: what is told twice, or again
# after a restore, is the same fact. The record stays the first one, for replays that older manifests name.
JUDGE: Final = """
INSERT INTO letters (stage, via, source, position, attempt, status, manner, reason, traceback, record, first_at,
                     last_at, generation)
VALUES (:stage, :via, :source, :position, :attempt, 'dead', :manner, :reason, :traceback, :record, :now, :now,
        :generation)
ON CONFLICT DO UPDATE SET
    attempt = excluded.attempt, status = 'dead', manner = excluded.manner, reason = excluded.reason,
    traceback = excluded.traceback, last_at = excluded.last_at, generation = excluded.generation
WHERE excluded.attempt > attempt OR excluded.attempt = attempt AND status = 'replayed'
"""
# Not where that very attempt has killed the stage: a verdict may come before the manifest that names the replay.
REPLAYED: Final = """
UPDATE letters SET status = 'replayed', attempt = max(attempt, :attempt), replay_epoch = :epoch
WHERE id = :id AND stage = :stage AND NOT EXISTS (
    SELECT 1 FROM skips AS s WHERE s.stage = letters.stage AND s.via = letters.via AND s.source = letters.source
    AND s.position = letters.position AND s.attempt = :attempt)
"""

_TABLES: Final = (
    """CREATE TABLE letters (
        id INTEGER PRIMARY KEY, stage TEXT NOT NULL, via TEXT NOT NULL, source TEXT NOT NULL,
        position INTEGER NOT NULL, attempt INTEGER NOT NULL,
        status TEXT NOT NULL CHECK (status IN ('dead', 'replayed', 'dropped')),
        manner TEXT NOT NULL, reason TEXT NOT NULL, traceback TEXT NOT NULL, record BLOB NOT NULL,
        first_at REAL NOT NULL, last_at REAL NOT NULL, generation INTEGER NOT NULL, replay_epoch INTEGER,
        UNIQUE (stage, via, source, position))""",
    "CREATE INDEX letters_by_status ON letters (status, id)",
    # what every replay leaves out, for ever: rows are added and never changed
    """CREATE TABLE skips (
        stage TEXT NOT NULL, via TEXT NOT NULL, source TEXT NOT NULL, attempt INTEGER NOT NULL,
        position INTEGER NOT NULL, PRIMARY KEY (stage, via, source, attempt, position)) WITHOUT ROWID""",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {VERSION}",
)
_BEFORE: Final = (
    "DROP INDEX letters_by_status",
    "ALTER TABLE letters RENAME TO letters_before",
    "ALTER TABLE skips RENAME TO skips_before",
)
_REST: Final = (
    "source, position, attempt, status, manner, reason, traceback, record, first_at, last_at, generation, replay_epoch"
)
_TAKE_OVER: Final = (
    f"INSERT INTO letters (id, stage, via, {_REST}) SELECT id, stage, '', {_REST} FROM letters_before",
    """INSERT INTO skips (stage, via, source, attempt, position)
        SELECT stage, '', source, attempt, position FROM skips_before""",
    "DROP TABLE letters_before",
    "DROP TABLE skips_before",
)


def version_of(db: sqlite3.Connection, *taken: int) -> int:
    """One of those that are `taken`, or 0: the file is empty, somebody was killed while he made it. StateError: it is
    something else."""
    owner, version = db.execute("PRAGMA application_id").fetchone()[0], db.execute("PRAGMA user_version").fetchone()[0]
    if owner == APPLICATION_ID and version in taken:
        return int(version)
    if owner == version == 0 and not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        return 0
    expected = f"dead letters have {APPLICATION_ID:#x} and {VERSION}"
    raise StateError(f"application id {owner:#x} and version {version}, {expected}")


def build(db: sqlite3.Connection, found: int) -> None:
    """Make the tables, `found` being the version of the file (0: it is empty), all or nothing: who is killed here
    leaves what he found. Nothing when it is of this version.

    What the version before has put aside it left out by every way, and so has every replay until now. That is what the
    empty way says, and all that is left to say of it."""
    statements: dict[int, tuple[str, ...]] = {0: _TABLES, VERSION_BEFORE: (*_BEFORE, *_TABLES, *_TAKE_OVER)}
    if found in statements:
        db.execute("BEGIN IMMEDIATE")
        for statement in statements[found]:
            db.execute(statement)
        db.execute("COMMIT")
