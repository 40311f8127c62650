"""A table of text that fits the terminal. Pure: entries and a width in, lines out.

Own code instead of rich: importing rich.table would add 33 ms to the 52 that the whole of `status` takes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from streampipectl.cells import cells, left, right


class Column(NamedTuple):
    """`cell` takes an entry (of a status, a process) and the daemon's clock. `rank`: the higher, the sooner the column
    is left out on a narrow terminal; 0 never."""

    title: str
    cell: Callable[[Mapping[str, Any], float | None], str]
    rank: int = 0
    left: bool = False


def table(
    wanted: Sequence[Column],
    entries: Sequence[Mapping[str, Any]],
    now: float | None,
    width: int | None,
    *,
    roomy: int | None = None,
) -> list[str]:
    """A heading and a line per entry. Narrow terminals get smaller gaps first and then fewer columns; without a width
    (None) no column is left out, and what would be wider than `roomy` gets the smaller gaps."""
    columns = list(wanted)
    gap = 2
    while True:
        rows = [[column.title for column in columns]]
        rows += [[column.cell(entry, now) for column in columns] for entry in entries]
        widths = [max(map(cells, column)) for column in zip(*rows, strict=True)]
        least = max(columns, key=lambda column: column.rank)
        limit = roomy if width is None else width
        fits = limit is None or sum(widths) + gap * (len(widths) - 1) <= limit
        if fits or (width is None and gap == 1) or least.rank == 0:
            return [_row(row, widths, columns, gap) for row in rows]
        if gap == 2:
            gap = 1
        else:
            columns.remove(least)


def _row(texts: Sequence[str], widths: Sequence[int], columns: Sequence[Column], gap: int) -> str:
    padded = (
        left(text, wide) if column.left else right(text, wide)
        for text, wide, column in zip(texts, widths, columns, strict=True)
    )
    return (" " * gap).join(padded).rstrip()
