"""Tracebacks in what a process prints: the lines that belong together, as one text. Pure.

Python and faulthandler write them in many pieces, and a pipe says nothing of where they begin and end; their form does.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Final

TRACE_CHARS_MAX: Final = 32 << 10  # of one; an endless one is given out in pieces of this size

_TRACEBACK: Final = "Traceback (most recent call last):"
_LEAD: Final = re.compile(r"Exception in thread |Exception ignored in")
_BETWEEN: Final = re.compile(r"During handling of the above|The above exception was")
_STACK: Final = re.compile(
    r"Fatal Python error: |Timeout \(|(Current thread|Thread) 0x|Stack \(most recent call first\)|Extension modules: "
    r"|  \+ Exception Group Traceback "
)


class _In(Enum):
    """What the last line was a part of."""

    NOTHING = auto()
    LEAD = auto()  # the line that names the thread, before the traceback
    FRAMES = auto()
    RAISED = auto()  # the exception itself
    BETWEEN = auto()  # the line that says that it led to the next one
    STACK = auto()  # of faulthandler, or a group of exceptions: all of it headers and indented lines


class Traces:
    """`feed` lines; each gives the texts that are whole, in order. While `gathering` more is expected: whoever feeds
    calls `flush` when nothing came for a while."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._chars = 0
        self._inside = _In.NOTHING

    @property
    def gathering(self) -> bool:
        return self._inside is not _In.NOTHING

    def feed(self, line: str) -> list[str]:
        inside = _after(self._inside, line) if self._chars < TRACE_CHARS_MAX else _In.NOTHING
        given = []
        if inside is _In.NOTHING:
            given = self.flush()
            inside = _after(_In.NOTHING, line)
        if inside is _In.NOTHING:
            return [*given, line]
        self._inside = inside
        self._lines.append(line)
        self._chars += len(line) + 1
        return given

    def flush(self) -> list[str]:
        """What was gathered, as one text."""
        text = "\n".join(self._lines).rstrip("\n")
        self._lines, self._chars, self._inside = [], 0, _In.NOTHING
        return [text] if text else []


def _after(inside: _In, line: str) -> _In:
    """Where `line` leads; NOTHING: it is no part of what came before."""
    indented = line.startswith((" ", "\t"))
    match inside:
        case _In.NOTHING | _In.LEAD | _In.BETWEEN if line == _TRACEBACK:
            return _In.FRAMES
        case _In.NOTHING if _STACK.match(line):
            return _In.STACK
        case _In.NOTHING if _LEAD.match(line):
            return _In.LEAD
        case _In.FRAMES:
            return _In.FRAMES if indented or not line else _In.RAISED
        case _In.RAISED if _BETWEEN.match(line):
            return _In.BETWEEN
        case _In.RAISED | _In.BETWEEN if not line:
            return inside
        case _In.STACK if not line or indented or _STACK.match(line):
            return _In.STACK
    return _In.NOTHING
