"""The log extractor's tables: what a tally adds to them, and what is read out of them.

The counts and the position in the event file change in one transaction, so that after a kill at any instant every
line has been counted exactly once.
"""

from __future__ import annotations

import json
import sqlite3
from typing import Any, Final

from streampiped.stages.history import History
from streampiped.stages.log_facts import Burst, ErrorWindow, Fact, Tally
from streampiped.stages.log_follow import Chunk, Position

VERSION: Final = 1
SCHEMA: Final = """
CREATE TABLE cursor (id INTEGER PRIMARY KEY CHECK (id = 1), head BLOB, offset INTEGER, done TEXT);
CREATE TABLE totals (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE counts (stage TEXT, level TEXT, count INTEGER NOT NULL, PRIMARY KEY (stage, level)) WITHOUT ROWID;
CREATE TABLE drops (stage TEXT, event TEXT, count INTEGER NOT NULL, PRIMARY KEY (stage, event)) WITHOUT ROWID;
CREATE TABLE templates (
    stage TEXT, event TEXT, template TEXT, level TEXT, count INTEGER NOT NULL,
    first_seen REAL, last_seen REAL, example TEXT, PRIMARY KEY (stage, event, template)
) WITHOUT ROWID;
CREATE TABLE incidents (id INTEGER PRIMARY KEY, ts REAL, stage TEXT, event TEXT, reason TEXT, cause TEXT);
CREATE TABLE deaths (stage TEXT PRIMARY KEY, count INTEGER NOT NULL, last REAL, reason TEXT) WITHOUT ROWID;
CREATE TABLE windows (stage TEXT PRIMARY KEY, state TEXT) WITHOUT ROWID;
CREATE TABLE bursts (
    stage TEXT, started REAL, ended REAL, errors INTEGER, PRIMARY KEY (stage, started)
) WITHOUT ROWID
"""
OTHER: Final = "(other)"
"""Where the counts of forgotten templates and of stages beyond the limit go."""
STAGES_MAX: Final = 64  # names come out of log lines, which anybody may have written
INCIDENTS_MAX: Final = 1000  # kept, newest
BURSTS_MAX: Final = 200
SHOWN_TEMPLATES: Final = 50  # in one summary; the tables have all
SHOWN_INCIDENTS: Final = 20

_ADD_TEMPLATE: Final = """
INSERT INTO templates VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET
    count = count + excluded.count, level = excluded.level,
    first_seen = min(first_seen, excluded.first_seen), last_seen = max(last_seen, excluded.last_seen)
"""


def position_of(history: History) -> Position | None:
    """Where the counts stand."""
    for head, offset, done in history.rows("SELECT head, offset, done FROM cursor"):
        return Position(head, offset, tuple(bytes.fromhex(h) for h in json.loads(done)))
    return None


def add(
    db: sqlite3.Connection, tally: Tally, chunk: Chunk, *, templates_max: int, window: float, threshold: int
) -> None:
    """Add the tally of the chunk's lines; to be called within a transaction."""
    known = {stage for (stage,) in db.execute("SELECT DISTINCT stage FROM counts")}
    stages = _Stages(known)
    position = chunk.position
    done = json.dumps([head.hex() for head in position.done])
    db.execute("INSERT OR REPLACE INTO cursor VALUES (1, ?, ?, ?)", (position.head, position.offset, done))
    totals = {"events": tally.events, "garbage": tally.garbage + chunk.torn, "gaps": chunk.gaps}
    _add_up(db, "INSERT INTO totals VALUES (?, ?)", "value", [(k, v) for k, v in totals.items() if v])
    counts = [(stages.of(s), level, n) for (s, level), n in tally.counts.items()]
    _add_up(db, "INSERT INTO counts VALUES (?, ?, ?)", "count", counts)
    drops = [(stages.of(s), event, n) for (s, event), n in tally.drops.items()]
    _add_up(db, "INSERT INTO drops VALUES (?, ?, ?)", "count", drops)
    db.executemany(
        _ADD_TEMPLATE,
        [
            (stages.of(stage), event, template, s.level, s.count, s.first, s.last, s.example)
            for (stage, event, template), s in tally.templates.items()
        ],
    )
    _forget_templates(db, templates_max)
    _add_incidents(db, tally.incidents, stages)
    for error in tally.errors:
        _add_error(db, stages.of(error.stage), error.ts, window, threshold)


def summary(history: History, stage: str | None) -> dict[str, Any]:
    """The facts for people and for `streampipectl`, all of them or those of one stage."""
    where, values = ("WHERE stage = ?", (stage,)) if stage is not None else ("", ())

    def some(query: str, names: str) -> list[dict[str, Any]]:
        rows = history.rows(f"SELECT {names} {query.replace('WHERE', where)}", values)
        return [dict(zip(names.split(", "), row, strict=True)) for row in rows]

    totals = dict(history.rows("SELECT name, value FROM totals"))
    stages: dict[str, dict[str, Any]] = {}
    for row in some("FROM counts WHERE", "stage, level, count"):
        stages.setdefault(row["stage"], {"levels": {}})["levels"][row["level"]] = row["count"]
    for row in some("FROM drops WHERE", "stage, event, count"):
        stages.setdefault(row["stage"], {}).setdefault("drops", {})[row["event"]] = row["count"]
    for row in some("FROM deaths WHERE", "stage, count, last, reason"):
        stages.setdefault(row.pop("stage"), {})["deaths"] = row
    return {
        "events": totals.get("events", 0),
        "garbage": totals.get("garbage", 0),
        "gaps": totals.get("gaps", 0),
        "templates_forgotten": totals.get("templates_forgotten", 0),
        "stages": stages,
        "templates": some(
            f"FROM templates WHERE ORDER BY count DESC, last_seen DESC LIMIT {SHOWN_TEMPLATES}",
            "stage, event, template, level, count, first_seen, last_seen, example",
        ),
        "incidents": some(
            f"FROM incidents WHERE ORDER BY id DESC LIMIT {SHOWN_INCIDENTS}", "ts, stage, event, reason, cause"
        ),
        "bursts": some(
            f"FROM bursts WHERE ORDER BY ended DESC LIMIT {SHOWN_INCIDENTS}", "stage, started, ended, errors"
        ),
    }


class _Stages:
    """Keeps the number of stage names bounded."""

    def __init__(self, known: set[str]) -> None:
        self._known = known

    def of(self, name: str) -> str:
        if name in self._known or len(self._known) < STAGES_MAX:
            self._known.add(name)
            return name
        return OTHER


def _add_up(db: sqlite3.Connection, insert: str, column: str, rows: list[tuple[Any, ...]]) -> None:
    db.executemany(f"{insert} ON CONFLICT DO UPDATE SET {column} = {column} + excluded.{column}", rows)


def _forget_templates(db: sqlite3.Connection, templates_max: int) -> None:
    """Move what was not seen for the longest time into its stage's `(other)`. A storm of unique lines thus costs
    the memory of itself, not of the disk; the total of all counts stays the number of events."""
    query = "SELECT count(*) FROM templates WHERE template != ?"
    (count,) = db.execute(query, (OTHER,)).fetchone()
    if count <= templates_max:
        return
    query = """SELECT stage, level, count, first_seen, last_seen, event, template FROM templates
               WHERE template != ? ORDER BY last_seen LIMIT ?"""
    gone = db.execute(query, (OTHER, count - templates_max)).fetchall()
    db.executemany(
        "DELETE FROM templates WHERE stage = ? AND event = ? AND template = ?",
        [(stage, event, template) for stage, *_, event, template in gone],
    )
    db.executemany(
        _ADD_TEMPLATE,
        [(stage, OTHER, OTHER, level, n, first, last, "") for stage, level, n, first, last, _, _ in gone],
    )
    _add_up(db, "INSERT INTO totals VALUES (?, ?)", "value", [("templates_forgotten", len(gone))])


def _add_incidents(db: sqlite3.Connection, facts: list[Fact], stages: _Stages) -> None:
    if not facts:
        return
    db.executemany(
        "INSERT INTO incidents (ts, stage, event, reason, cause) VALUES (?, ?, ?, ?, ?)",
        [(f.ts, stages.of(f.stage), f.event, f.reason, f.cause) for f in facts],
    )
    limit = "DELETE FROM incidents WHERE id <= (SELECT max(id) FROM incidents) - ?"
    db.execute(limit, (INCIDENTS_MAX,))
    db.executemany(
        """INSERT INTO deaths VALUES (?, 1, ?, ?) ON CONFLICT DO UPDATE SET
           count = count + 1, last = excluded.last, reason = excluded.reason""",
        [(stages.of(f.stage), f.ts, f.reason) for f in facts if f.event == "stage_died"],
    )


def _add_error(db: sqlite3.Connection, stage: str, ts: float, window: float, threshold: int) -> None:
    found = db.execute("SELECT state FROM windows WHERE stage = ?", (stage,)).fetchone()
    before = _window_of(json.loads(found[0])) if found else ErrorWindow()
    after = before.add(ts, window=window, threshold=threshold)
    burst = after.burst
    state = [list(after.times), [burst.started, burst.ended, burst.errors] if burst else None]
    db.execute("INSERT OR REPLACE INTO windows VALUES (?, ?)", (stage, json.dumps(state)))
    if burst:
        row = (stage, burst.started, burst.ended, burst.errors)
        db.execute("INSERT OR REPLACE INTO bursts VALUES (?, ?, ?, ?)", row)
        db.execute(
            "DELETE FROM bursts WHERE ended < (SELECT ended FROM bursts ORDER BY ended DESC LIMIT 1 OFFSET ?)",
            (BURSTS_MAX,),
        )


def _window_of(state: list[Any]) -> ErrorWindow:
    times, burst = state
    return ErrorWindow(tuple(times), Burst(*burst) if burst else None)
