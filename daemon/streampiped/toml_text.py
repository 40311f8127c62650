"""TOML with line numbers, which `tomllib` does not keep: on which line a key stands, on which a table was repeated.

The lines are found by looking at the text line by line, not by parsing it: they only tell people where to look.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeAlias

SyntaxReport: TypeAlias = Callable[[int | None, str, str], None]
"""Take the line, the dotted key ("" if unknown) and what is wrong."""

_PART: Final = r"(?:[\w-]+|\"[^\"]*\"|'[^']*')"
_DOTTED: Final = rf"({_PART}(?:\s*\.\s*{_PART})*)"
_HEADER: Final = re.compile(rf"\s*(\[\[?)\s*{_DOTTED}\s*\]\]?\s*(?:#.*)?")
_KEY: Final = re.compile(rf"\s*{_DOTTED}\s*=")
_PARTS: Final = re.compile(_PART)
_LINE: Final = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


def text_of(file: Path) -> str:
    """What a regular file has. OSError, UnicodeDecodeError. Of anything else a reload would have no second look, and to
    open a pipe, or to read it, would wait for somebody."""
    with open(os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), encoding="utf-8") as opened:
        if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file, and a reload could not read it again")
        return opened.read()


def key_lines(text: str) -> dict[str, int]:
    """Dotted key -> number of the first line (from 1) where it stands, for tables and for keys that begin a line.
    The elements of `[[name]]` are `name[0]`, `name[1]`, and so on.

    >>> key_lines('[a]\\nx = 1\\n[[b.c]]\\ny = 2')
    {'a': 1, 'a.x': 2, 'b.c[0]': 3, 'b.c[0].y': 4}
    """
    found: dict[str, int] = {}
    table = ""
    for number, line in _outside_of_texts(text):
        if header := _HEADER.fullmatch(line):
            table = _joined(header[2])
            if header[1] == "[[":
                table = f"{table}[{sum(key.startswith(f'{table}[') and key.endswith(']') for key in found)}]"
            found.setdefault(table, number)
        elif key := _KEY.match(line):
            found.setdefault(f"{table}.{_joined(key[1])}".lstrip("."), number)
    return found


def parse(text: str, report: SyntaxReport) -> dict[str, Any] | None:
    """The data, or None when the text is no TOML. A table that is declared again is told and left out, so that the
    rest can still be checked; after any other error there is nothing to go on with."""
    while True:
        try:
            return tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            message = str(error)
            match = _LINE.search(message)
            line = int(match[1]) if match and match[1] else None
            again = _repeated(text, line) if message.startswith("Cannot declare") else None
            if again is None or line is None:
                report(line, "", f"is no TOML: {message[: match.start()] if match else message}")
                return None
            name, first = again
            what = "two stages of one name" if name.startswith("stages.") else "the table is declared twice"
            report(line, name, f"{what}; the first is on line {first}")
            text = _without_table(text, line)


def _repeated(text: str, line: int | None) -> tuple[str, int] | None:
    """The name of the table on `line`, and where it was declared before."""
    headers = {number: _joined(header[2]) for number, header in _headers(text)}
    name = headers.get(line or 0)
    first = next((number for number, other in headers.items() if other == name), None)
    return (name, first) if name is not None and first is not None and first != line else None


def _without_table(text: str, line: int) -> str:
    """The text with the table on `line` emptied; the others keep their line numbers."""
    lines = text.splitlines(keepends=True)
    end = min((number for number, _ in _headers(text) if number > line), default=len(lines) + 1)
    return "".join([*lines[: line - 1], "\n" * (end - line), *lines[end - 1 :]])


def _headers(text: str) -> Iterator[tuple[int, re.Match[str]]]:
    for number, line in _outside_of_texts(text):
        if header := _HEADER.fullmatch(line):
            yield number, header


def _outside_of_texts(text: str) -> Iterator[tuple[int, str]]:
    """The numbered lines that do not begin inside a multi-line string."""
    inside = ""
    for number, line in enumerate(text.splitlines(), 1):
        if not inside:
            yield number, line
        for quotes in ('"""', "'''"):
            if inside in ("", quotes) and line.count(quotes) % 2:
                inside = "" if inside else quotes


def _joined(dotted: str) -> str:
    return ".".join(part.strip("\"'") for part in _PARTS.findall(dotted))
