"""The summary of the log from a moment on: what the history can answer exactly, and what it cannot.

Counts are kept by the minute of the events' own time, so an answer is exact from the beginning of a minute on, which it
names. Templates and kinds of restarts have their total and when they were first and last seen: one that was first seen
since then has all of its count since then; of another one that was seen again only an upper bound is known.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any, Final

from streampiped.events import LEVELS
from streampiped.stages.history import History
from streampiped.stages.log_facts import DEATH, DROPS, MINUTE_S, SLOW_EPOCH, Tally
from streampiped.stages.log_rows import OTHER_TEMPLATES, Rows

SCHEMA: Final = """
CREATE TABLE minutes (
    id INTEGER PRIMARY KEY, minute INTEGER, stage TEXT, what TEXT,
    count INTEGER NOT NULL, first_seen REAL, last_seen REAL,
    UNIQUE (minute, stage, what)
)"""
MINUTES_MAX: Final = 50_000  # rows, 4 MB: a week in which three stages say something every minute
UNDATED: Final = ("garbage", "gaps", "templates_forgotten")
"""Of a whole summary: what has no time, and so is None here."""


def add_minutes(db: sqlite3.Connection, tally: Tally) -> None:
    """Within the transaction of the tally."""
    db.executemany(
        """INSERT INTO minutes (minute, stage, what, count, first_seen, last_seen) VALUES (?, ?, ?, ?, ?, ?)
           ON CONFLICT DO UPDATE SET count = count + excluded.count,
           first_seen = min(first_seen, excluded.first_seen), last_seen = max(last_seen, excluded.last_seen)""",
        [(*key, span.count, span.first, span.last) for key, span in tally.minutes.items()],
    )
    gone = "FROM minutes WHERE id <= (SELECT max(id) FROM minutes) - ?"
    # a minute of a clock that was ahead for a while does not make all that came later unknown
    present = "minute <= (SELECT minute FROM minutes ORDER BY id DESC LIMIT 1)"
    (last,) = db.execute(f"SELECT max(minute) {gone} AND {present}", (MINUTES_MAX,)).fetchone()
    db.execute(f"DELETE {gone}", (MINUTES_MAX,))
    if last is not None:
        db.execute(
            "INSERT INTO totals VALUES ('minutes_from', ?)"
            " ON CONFLICT DO UPDATE SET value = max(value, excluded.value)",
            (last + 1,),
        )


def summary_since(history: History, stage: str | None, since: float) -> dict[str, Any]:
    """As `log_store.summary`, of what is not older than `since`, which is the moment that the answer is exact for: the
    beginning of a minute, or later when the history does not reach back so far."""
    rows = Rows(history, stage)
    (oldest,) = rows.one("SELECT value FROM totals WHERE name = 'minutes_from'") or (0,)
    first = max(int(since // MINUTE_S), oldest)
    start = float(first * MINUTE_S)
    stages = _stages(rows, first)
    slow = sum(about.pop("slow_epochs", 0) for about in stages.values())
    templates = rows.dated("templates", "stage, event, template, level, count, first_seen, last_seen, example", start)
    templates += [
        {**row, **OTHER_TEMPLATES} for row in rows.dated("others", "stage, level, count, first_seen, last_seen", start)
    ]
    restarts = rows.dated("restarts", "last_seen, stage, count, first_seen, reason", start)
    return {
        "since": start,
        "events": sum(sum(about.get("levels", {}).values()) for about in stages.values()),
        **dict.fromkeys(UNDATED),
        "stages": stages,
        "templates": rows.most(bounded(row, start) for row in templates),
        "incidents": rows.newest("incidents", "id, ts, stage, event, reason, cause", "ts", start),
        "bursts": rows.newest("bursts", "ended, stage, started, errors", "ended", start),
        "restarts": rows.latest(bounded(row, start) for row in restarts),
        "slow_epochs": {"count": slow, "last": rows.slow_epochs(start)},
    }


def bounded(row: Mapping[str, Any], start: float) -> dict[str, Any]:
    """`count` is None where it is not known how many of `count_max` came before `start`."""
    return {**row, "count": row["count"] if row["first_seen"] >= start else None, "count_max": row["count"]}


def _stages(rows: Rows, first: int) -> dict[str, dict[str, Any]]:
    stages: dict[str, dict[str, Any]] = {}
    names = "stage, what, sum(count), min(first_seen), max(last_seen)"
    for stage, what, count, seen, last in rows.all(f"SELECT {names} FROM minutes", "minute >= ?", first, "stage, what"):
        about = stages.setdefault(stage, {})
        if what in LEVELS:
            about.setdefault("levels", {})[what] = count
            about["first_seen"] = min(about.get("first_seen", seen), seen)
            about["last_seen"] = max(about.get("last_seen", last), last)
        elif what in DROPS:
            about.setdefault("drops", {})[what] = count
        elif what == DEATH:
            (reason,) = rows.one("SELECT reason FROM deaths WHERE stage = ?", stage) or ("",)
            about["deaths"] = {"count": count, "last": last, "reason": reason}
        elif what == SLOW_EPOCH:
            about["slow_epochs"] = count
    return stages
