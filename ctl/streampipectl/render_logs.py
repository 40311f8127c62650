"""The summary of the log as text for people. Pure, as render.py."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from streampipectl.cells import shorten
from streampipectl.render import MISSING, WIDTH, clean, count, duration, paint
from streampipectl.table import Column, table
from streampipectl.values import LEVELS

TEMPLATES: Final = 10  # shown; --json has up to 50, the database all
ROWS: Final = 8  # of every other table


def summary_text(summary: Mapping[str, Any], width: int | None = None, colour: bool = False) -> str:
    """The answer to `log_summary`, at most `width` columns wide."""
    columns = width or WIDTH
    now = summary.get("now")
    stages = [{"stage": name, **about} for name, about in sorted(summary["stages"].items())]
    head = [*_head(summary, stages, now), *_unwritten(summary)]
    parts = [head, _levels(stages, now, columns), _templates(summary, now)]
    parts += [
        _section("restarts", RESTARTS, summary["restarts"], now, columns),
        _section("bursts of errors", BURSTS, summary["bursts"], now, columns),
        _section(_slow(summary["slow_epochs"]), SLOW, summary["slow_epochs"]["last"], now, columns),
        _section("dropped", DROPS, _drops(stages), now, columns),
    ]
    lines = [line for part in parts if part for line in ("", *part)][1:]
    lines = [shorten(line, columns) for line in lines]
    return "\n".join(_painted(lines) if colour else lines)


def _head(summary: Mapping[str, Any], stages: Sequence[Mapping[str, Any]], now: float | None) -> list[str]:
    events = summary["events"] if summary.get("stage") is None else sum(sum(_by_level(s).values()) for s in stages)
    asked = summary.get("since")
    if not events:
        return [f"no events{_of(summary)} {'yet' if asked is None else f'since {moment(asked, now)}'}"]
    first = min(stage["first_seen"] for stage in stages if "first_seen" in stage) if asked is None else asked
    lines = [f"{events} events{_of(summary)} since {moment(first, now)}"]
    if asked is not None:
        return [*lines, UNKNOWN] if any(row["count"] is None for row in _bounded(summary)) else lines
    missing = [f"{summary[name]} {text}" for name, text in MISSED if summary.get(name)]
    return [*lines, ", ".join(missing)] if missing else lines


def _unwritten(summary: Mapping[str, Any]) -> list[str]:
    """That the figures stand still, and why; nothing when they do not."""
    reason = summary.get("unwritten")
    return [] if reason is None else [f"newer events are not counted yet: {clean(reason)}"]


MISSED: Final = (
    ("garbage", "lines that are no events"),
    ("gaps", "gaps"),
    ("templates_forgotten", "templates forgotten"),
)
"""Of the summary: what there was and nobody can say more about."""


UNKNOWN: Final = "<= is of what was seen before that too: at most so many are since then"


def _bounded(summary: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What is counted in sum alone, as far as it is shown."""
    return [*summary["templates"][:TEMPLATES], *summary["restarts"][:ROWS]]


def _counted(entry: Mapping[str, Any]) -> str:
    """How many, or how many at most since the moment that was asked for."""
    return f"<={count(entry['count_max'])}" if entry["count"] is None else count(entry["count"])


def _of(summary: Mapping[str, Any]) -> str:
    return f" of {clean(summary['stage'])}" if summary.get("stage") else ""


def _levels(stages: Sequence[Mapping[str, Any]], now: float | None, columns: int) -> list[str]:
    """A line per stage; levels that nothing has are left out."""
    there = [level for level in LEVELS if any(_by_level(stage).get(level) for stage in stages)]
    wanted = [Column("STAGE", lambda s, _: clean(s["stage"]), left=True)]
    wanted += [Column(level.upper(), _level_cell(level)) for level in there]
    wanted += [
        Column("FIRST SEEN", lambda s, now: moment(s.get("first_seen"), now), rank=1),
        Column("LAST SEEN", lambda s, now: moment(s.get("last_seen"), now)),
    ]
    return table(wanted, stages, now, columns) if there else []


def _level_cell(level: str) -> Any:
    return lambda stage, _: count(_by_level(stage)[level]) if level in _by_level(stage) else MISSING


def _by_level(stage: Mapping[str, Any]) -> Mapping[str, int]:
    return stage.get("levels") or {}


def _templates(summary: Mapping[str, Any], now: float | None) -> list[str]:
    """Two lines for each: the template has most of the first."""
    shown = summary["templates"][:TEMPLATES]
    lines = ["most frequent"] if shown else []
    for entry in shown:
        lines.append(f"{_counted(entry):>6}  {clean(entry['template'])}")
        parts = [clean(entry["stage"]), clean(entry["level"]), _seen(entry, now)]
        if entry["example"] and entry["example"] != entry["template"]:
            parts.append(f"such as: {clean(entry['example'])}")
        lines.append(f"{'':8}{', '.join(parts)}")
    return lines


def _seen(entry: Mapping[str, Any], now: float | None) -> str:
    first, last = moment(entry["first_seen"], now), moment(entry["last_seen"], now)
    return first if first == last else f"{first} to {last}"


def _section(
    title: str, columns: Sequence[Column], entries: Sequence[Mapping[str, Any]], now: float | None, width: int
) -> list[str]:
    """Nothing of what there is nothing of."""
    if not entries:
        return []
    lines = [title, *(f"  {line}" for line in table(columns, entries[:ROWS], now, width - 2))]
    return lines if len(entries) <= ROWS else [*lines, f"  and {len(entries) - ROWS} more, in --json"]


def _slow(slow: Mapping[str, Any]) -> str:
    return f"slow epochs, {slow['count']} in all"


def _drops(stages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"stage": stage["stage"], "event": event, "count": number}
        for stage in stages
        for event, number in (stage.get("drops") or {}).items()
    ]


def _painted(lines: Sequence[str]) -> list[str]:
    """Headings bold, levels by their tone; after the layout, so that widths are those of the text."""
    titles = ("most frequent", "restarts", "bursts of errors", "slow epochs,", "dropped", "STAGE ")
    painted = []
    for line in lines:
        if line.startswith(titles):
            line = paint(line, "bold")
        elif ", error, " in line or ", critical, " in line:
            line = paint(line, "bad")
        elif line.startswith(" " * 8):
            line = paint(line, "dim")
        painted.append(line)
    return painted


def moment(ts: float | None, now: float | None) -> str:
    """In local time: the time of day within half a day of now, else the date too."""
    if ts is None:
        return MISSING
    near = now is not None and abs(now - ts) < 43_200
    return time.strftime("%H:%M:%S" if near else "%Y-%m-%d %H:%M", time.localtime(ts))


def _count_cell(entry: Mapping[str, Any], _: float | None) -> str:
    return _counted(entry)


_STAGE: Final = Column("STAGE", lambda e, _: clean(e["stage"]), left=True)

RESTARTS: Final = (
    Column("COUNT", _count_cell),
    _STAGE,
    Column("LAST", lambda e, now: moment(e["last_seen"], now)),
    Column("REASON", lambda e, _: clean(e["reason"]), left=True),
)
BURSTS: Final = (
    _STAGE,
    Column("BEGAN", lambda e, now: moment(e["started"], now)),
    Column("LASTED", lambda e, _: duration(e["ended"] - e["started"])),
    Column("ERRORS", lambda e, _: count(e["errors"])),
)
SLOW: Final = (
    Column("EPOCH", lambda e, _: str(e["epoch"])),
    Column("AT", lambda e, now: moment(e["ts"], now)),
    Column("TOOK", lambda e, _: duration(e["seconds"])),
    Column("USUAL", lambda e, _: duration(e["median"])),
    Column("MOST IN", lambda e, _: clean(e["part"]), left=True),
)
DROPS: Final = (Column("COUNT", _count_cell), _STAGE, Column("EVENT", lambda e, _: clean(e["event"]), left=True))
