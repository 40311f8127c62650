"""The log extractor's tables: what a tally adds to them, and what is read out of them.

The counts, the templates and the position in the log change in one transaction, so that after a kill at any instant
every line has been counted exactly once, and the next one is told by what was known then.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable
from typing import Any, Final

from streampiped.stages import log_since
from streampiped.stages.history import History
from streampiped.stages.log_facts import OTHER, Burst, ErrorWindow, Fact, Memory, Restart, SlowEpoch, Tally
from streampiped.stages.log_follow import Chunk, Done, Position
from streampiped.stages.log_rows import OTHER_TEMPLATES, SHOWN_INCIDENTS, SHOWN_TEMPLATES
from streampiped.stages.log_templates import Miner, Template

VERSION: Final = 3
SCHEMA: Final = f"""{log_since.SCHEMA};
CREATE TABLE cursor (id INTEGER PRIMARY KEY CHECK (id = 1), head BLOB, offset INTEGER, done TEXT);
CREATE TABLE totals (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE counts (
    stage TEXT, level TEXT, count INTEGER NOT NULL, first_seen REAL, last_seen REAL, PRIMARY KEY (stage, level)
) WITHOUT ROWID;
CREATE TABLE drops (stage TEXT, event TEXT, count INTEGER NOT NULL, PRIMARY KEY (stage, event)) WITHOUT ROWID;
CREATE TABLE templates (
    id INTEGER PRIMARY KEY, stage TEXT, event TEXT, template TEXT, first_word TEXT, touched INTEGER, level TEXT,
    count INTEGER NOT NULL, first_seen REAL, last_seen REAL, example TEXT
);
CREATE TABLE others (
    stage TEXT PRIMARY KEY, level TEXT, count INTEGER NOT NULL, first_seen REAL, last_seen REAL
) WITHOUT ROWID;
CREATE TABLE restarts (
    stage TEXT, kind TEXT, count INTEGER NOT NULL, first_seen REAL, last_seen REAL, reason TEXT,
    PRIMARY KEY (stage, kind)
) WITHOUT ROWID;
CREATE TABLE slow_epochs (id INTEGER PRIMARY KEY, ts REAL, epoch INTEGER, seconds REAL, median REAL, part TEXT);
CREATE TABLE incidents (id INTEGER PRIMARY KEY, ts REAL, stage TEXT, event TEXT, reason TEXT, cause TEXT);
CREATE TABLE deaths (stage TEXT PRIMARY KEY, count INTEGER NOT NULL, last REAL, reason TEXT) WITHOUT ROWID;
CREATE TABLE windows (stage TEXT PRIMARY KEY, state TEXT) WITHOUT ROWID;
CREATE TABLE bursts (
    stage TEXT, started REAL, ended REAL, errors INTEGER, PRIMARY KEY (stage, started)
) WITHOUT ROWID
"""
INCIDENTS_MAX: Final = 1000  # kept, newest
BURSTS_MAX: Final = 200
RESTARTS_MAX: Final = 200  # kinds of them
SLOW_EPOCHS_MAX: Final = 200

_TOTAL: Final = "INSERT INTO totals VALUES (?, ?) ON CONFLICT DO UPDATE SET value = value + excluded.value"
_SPAN: Final = """
    count = count + excluded.count,
    first_seen = min(first_seen, excluded.first_seen), last_seen = max(last_seen, excluded.last_seen)"""
_TEMPLATE: Final = f"""INSERT INTO templates VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
    template = excluded.template, first_word = excluded.first_word, touched = excluded.touched,
    level = excluded.level, {_SPAN}"""
_FORGOTTEN: Final = "SELECT stage, level, count, first_seen, last_seen FROM templates WHERE id = ?"
_OTHERS: Final = f"INSERT INTO others VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET level = excluded.level, {_SPAN}"


def position_of(history: History) -> Position | None:
    """Where the counts stand."""
    for head, offset, done in history.rows("SELECT head, offset, done FROM cursor"):
        return Position(head, offset, tuple(Done(bytes.fromhex(each), end) for each, end in json.loads(done)))
    return None


def memory_of(db: sqlite3.Connection, templates_max: int, own: Iterable[str]) -> Memory:
    """As it was when the counts were written; `own`: the pipeline's processes. Templates that are too many since the
    option was lowered go at once: the database may have no room for anything before they do."""
    rows = db.execute("SELECT id, stage, event, template, first_word FROM templates ORDER BY touched, id")
    known = [Template(i, s, e, (text,) if w is None else tuple(text.split(" ")), w) for i, s, e, text, w in rows]
    made = db.execute("SELECT value FROM totals WHERE name = 'templates'").fetchone()
    stages = [stage for (stage,) in db.execute("SELECT DISTINCT stage FROM counts")]
    miner = Miner(templates_max, known, made[0] if made else 0)
    if gone := [template.id for template in miner.forget()]:
        _forget(db, gone)
        db.execute(_TOTAL, ("templates_forgotten", len(gone)))
    return Memory(miner, (s for s in stages if s != OTHER), own)


def add(db: sqlite3.Connection, tally: Tally, memory: Memory, chunk: Chunk, *, window: float, threshold: int) -> None:
    """Add the tally of the chunk's lines; to be called within a transaction."""
    position = chunk.position
    done = json.dumps([(each.head.hex(), each.end) for each in position.done])
    db.execute("INSERT OR REPLACE INTO cursor VALUES (1, ?, ?, ?)", (position.head, position.offset, done))
    totals = {"events": tally.events, "garbage": tally.garbage + chunk.torn, "gaps": chunk.gaps}
    totals |= {"templates_forgotten": len(tally.forgotten), "slow_epochs": len(tally.slow_epochs) + tally.slow_untold}
    db.executemany(_TOTAL, [(name, value) for name, value in totals.items() if value])
    db.executemany(
        f"INSERT INTO counts VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET {_SPAN}",
        [(stage, level, span.count, span.first, span.last) for (stage, level), span in tally.counts.items()],
    )
    db.executemany(
        "INSERT INTO drops VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET count = count + excluded.count",
        [(stage, event, count) for (stage, event), count in tally.drops.items()],
    )
    log_since.add_minutes(db, tally)
    _add_templates(db, tally, memory)
    _add_incidents(db, tally.incidents)
    _add_restarts(db, tally.restarts)
    _add_slow_epochs(db, tally.slow_epochs)
    for error in tally.errors:
        _add_error(db, error.stage, error.ts, window, threshold)


def summary(history: History, stage: str | None) -> dict[str, Any]:
    """The facts for people and for `streampipectl`, all of them or those of one stage."""
    where, values = ("WHERE stage = ?", (stage,)) if stage is not None else ("", ())

    def some(query: str, names: str) -> list[dict[str, Any]]:
        rows = history.rows(f"SELECT {names} {query.replace('WHERE', where)}", values)
        return [dict(zip(names.split(", "), row, strict=True)) for row in rows]

    def shown(table: str, names: str) -> list[dict[str, Any]]:
        """The newest, by the column that comes first."""
        return some(f"FROM {table} WHERE ORDER BY {names.partition(',')[0]} DESC LIMIT {SHOWN_INCIDENTS}", names)

    totals = dict(history.rows("SELECT name, value FROM totals"))
    wanted = "stage, event, template, level, count, first_seen, last_seen, example"
    templates = some(f"FROM templates WHERE ORDER BY count DESC, id LIMIT {SHOWN_TEMPLATES}", wanted)
    for row in some("FROM others WHERE", "stage, level, count, first_seen, last_seen"):
        templates.append({**row, **OTHER_TEMPLATES})
    return {
        **{name: totals.get(name, 0) for name in ("events", "garbage", "gaps", "templates_forgotten")},
        "stages": _stages(some),
        "templates": sorted(templates, key=lambda row: -int(row["count"])),
        "incidents": shown("incidents", "id, ts, stage, event, reason, cause"),
        "bursts": shown("bursts", "ended, stage, started, errors"),
        "restarts": shown("restarts", "last_seen, stage, count, first_seen, reason"),
        "slow_epochs": {
            "count": totals.get("slow_epochs", 0) if stage in (None, "supervisor") else 0,
            "last": [
                dict(zip(("ts", "epoch", "seconds", "median", "part"), row, strict=True))
                for row in history.rows(
                    "SELECT ts, epoch, seconds, median, part FROM slow_epochs ORDER BY id DESC LIMIT ?",
                    (SHOWN_INCIDENTS if stage in (None, "supervisor") else 0,),
                )
            ],
        },
    }


def _stages(some: Callable[[str, str], list[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """By name: counts by level, first and last seen, drops, deaths."""
    stages: dict[str, dict[str, Any]] = {}
    for row in some("FROM counts WHERE", "stage, level, count, first_seen, last_seen"):
        first, last = row["first_seen"], row["last_seen"]
        about = stages.setdefault(row["stage"], {"levels": {}, "first_seen": first, "last_seen": last})
        about["levels"][row["level"]] = row["count"]
        about["first_seen"], about["last_seen"] = min(about["first_seen"], first), max(about["last_seen"], last)
    for row in some("FROM drops WHERE", "stage, event, count"):
        stages.setdefault(row["stage"], {}).setdefault("drops", {})[row["event"]] = row["count"]
    for row in some("FROM deaths WHERE", "stage, count, last, reason"):
        stages.setdefault(row.pop("stage"), {})["deaths"] = row
    return stages


def _add_templates(db: sqlite3.Connection, tally: Tally, memory: Memory) -> None:
    """Those that had to go move into their stage's OTHER: the total of all counts stays the number of events."""
    # numbered by the line that a template was last seen in, or a later one: that keeps their order
    counted = db.execute("SELECT value FROM totals WHERE name = 'events'").fetchone()
    rows = []
    for number, sight in enumerate(tally.templates.values(), (counted[0] if counted else 0) - len(tally.templates)):
        t, span = sight.template, sight.span
        about = (t.id, t.stage, t.event, t.text, t.first, number, sight.level)
        rows.append((*about, span.count, span.first, span.last, sight.example))
    db.executemany(_TEMPLATE, rows)
    _forget(db, tally.forgotten)
    db.execute("INSERT OR REPLACE INTO totals VALUES ('templates', ?)", (memory.miner.made,))


def _forget(db: sqlite3.Connection, templates: Iterable[int]) -> None:
    """The rows go before what is left of them is written, which may need their room."""
    rows: list[tuple[Any, ...]] = []
    for number in templates:
        rows += db.execute(_FORGOTTEN, (number,))
        db.execute("DELETE FROM templates WHERE id = ?", (number,))
    db.executemany(_OTHERS, rows)


def _add_restarts(db: sqlite3.Connection, restarts: list[Restart]) -> None:
    db.executemany(
        f"""INSERT INTO restarts VALUES (?, ?, 1, ?, ?, ?) ON CONFLICT DO UPDATE SET
            reason = excluded.reason, {_SPAN}""",
        [(r.stage, r.kind, r.ts, r.ts, r.reason) for r in restarts],
    )
    if restarts:
        db.execute(
            "DELETE FROM restarts WHERE last_seen < (SELECT last_seen FROM restarts ORDER BY last_seen DESC"
            " LIMIT 1 OFFSET ?)",
            (RESTARTS_MAX,),
        )


def _add_slow_epochs(db: sqlite3.Connection, epochs: list[SlowEpoch]) -> None:
    db.executemany(
        "INSERT INTO slow_epochs (ts, epoch, seconds, median, part) VALUES (?, ?, ?, ?, ?)",
        [(e.ts, e.epoch, e.seconds, e.median, e.part) for e in epochs],
    )
    if epochs:
        newest = "DELETE FROM slow_epochs WHERE id <= (SELECT max(id) FROM slow_epochs) - ?"
        db.execute(newest, (SLOW_EPOCHS_MAX,))


def _add_incidents(db: sqlite3.Connection, facts: list[Fact]) -> None:
    if not facts:
        return
    db.executemany(
        "INSERT INTO incidents (ts, stage, event, reason, cause) VALUES (?, ?, ?, ?, ?)",
        [(f.ts, f.stage, f.event, f.reason, f.cause) for f in facts],
    )
    limit = "DELETE FROM incidents WHERE id <= (SELECT max(id) FROM incidents) - ?"
    db.execute(limit, (INCIDENTS_MAX,))
    db.executemany(
        """INSERT INTO deaths VALUES (?, 1, ?, ?) ON CONFLICT DO UPDATE SET
           count = count + 1, last = excluded.last, reason = excluded.reason""",
        [(f.stage, f.ts, f.reason) for f in facts if f.event == "stage_died"],
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
