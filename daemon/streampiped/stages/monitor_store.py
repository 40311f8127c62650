"""The service monitor's tables: every sample for an hour, means of minutes for as long as wanted."""

from __future__ import annotations

import sqlite3
from typing import Final

from streampiped.stages.history import History
from streampiped.stages.process_probe import METRICS

VERSION: Final = 1
RAW_KEPT_S: Final = 3600.0  # what an operator looks at closely is what happened just now
MINUTE_S: Final = 60
ROW_BYTES: Final = 256  # of one row with its page's share, measured 176

COLUMNS: Final = ", ".join(METRICS)
SCHEMA: Final = f"""
CREATE TABLE names (id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL);
CREATE TABLE samples (process INTEGER, ts REAL, pid INTEGER, {COLUMNS}, PRIMARY KEY (process, ts)) WITHOUT ROWID;
CREATE TABLE minutes (process INTEGER, ts REAL, pid INTEGER, {COLUMNS}, PRIMARY KEY (process, ts)) WITHOUT ROWID;
CREATE VIEW history AS
    SELECT datetime(ts, 'unixepoch') AS time, name, ts, pid, {COLUMNS}
    FROM (SELECT * FROM samples UNION ALL SELECT * FROM minutes) JOIN names ON names.id = process
"""
"""The view is for people with a sqlite3 shell."""

Row = tuple[str, float, int, tuple[float | None, ...]]
"""(process name, seconds since the epoch, pid, METRICS)"""

_INSERT: Final = f"""
INSERT OR REPLACE INTO samples
SELECT id, ?, ?, {", ".join("?" for _ in METRICS)} FROM names WHERE name = ?
"""
_ROLL_UP: Final = f"""
INSERT OR REPLACE INTO minutes
SELECT process, CAST(ts / {MINUTE_S} AS INTEGER) * {MINUTE_S} AS minute, max(pid),
       {", ".join(f"avg({name})" for name in METRICS)}
FROM samples WHERE ts >= ? AND ts < ? GROUP BY process, minute
"""


def add(db: sqlite3.Connection, rows: list[Row]) -> None:
    """Write samples; to be called within a transaction."""
    db.executemany("INSERT OR IGNORE INTO names (name) VALUES (?)", [(name,) for name in {r[0] for r in rows}])
    db.executemany(_INSERT, [(ts, pid, *metrics, name) for name, ts, pid, metrics in rows])


def roll_up(db: sqlite3.Connection, now: float, retain: float) -> None:
    """Make the minutes that are complete at `now` (seconds since the epoch) and forget what is older than it is
    kept, or lies in the future after a clock was set back. Reads whole tables (33 ms when they are
    full): once a minute is enough."""
    for table, kept in (("samples", RAW_KEPT_S), ("minutes", retain)):
        db.execute(f"DELETE FROM {table} WHERE ts < ? OR ts > ?", (now - kept, now + MINUTE_S))
    (last,) = db.execute("SELECT max(ts) FROM minutes").fetchone()
    first = last + MINUTE_S if last is not None else 0
    complete = now // MINUTE_S * MINUTE_S
    if first < complete:
        db.execute(_ROLL_UP, (first, complete))


def points(history: History, process: str, metric: str, since: float, limit: int) -> list[list[float]]:
    """[ts, value] of one of METRICS, oldest first: means of minutes, then samples where there are any."""
    assert metric in METRICS
    query = f"""
    WITH this AS (SELECT id FROM names WHERE name = ?),
         fresh AS (SELECT ts, {metric} AS value FROM samples WHERE process = (SELECT id FROM this)),
         old AS (SELECT ts, {metric} AS value FROM minutes WHERE process = (SELECT id FROM this)
                 AND ts + {MINUTE_S} <= coalesce((SELECT min(ts) FROM fresh), 1e12))
    SELECT ts, value FROM (SELECT * FROM old UNION ALL SELECT * FROM fresh)
    WHERE ts >= ? AND value IS NOT NULL ORDER BY ts DESC LIMIT ?
    """
    return [[ts, value] for ts, value in reversed(history.rows(query, (process, since, limit)))]
