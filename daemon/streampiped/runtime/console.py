"""Progress for whoever started the daemon in the foreground.

On a terminal a status block that is redrawn in place, log lines going above it; elsewhere a plain line every few
seconds. The texts are pure functions of the status; `now` is an argument, and `update` says when it wants the next
status, so that nothing has to poll.

The status is what the control tool's `status` answers: `{"state", "generation", "epoch", "uptime", "report": {"rows",
"mse", "r2"} | None, "totals": {"records", "records_per_s", "lag_s", "total", "restarts"}, "processes": [{"name",
"state", "records_in", "records_out", "records_per_s"}]}`; what is missing or None is left out.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

from streampiped.runtime.event_format import printable
from streampiped.runtime.line_writer import LineWriter

TERMINAL_INTERVAL_S: Final = 0.25  # fast enough to look alive; a redraw costs 50 us
PLAIN_INTERVAL_S: Final = 5.0  # a minute's run leaves a dozen lines in a CI log
PLAIN_WIDTH: Final = 160  # columns of a plain line: nothing is cut in practice
BAR_COLUMNS: Final = 24
WIDTH_DEFAULT: Final = 80  # of a terminal that does not say (COLUMNS 0 x 0 of a bare pty)
ROWS_DEFAULT: Final = 24
BAR_WIDTH_MIN: Final = 60  # narrower lines keep their room for figures

_ERASE_BELOW: Final = "\x1b[J"
_SEPARATOR: Final = " · "


def progress_line(status: Mapping[str, Any], width: int, *, bar: bool = True) -> str:
    """The whole pipeline in one line of at most `width` characters. What matters least stands last, and is left out
    when the line is full."""
    totals = status.get("totals") or {}
    done, total = totals.get("records"), totals.get("total")
    parts = [str(status.get("state") or "?")]
    if done is not None:
        parts.append(_share(done, total, bar and width >= BAR_WIDTH_MIN) if total else f"{_count(done)} records")
    parts += [text for text in _figures(status, totals) if text]
    line = ""
    for part in parts:
        longer = f"{line}{_SEPARATOR}{part}" if line else part
        if len(longer) > width:
            break
        line = longer
    return line or parts[0][:width]


def process_lines(processes: Sequence[Mapping[str, Any]], width: int) -> list[str]:
    """One line per process: name, state, records in and out, records/s."""
    names = max((len(str(p.get("name", ""))) for p in processes), default=0)
    return [
        f"  {p.get('name', '')!s:<{names}}  {p.get('state', '?')!s:<10}"
        f"{_column('in', p.get('records_in'))}{_column('out', p.get('records_out'))}"
        f"{_column('', p.get('records_per_s'), '/s')}"[:width].rstrip()
        for p in processes
    ]


class Console:
    """Shows the status on `fd`. On a terminal it is the `screen` of the event log as long as it is open."""

    def __init__(self, fd: int = 1) -> None:
        self.interactive = os.isatty(fd)
        self._fd = fd
        self._out = LineWriter(fd, _lost_lines)
        self._block: list[str] = []
        self._due = 0.0
        self._state: object = None

    @property
    def waiting(self) -> int:
        """Bytes that the terminal has not taken yet."""
        return self._out.pending

    def update(self, status: Mapping[str, Any], now: float) -> float:
        """Show the status if it is time to, and give the CLOCK_MONOTONIC second of the next time. A change of the
        pipeline's state is shown at once."""
        if now < self._due and status.get("state") == self._state:
            return self._due
        self._state = status.get("state")
        if self.interactive:
            self._redraw(self._lines(status))
            self._due = now + TERMINAL_INTERVAL_S
        else:
            self._out.write(_encode(progress_line(status, PLAIN_WIDTH, bar=False) + "\n"))
            self._due = now + PLAIN_INTERVAL_S
        return self._due

    def print_above(self, text: str) -> None:
        """Put whole lines above the block (`event_log.Screen`). One write: the block never flickers."""
        shown = "".join(f"{line}\n" for line in self._block)
        self._out.write(_encode(self._erase() + text + shown))

    def clear(self) -> None:
        """Take the block away, before somebody else writes to the terminal."""
        if self._block:
            self._out.write(_encode(self._erase()))
            self._block = []

    def close(self) -> None:
        self.clear()
        self._out.close()

    def _redraw(self, lines: list[str]) -> None:
        self._out.flush()
        if self._out.pending:  # a stopped terminal (Ctrl-S) gets no queue of old pictures
            return
        text = self._erase() + "".join(f"{line}\n" for line in lines)
        self._block = lines
        self._out.write(_encode(text))

    def _erase(self) -> str:
        return f"\r\x1b[{len(self._block)}A{_ERASE_BELOW}" if self._block else ""

    def _lines(self, status: Mapping[str, Any]) -> list[str]:
        """The block, never more than half of the terminal, no line as wide as it (which would wrap and be erased
        badly)."""
        columns, rows = _size(self._fd)
        processes = process_lines(status.get("processes") or [], columns - 1)
        block = [*processes, progress_line(status, columns - 1)]
        return [printable(line) for line in block[-max(1, rows // 2) :]]


def _figures(status: Mapping[str, Any], totals: Mapping[str, Any]) -> list[str]:
    """Texts in the order of what people look for first; empty ones for what is not known."""
    report = status.get("report") or {}
    return [
        _some(totals.get("records_per_s"), lambda v: f"{_count(v)}/s"),
        _some(report.get("mse"), lambda v: f"MSE {v:.4g}"),
        _some(report.get("r2"), lambda v: f"R2 {v:.4f}"),
        _some(totals.get("lag_s"), lambda v: f"lag {_seconds(v)}"),
        _some(status.get("uptime"), _clock),
        _some(totals.get("restarts") or None, lambda v: f"{v} restart{'s' if v != 1 else ''}"),
        _some(status.get("epoch"), lambda v: f"epoch {v}"),
        _some(status.get("generation"), lambda v: f"generation {v}"),
    ]


def _some(value: Any, show: Any) -> str:
    return "" if value is None else str(show(value))


def _share(done: float, total: float, bar: bool) -> str:
    part = min(1.0, done / total)
    full = int(part * BAR_COLUMNS)
    drawn = f"[{'#' * full}{'.' * (BAR_COLUMNS - full)}] " if bar else ""
    return f"{drawn}{int(part * 100)} % of {_count(total)} records"


def _column(label: str, value: float | None, unit: str = "") -> str:
    text = "-" if value is None else f"{_count(value)}{unit}"
    return f"{label:>5} {text:>9}"


def _count(value: float) -> str:
    """
    >>> _count(999), _count(12_345), _count(1_234_567)
    ('999', '12.3k', '1.23M')
    """
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= limit:
            scaled = value / (1e3 if suffix == "k" else limit)
            return f"{scaled:.3g}{suffix}" if scaled < 1000 else f"{scaled:.0f}{suffix}"
    return f"{value:.0f}"


def _seconds(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"


def _clock(value: float) -> str:
    minutes, seconds = divmod(int(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _size(fd: int) -> tuple[int, int]:
    """(columns, rows) of the terminal."""
    try:
        found = os.get_terminal_size(fd)
    except OSError:
        return WIDTH_DEFAULT, ROWS_DEFAULT
    return found.columns or WIDTH_DEFAULT, found.lines or ROWS_DEFAULT


def _lost_lines(count: int) -> bytes:
    return _encode(f"({count} updates not shown)\n")


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")
