"""The benchmark's tables, as Markdown that also reads well in a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

Cell = str | float | int | None
Table = tuple[Sequence[str], Sequence[Sequence[Cell]]]
"""Titles, and rows of as many cells."""


def cell(value: Cell) -> str:
    """None is a dash; four digits, and thousands grouped."""
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if 1_000 <= abs(value) < 1e9 else f"{value:.4g}"


def table(titles: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """Aligned: the first column to the left, the others to the right.

    >>> print(table(["stream", "R2"], [["chick", 0.75512], ["trump", None]]))
    | stream | R2     |
    |:-------|-------:|
    | chick  | 0.7551 |
    | trump  |      - |
    """
    texts = [list(map(cell, row)) for row in rows]
    wide = [max(map(len, column)) for column in zip(titles, *texts, strict=True)]
    head = " | ".join(title.ljust(width) for title, width in zip(titles, wide, strict=True))
    rule = "|".join((":" + "-" * (w + 1)) if place == 0 else ("-" * (w + 1) + ":") for place, w in enumerate(wide))
    body = [
        " | ".join(t.ljust(w) if place == 0 else t.rjust(w) for place, (t, w) in enumerate(zip(row, wide, strict=True)))
        for row in texts
    ]
    return "\n".join([f"| {head} |", f"|{rule}|", *(f"| {line} |" for line in body)])


class Page:
    """Sections, printed as they are done, written to a file at the end."""

    def __init__(self) -> None:
        self._parts: list[str] = []

    def add(self, *parts: str) -> None:
        """Paragraphs, headings or tables."""
        for part in parts:
            print(part + "\n", flush=True)
            self._parts.append(part.strip())

    def add_table(self, titles: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
        self.add(table(titles, rows))

    def text(self) -> str:
        return "\n\n".join(self._parts) + "\n"


def listed(values: dict[str, Any], form: str) -> str:
    """`name value` pairs in one line."""
    return ", ".join(f"{name} {value:{form}}" for name, value in values.items())
