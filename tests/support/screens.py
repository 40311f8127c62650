"""A pseudo-terminal, and what a person would see on it."""

from __future__ import annotations

import os
import re
import select
from collections.abc import Iterator
from contextlib import contextmanager

_TOKEN = re.compile(r"\x1b\[(\d*)([A-Za-z])|\x1b\[[\d;]*m|(\r)|(\n)|([^\x1b\r\n]+)")


@contextmanager
def terminal() -> Iterator[tuple[int, int]]:
    """(the side that a person looks at, the side that a program writes to)."""
    master, slave = os.openpty()
    os.set_blocking(master, False)
    try:
        yield master, slave
    finally:
        os.close(master)
        os.close(slave)


def read_now(fd: int) -> str:
    """Everything that can be read without waiting more than a moment for the kernel to hand it over."""
    parts: list[bytes] = []
    while select.select([fd], [], [], 0.05)[0]:
        try:
            data = os.read(fd, 65536)
        except BlockingIOError:
            break
        if not data:
            break
        parts.append(data)
    return b"".join(parts).decode()


def screen_of(text: str) -> list[str]:
    """The lines on an endless screen after `text`: line ends, carriage returns, cursor up, erase below; colours
    are ignored."""
    lines, row, column = [""], 0, 0
    for found in _TOKEN.finditer(text):
        count, command, back, feed, plain = found.groups()
        if command == "A":
            row -= int(count or 1)
            assert row >= 0, "went above the top"
        elif command == "J":
            lines[row] = lines[row][:column]
            del lines[row + 1 :]
        elif back:
            column = 0
        elif feed:
            row += 1
            if row == len(lines):
                lines.append("")
        elif plain:
            lines[row] = lines[row][:column].ljust(column) + plain + lines[row][column + len(plain) :]
            column += len(plain)
    return [line for line in lines if line]
