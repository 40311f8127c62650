"""What all parts of the text report are made with: figures in cells, lines of 80 columns."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, Final

WIDTH: Final = 80  # characters; what every terminal and every mail shows unbroken


def cell(value: Any) -> str:
    """A figure: integers with commas, others with four digits, `-` for what cannot be said."""
    if value is None:
        return "-"
    if isinstance(value, bool | str):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def percent(share: float | None) -> str:
    """
    >>> percent(0.7234), percent(-1234.5678), percent(None)
    ('72.3 %', '-1.235e+05 %', '-')
    """
    if share is None:
        return "-"
    return f"{100 * share:.1f} %" if abs(share) < 100 else f"{100 * share:.4g} %"


def chance(p: float | None) -> str:
    """A probability, as papers write it."""
    if p is None:
        return "-"
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def wrapped(text: str, indent: str = "") -> list[str]:
    """Lines of at most WIDTH columns, the first indented as `text` is and the others by `indent`."""
    lines = [text[: len(text) - len(text.lstrip())]]
    for word in text.split():
        if lines[-1].strip() and len(lines[-1]) + len(word) >= WIDTH:
            lines.append(indent)
        lines[-1] = f"{lines[-1]} {word}" if lines[-1].strip() else f"{lines[-1]}{word}"
    return [shortened(line, WIDTH) for line in lines]


def name(text: Any, width: int) -> str:
    """A name that came with the data, harmless in a terminal and at most `width` long."""
    return shortened(
        "".join(c if unicodedata.category(c)[0] not in "CZ" or c == " " else "?" for c in str(text)), width
    )


def shortened(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}~"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Aligned columns, the first `left` of them to the left, two blanks between."""
    cells = [list(head), *map(list, rows)]
    wide = [max(len(row[place]) for row in cells) for place in range(len(head))]
    lines = []
    for row in cells:
        parts = [f"{text:<{wide[i]}}" if i < left else f"{text:>{wide[i]}}" for i, text in enumerate(row)]
        lines.append(shortened("  ".join(parts).rstrip(), WIDTH))
    return lines


def scores_table(rows: Mapping[str, Mapping[str, Any]], columns: Mapping[str, str], wide: int = 25) -> list[str]:
    """A line for each label with its scores; `columns` is key -> heading."""
    lines = [" " * wide + "".join(f"{heading:>11}" for heading in columns.values())]
    for label, scores in rows.items():
        figures = "".join(f"{cell(scores.get(key)):>11}" for key in columns)
        lines.append(f"{shortened(label, wide):<{wide}}{figures}")
    return lines
