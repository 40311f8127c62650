"""The section "Log" of the report: what of the log extractor's summary belongs there. Pure."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

LEVELS: Final = ("critical", "error", "warning")
RESTARTS: Final = 5  # kinds of them that a report shows; `streampipectl logs --summary` has more
WIDTH: Final = 80


def condensed(summary: Mapping[str, Any]) -> dict[str, Any]:
    """For `operations`: totals, restarts with reasons, what was slow and what is missing."""
    first = [about["first_seen"] for about in summary["stages"].values() if "first_seen" in about]
    levels: Counter[str] = Counter()
    drops: Counter[str] = Counter()
    for about in summary["stages"].values():
        levels.update(about.get("levels", {}))
        drops.update(about.get("drops", {}))
    return {
        "events": summary["events"],
        "since": min(first, default=None),
        "levels": dict(levels),
        "restarts": [
            {name: row[name] for name in ("stage", "reason", "count", "last_seen")} for row in summary["restarts"]
        ],
        "bursts": len(summary["bursts"]),
        "slow_epochs": summary["slow_epochs"]["count"],
        "drops": dict(drops),
        "garbage": summary["garbage"],
        "gaps": summary["gaps"],
    }


def log_text(log: Mapping[str, Any]) -> str:
    """The same for people."""
    levels = log["levels"]
    bad = ", ".join(f"{levels[level]} {level}" for level in LEVELS if levels.get(level))
    since = "" if log["since"] is None else time.strftime(" since %Y-%m-%d %H:%M", time.localtime(log["since"]))
    bad = f" ({bad})" if bad else ", none worse than a notice"
    lines = ["Log", f"  events        {log['events']}{since}{bad}"]
    for row in log["restarts"][:RESTARTS]:
        label = "restarts" if row is log["restarts"][0] else ""
        lines.append(f"  {label:<14}{row['stage']}: {_plain(row['reason'])}{_times(row['count'])}, {_when(row)}")
    if (more := len(log["restarts"]) - RESTARTS) > 0:
        lines.append(f"  {'':<14}and {more} more kinds")
    if log["bursts"]:
        lines.append(f"  error bursts  {log['bursts']}")
    if log["slow_epochs"]:
        lines.append(f"  slow epochs   {log['slow_epochs']}")
    if log["drops"]:
        lines.append("  dropped       " + ", ".join(f"{count} by {event}" for event, count in log["drops"].items()))
    if log["garbage"] or log["gaps"]:
        lines.append(f"  not counted   {log['garbage']} torn lines, {log['gaps']} gaps")
    return "\n".join(line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…" for line in lines)


def _times(count: int) -> str:
    return "" if count == 1 else f" ({count} times)"


def _when(row: Mapping[str, Any]) -> str:
    return time.strftime("%H:%M:%S", time.localtime(row["last_seen"]))


def _plain(text: str) -> str:
    return " ".join(text.split())
