"""The service monitor's tables: every sample for an hour, minutes for as long as wanted.

Two families of the same make: what processes use, and how records flow through stages.
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from streampiped.stages.history import History
from streampiped.stages.pipeline_flow import FLOWS, WORST
from streampiped.stages.process_probe import METRICS

VERSION: Final = 2
RAW_KEPT_S: Final = 3600.0  # what an operator looks at closely is what happened just now
MINUTE_S: Final = 60
ROW_BYTES: Final = 256  # of one row with its page's share, measured 222


class Family(NamedTuple):
    """Two tables with the same columns. Of the `worst` ones a minute keeps the largest value, of the others the
    mean."""

    samples: str
    minutes: str
    columns: tuple[str, ...]
    worst: tuple[str, ...]

    def schema(self) -> str:
        columns = ", ".join(self.columns)
        keys = f"(process INTEGER, ts REAL, {columns}, PRIMARY KEY (process, ts)) WITHOUT ROWID"
        return f"CREATE TABLE {self.samples} {keys}; CREATE TABLE {self.minutes} {keys}"

    def view(self, name: str) -> str:
        """For people with a sqlite3 shell."""
        both = f"SELECT * FROM {self.samples} UNION ALL SELECT * FROM {self.minutes}"
        shown = f"datetime(ts, 'unixepoch') AS time, name, ts, {', '.join(self.columns)}"
        return f"CREATE VIEW {name} AS SELECT {shown} FROM ({both}) JOIN names ON names.id = process"


USE: Final = Family("samples", "minutes", ("pid", *METRICS), ("pid",))
FLOW: Final = Family("flow_samples", "flow_minutes", tuple(FLOWS), WORST)
UNITS: Final[Mapping[str, str]] = {**METRICS, **FLOWS}
"""Every metric that `points` gives, with its unit."""

SCHEMA: Final = "; ".join(
    (
        "CREATE TABLE names (id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL)",
        USE.schema(),
        USE.view("history"),
        FLOW.schema(),
        FLOW.view("flow"),
    )
)

Row = tuple[str, float, tuple[float | None, ...]]
"""(process name, seconds since the epoch, the family's columns)"""


def add(db: sqlite3.Connection, family: Family, rows: list[Row]) -> None:
    """Write samples; to be called within a transaction."""
    db.executemany("INSERT OR IGNORE INTO names (name) VALUES (?)", [(name,) for name in {r[0] for r in rows}])
    places = ", ".join("?" for _ in family.columns)
    insert = f"INSERT OR REPLACE INTO {family.samples} SELECT id, ?, {places} FROM names WHERE name = ?"
    db.executemany(insert, [(ts, *values, name) for name, ts, values in rows])


def forget(db: sqlite3.Connection, now: float, retain: float) -> None:
    """Forget what is beyond what is kept at `now` (seconds since the epoch). Samples go by the clock. Of minutes the
    newest `retain` in which there were any are kept, and as many of the future, which nobody is shown: whichever of
    two times a clock was wrong at, it has taken nothing of the other. Reads whole tables: once a minute is enough. To
    be called before `add`: a database at its limit has no room for samples until something is gone."""
    kept = int(retain // MINUTE_S)
    for family in (USE, FLOW):
        db.execute(f"DELETE FROM {family.samples} WHERE ts < ? OR ts > ?", (now - RAW_KEPT_S, now + MINUTE_S))
        minutes = [ts for (ts,) in db.execute(f"SELECT DISTINCT ts FROM {family.minutes} ORDER BY ts")]
        present = bisect_right(minutes, now)
        if present > kept:
            db.execute(f"DELETE FROM {family.minutes} WHERE ts < ?", (minutes[present - kept],))
        if len(minutes) > present + kept:
            db.execute(f"DELETE FROM {family.minutes} WHERE ts >= ?", (minutes[present + kept],))


def roll_up(db: sqlite3.Connection, now: float) -> None:
    """Make the minutes that are complete at `now`."""
    for family in (USE, FLOW):
        (last,) = db.execute(f"SELECT max(ts) FROM {family.minutes} WHERE ts <= ?", (now,)).fetchone()
        first = last + MINUTE_S if last is not None else 0
        complete = now // MINUTE_S * MINUTE_S
        if first < complete:
            db.execute(_roll_up(family), (first, complete))


def _roll_up(family: Family) -> str:
    kept = ", ".join(f"{'max' if name in family.worst else 'avg'}({name})" for name in family.columns)
    return f"""
    INSERT OR REPLACE INTO {family.minutes}
    SELECT process, CAST(ts / {MINUTE_S} AS INTEGER) * {MINUTE_S} AS minute, {kept}
    FROM {family.samples} WHERE ts >= ? AND ts < ? GROUP BY process, minute
    """


def points(history: History, process: str, metric: str, since: float, until: float, limit: int) -> list[list[float]]:
    """[ts, value] of one of UNITS, oldest first: minutes, then samples where there are any."""
    assert metric in UNITS
    family = USE if metric in METRICS else FLOW
    query = f"""
    WITH this AS (SELECT id FROM names WHERE name = ?),
         fresh AS (SELECT ts, {metric} AS value FROM {family.samples} WHERE process = (SELECT id FROM this)),
         old AS (SELECT ts, {metric} AS value FROM {family.minutes} WHERE process = (SELECT id FROM this)
                 AND ts + {MINUTE_S} <= coalesce((SELECT min(ts) FROM fresh), 1e12))
    SELECT ts, value FROM (SELECT * FROM old UNION ALL SELECT * FROM fresh)
    WHERE ts >= ? AND ts <= ? AND value IS NOT NULL ORDER BY ts DESC LIMIT ?
    """
    return [[ts, value] for ts, value in reversed(history.rows(query, (process, since, until, limit)))]


def usage(
    history: History, processes: Sequence[str], since: float, until: float, slices: int
) -> dict[str, list[list[float | None]]]:
    """By name [ts, CPU in % of one core, RSS, USS], oldest first: what there is from `since` to `until` (seconds since
    the epoch), in at most `slices` slices of time, the same for all. Of CPU a slice has the mean, of memory the
    largest."""
    names = ", ".join("?" for _ in processes)
    # minutes as far as there are no samples, which begin for all at the same time
    both = f"""
    WITH cut AS (SELECT coalesce(min(ts), 1e12) AS ts FROM {USE.samples}),
         used AS (SELECT * FROM {USE.samples} UNION ALL
                  SELECT * FROM {USE.minutes} WHERE ts + {MINUTE_S} <= (SELECT ts FROM cut)),
         these AS (SELECT name, used.* FROM used JOIN names ON names.id = process
                   WHERE name IN ({names}) AND ts >= ? AND ts <= ?),
         span AS (SELECT min(ts) AS start, (max(ts) - min(ts)) / ? + 1e-6 AS width FROM these)
    """
    # the last moment itself is in the last slice: a width is a little more than its share
    query = f"""{both}
    SELECT name, avg(ts), avg(cpu_percent), max(rss_bytes), max(uss_bytes) FROM these, span
    GROUP BY name, CAST((ts - start) / width AS INTEGER) ORDER BY name, min(ts)
    """
    found: dict[str, list[list[float | None]]] = {}
    for name, *values in history.rows(query, (*processes, since, until, slices)):
        found.setdefault(name, []).append(values)
    return found
