"""What is written where: lines, complaints, JSON, and what the terminal can show."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import Any, Final

from streampipectl import render

STREAMS: Final = 3  # standard input, output and error
SCREEN: Final = (80, 24)  # columns and lines of a terminal that does not know its size


def say(text: str, end: str = "\n") -> None:
    """To stdout at once: what reads the other end of a pipe, or a terminal, should not wait."""
    sys.stdout.write(text + end)
    sys.stdout.flush()


def complain(text: str) -> None:
    with contextlib.suppress(OSError):  # a full disk there too: the exit code is left to say it
        sys.stderr.write(f"streampipectl: {render.clean(text)}\n")


def give_up_stdout() -> None:
    """Nothing more can be written there. The interpreter flushes stdout once more at its end, and that should not fail
    again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def have_streams() -> None:
    """Standard streams that were closed (`>&-`, some schedulers) lead to /dev/null: what is opened next would
    otherwise get their numbers."""
    if None not in (sys.stdin, sys.stdout, sys.stderr):
        return
    while (fd := os.open(os.devnull, os.O_RDWR)) < STREAMS:
        os.set_inheritable(fd, True)
    os.close(fd)
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115 - open as long as the process
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115 - open as long as the process
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115 - open as long as the process


def dumped(value: Any, indent: int | None = None) -> str:
    """JSON by the book: NaN and infinities, which JSON does not have, become null."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_finite(entry) for entry in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def width() -> int | None:
    """Columns to draw in; None into a pipe."""
    return screen()[0] if sys.stdout.isatty() else None


def screen() -> tuple[int, int]:
    """Columns and lines of the terminal; a terminal without a size (serial line, some containers) says 0."""
    size = os.get_terminal_size(sys.stdout.fileno())
    return size.columns or SCREEN[0], max(size.lines or SCREEN[1], 2)


def colour() -> bool:
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
