"""A pseudo-terminal, and what a person would see on it."""

from __future__ import annotations

import fcntl
import os
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

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


_WHOLE_LINE = re.compile(r"\x1b\[(\d+);1H\x1b\[2K((?:[^\x1b]|\x1b\[\d*m)*)")
_COLOUR = re.compile(r"\x1b\[\d*m")


def rows_of(text: str, rows: int) -> list[str]:
    """What a screen of so many rows shows after `text`, which writes whole lines by their number; without colours."""
    shown = [""] * rows
    for row, line in _WHOLE_LINE.findall(text):
        if int(row) <= rows:
            shown[int(row) - 1] = _COLOUR.sub("", line)
    return shown


class Session:
    """A program on a terminal of its own, as its controlling terminal, and somebody who types."""

    def __init__(self, words: Sequence[str], columns: int = 80, rows: int = 24, **environment: str) -> None:
        self._master, slave = os.openpty()
        self.resize(columns, rows)
        self.before = termios.tcgetattr(slave)
        self.text = ""
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *words],
            stdin=slave, stdout=slave, stderr=slave,
            env={"TERM": "xterm-256color", "LC_ALL": "C.UTF-8", **_inherited(), **environment},
        )  # fmt: skip
        self._slave = slave

    def resize(self, columns: int, rows: int) -> None:
        """The kernel sends SIGWINCH to what is in the foreground."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def wait(self, condition: Callable[[str], Any], what: str, seconds: float = 20.0) -> str:
        """What was written since the last `wait`, as soon as the condition holds for it."""
        until = time.monotonic() + seconds
        while not condition(self.text):
            left = until - time.monotonic()
            assert left > 0, f"not within {seconds} s: {what}; there was {self.text!r}"
            if select.select([self._master], [], [], min(left, 0.2))[0]:
                self.text += os.read(self._master, 65536).decode(errors="replace")
        found, self.text = self.text, ""
        return found

    def modes(self) -> list[Any]:
        """The terminal's, as `before` were those it had."""
        return termios.tcgetattr(self._slave)

    def end(self, seconds: float = 20.0) -> int:
        """The exit code of a program that leaves by itself."""
        until = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < until:
            if select.select([self._master], [], [], 0.02)[0]:
                self.text += os.read(self._master, 65536).decode(errors="replace")
        while select.select([self._master], [], [], 0)[0]:  # its last words
            self.text += os.read(self._master, 65536).decode(errors="replace")
        return self.process.wait(0)

    def close(self) -> None:
        """Hang up, which ends what was started here."""
        os.close(self._slave)
        os.close(self._master)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)


def _inherited() -> dict[str, str]:
    """Without what would colour, or size, the program under test differently on every machine."""
    left_out = ("NO_COLOR", "COLUMNS", "LINES", "TERM", "LC_ALL")
    return {name: value for name, value in os.environ.items() if name not in left_out}


@contextmanager
def session(words: Sequence[str], columns: int = 80, rows: int = 24, **environment: str) -> Iterator[Session]:
    """A session that is closed afterwards, whatever happens."""
    opened = Session(words, columns, rows, **environment)
    try:
        yield opened
    finally:
        opened.close()
