"""How wide text is on a terminal: wide characters of East Asia take two cells, combining ones none. Pure."""

from __future__ import annotations

import unicodedata

ELLIPSIS = "…"


def cells(text: str) -> int:
    """The columns that `text` takes; control characters must have been removed (`render.clean`).

    >>> cells("abc"), cells("日本"), cells("e\u0301")
    (3, 4, 1)
    """
    return len(text) if text.isascii() else sum(map(_cells, text))


def _cells(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me") or "\u1160" <= character <= "\u11ff":  # medial Hangul joins
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def shorten(text: str, width: int) -> str:
    """`text` in at most `width` cells, with an ellipsis where something was cut off.

    >>> shorten("evaluator", 5), shorten("日本語", 4), shorten("abc", 3)
    ('eval…', '日…', 'abc')
    """
    if cells(text) <= width:
        return text
    room = width - 1
    if room < 0:
        return ""
    if text.isascii():
        return text[:room] + ELLIPSIS
    taken = 0
    for end, character in enumerate(text):
        taken += _cells(character)
        if taken > room:
            return text[:end] + ELLIPSIS
    return text


def shorten_middle(text: str, width: int) -> str:
    """As `shorten`, of what differs at its end as often as at its beginning.

    >>> shorten_middle("normalizer_of_the_left", 9), shorten_middle("日本語", 4), shorten_middle("abc", 3)
    ('norm…left', '日…', 'abc')
    """
    if cells(text) <= width or width < 3 or not text.isascii():
        return shorten(text, width)
    room = width - 1
    return text[: room - room // 2] + ELLIPSIS + text[-(room // 2) :]


def folded(text: str, width: int, indent: int) -> list[str]:
    """`text` in lines of at most `width` cells, broken at spaces, all but the first with `indent`. A word that is
    longer than a line stays whole: whoever copies a path wants all of it.

    >>> folded("died: ValueError: x1 is out of range", 20, 2)
    ['died: ValueError: x1', '  is out of range']
    """
    lines, line = [], ""
    for word in text.split(" "):
        if line.strip() and cells(line) + 1 + cells(word) > width:
            lines.append(line)
            line = " " * indent + word
        else:
            line = f"{line} {word}" if line else word
    return [*lines, line]


def left(text: str, width: int) -> str:
    return text + " " * (width - cells(text))


def right(text: str, width: int) -> str:
    return " " * (width - cells(text)) + text
