"""Questions to the log extractor's tables, all of them or those of one stage."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from streampiped.stages.history import History
from streampiped.stages.log_facts import OTHER

SHOWN_TEMPLATES: Final = 50  # in one summary; the tables have all
SHOWN_INCIDENTS: Final = 20
OTHER_TEMPLATES: Final = {"event": OTHER, "template": OTHER, "example": ""}
"""What the row of a stage's forgotten templates says of them."""


class Rows:
    """What a summary asks for."""

    def __init__(self, history: History, stage: str | None) -> None:
        self._history = history
        self._stage = stage

    def one(self, query: str, *values: Any) -> tuple[Any, ...] | None:
        return next(iter(self._history.rows(query, values)), None)

    def all(self, query: str, condition: str, value: Any, grouped: str = "") -> list[tuple[Any, ...]]:
        """Rows that fulfil `condition`, of the stage when there is one."""
        where, values = condition, [value]
        if self._stage is not None:
            where, values = f"{condition} AND stage = ?", [value, self._stage]
        group = f" GROUP BY {grouped}" if grouped else ""
        return self._history.rows(f"{query} WHERE {where}{group}", values)

    def dated(self, table: str, names: str, start: float) -> list[dict[str, Any]]:
        """Those that were seen since."""
        rows = self.all(f"SELECT {names} FROM {table}", "last_seen >= ?", start)
        return [dict(zip(names.split(", "), row, strict=True)) for row in rows]

    def newest(self, table: str, names: str, dated: str, start: float) -> list[dict[str, Any]]:
        """By the column that comes first; `dated`: the one with the time."""
        rows = self.all(f"SELECT {names} FROM {table}", f"{dated} >= ?", start)
        found = [dict(zip(names.split(", "), row, strict=True)) for row in rows]
        first = names.partition(",")[0]
        return sorted(found, key=lambda row: float(row[first]), reverse=True)[:SHOWN_INCIDENTS]

    def slow_epochs(self, start: float) -> list[dict[str, Any]]:
        """The newest that were told."""
        if self._stage not in (None, "supervisor"):
            return []
        names = ("ts", "epoch", "seconds", "median", "part")
        query = f"SELECT {', '.join(names)} FROM slow_epochs WHERE ts >= ? ORDER BY id DESC LIMIT ?"
        return [dict(zip(names, row, strict=True)) for row in self._history.rows(query, (start, SHOWN_INCIDENTS))]

    @staticmethod
    def most(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        """Templates: those whose count is known first, then by how many they are at most; so many are shown."""
        ordered = sorted(rows, key=lambda row: (row["count"] is None, -int(row["count_max"])))
        return ordered[:SHOWN_TEMPLATES]

    @staticmethod
    def latest(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        return sorted(rows, key=lambda row: -float(row["last_seen"]))[:SHOWN_INCIDENTS]
