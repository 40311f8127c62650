"""The log: every event of the pipeline goes through here, in the supervisor, its only writer.

Three destinations: standard error (for people on a terminal, JSON lines elsewhere; where that is the journal's, entries
to journald itself instead), the event file, and whoever follows by `streampipectl logs -f`. None of them can block,
raise or grow without bound; what could not be written is counted, and said where it is missing.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Literal, Protocol, TypeAlias

from streampiped.events import CATALOGUE, LEVELS, Level, level_of
from streampiped.runtime.event_file import EventFile, head_of, lines_backwards
from streampiped.runtime.event_format import make_record, readable, to_json, with_priority
from streampiped.runtime.journal import SOCKET_PATH, JournalWriter
from streampiped.runtime.journal_entry import entry_of
from streampiped.runtime.line_writer import LineWriter

TAIL_LINES_MAX: Final = 10_000  # answered at once to `streampipectl logs`
TAIL_RESULT_BYTES_MAX: Final = 512 << 10  # of JSON in one answer; a control frame has 1 MiB
DISORDER_S: Final = 60.0  # by which lines may be older than one before them: events of stages come late, clocks are set
TAIL_SCAN_BYTES_MAX: Final = 4 << 20  # read backwards for one answer: at worst 29 ms, the newest 100 lines 0.6 ms
SUPERVISOR: Final = "supervisor"

Style: TypeAlias = Literal["terminal", "journal", "json"]
Subscriber: TypeAlias = Callable[[Mapping[str, Any]], None]


class Screen(Protocol):
    """Something that owns the terminal (console.py) and prints lines above what it shows there."""

    def print_above(self, text: str) -> None: ...


def stderr_style(fd: int, environ: Mapping[str, str]) -> Style:
    """How lines on `fd` should look. systemd says in JOURNAL_STREAM which socket is the journal's (systemd.exec(5));
    the variable is inherited by redirected children too, so device and inode are compared."""
    if os.isatty(fd):
        return "terminal"
    found = os.fstat(fd)
    if environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}":
        return "journal"
    return "json"


def complain(text: str) -> None:
    """What is wrong before there is a log, on standard error; with an error's priority where systemd reads that."""
    mark = "<3>" if stderr_style(2, os.environ) == "journal" else ""
    print("\n".join(mark + line for line in text.split("\n")), file=sys.stderr)


class EventLog:
    """Writes events. No method raises because of the outer world; `write` asserts that the event is listed.

    `directory` None: no file. `level` is the least level that goes anywhere; it may be changed at any time.
    """

    def __init__(
        self,
        directory: Path | None,
        *,
        level: Level = "info",
        file_bytes_max: int = 16 << 20,
        files_kept: int = 2,
        stderr_fd: int = 2,
        environ: Mapping[str, str] = os.environ,
        journal_path: str = SOCKET_PATH,
    ) -> None:
        self.level: Level = level
        self.screen: Screen | None = None
        """Set while a console shares the terminal with standard error."""
        self.epoch: int | None = None
        """The last committed one, for events that name none; only the journal's entries have it."""
        self.file_dropped = 0
        """Lines missing in the file and not yet said there."""
        self.file_dropped_total = 0
        self._style = stderr_style(stderr_fd, environ)
        self._colour = "NO_COLOR" not in environ and environ.get("TERM", "dumb") != "dumb"
        self._journal = self._reach_journal(journal_path) if self._style == "journal" else None
        self._stderr = LineWriter(stderr_fd, lambda count: self._render(_dropped(count, "standard error")))
        self._out: LineWriter | JournalWriter = self._journal or self._stderr
        self._file = EventFile(directory, file_bytes_max=file_bytes_max, files_kept=files_kept) if directory else None
        self._subscribers: list[Subscriber] = []

    def write(
        self,
        event: str,
        /,
        *,
        stage: str,
        level: Level | None = None,
        cause: str | None = None,
        ts: float | None = None,
        pid: int | None = None,
        **fields: object,
    ) -> None:
        """Log an event of the catalogue about `stage`, at the catalogue's level unless another is given."""
        assert event in CATALOGUE, f"event {event!r} is not in the catalogue (events.py)"
        self._put(event, fields, stage, level or level_of(event), cause, ts, pid)

    def relay(
        self,
        event: str,
        fields: Mapping[str, object],
        *,
        stage: str,
        level: str | None = None,
        cause: str | None = None,
        ts: float | None = None,
        pid: int | None = None,
    ) -> None:
        """Log what a stage sent. Its code may be a user's: an event that is not listed, fields named as ours or a
        level nobody knows are taken as they are, and hurt nobody."""
        known = next((name for name in LEVELS if name == level), None)
        listed = CATALOGUE[event].level if event in CATALOGUE else "info"
        self._put(event, fields, stage, known or listed, cause, ts, pid, relayed=True)

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Call `subscriber` with every record from now on; the result ends that. It must not block."""
        self._subscribers.append(subscriber)

        def unsubscribe() -> None:
            if subscriber in self._subscribers:
                self._subscribers.remove(subscriber)

        return unsubscribe

    def tail(
        self, stage: str | None = None, lines: int = 100, level: str | None = None, since: float = 0.0
    ) -> list[dict[str, Any]]:
        """The records of `look_back`."""
        return self.look_back(stage, lines, level, since)[0]

    def look_back(
        self, stage: str | None, lines: int, level: str | None, since: float
    ) -> tuple[list[dict[str, Any]], bool]:
        """The newest records in the files, oldest first: at most `lines`, of `stage`, of `level` or above, not older
        than `since` (seconds since the epoch). Bounded by TAIL_LINES_MAX, and by TAIL_SCAN_BYTES_MAX of reading, so a
        rare one far back may be missing; False: older ones that were asked for may be."""
        wanted: set[str] = set(LEVELS[LEVELS.index(level) :] if level in LEVELS else LEVELS)
        found: list[dict[str, Any]] = []
        scan, room, seen = TAIL_SCAN_BYTES_MAX, TAIL_RESULT_BYTES_MAX, 0
        for path in self._file.files() if self._file else ():
            with contextlib.suppress(OSError):  # removed meanwhile
                seen += path.stat().st_size
            for line in lines_backwards(path, scan):
                scan -= len(line) + 1
                head = head_of(line)
                if head is None or head.level not in wanted or stage not in (None, head.stage):
                    continue
                if head.ts < since - DISORDER_S:
                    return found[::-1], True
                if head.ts < since:
                    continue
                room -= len(line)
                if room < 0 or len(found) >= min(lines, TAIL_LINES_MAX):
                    return found[::-1], room >= 0 and lines < TAIL_LINES_MAX
                with contextlib.suppress(ValueError):  # a line that somebody else tore
                    found.append(json.loads(line))
            if seen > TAIL_SCAN_BYTES_MAX:
                return found[::-1], False
        return found[::-1], True

    def fileno(self) -> int:
        """To be registered for writing while `pending`, with `flush` as the callback; otherwise the rest goes with
        the next line."""
        return self._out.fileno()

    @property
    def pending(self) -> bool:
        return self._out.pending > 0

    def flush(self) -> None:
        self._out.flush()

    def counts(self) -> dict[str, int]:
        """Lines lost since the start, by destination."""
        return {
            "journal_dropped": self._journal.dropped_total if self._journal else 0,
            "stderr_dropped": self._stderr.dropped_total,
            "file_dropped": self.file_dropped_total,
        }

    def close(self) -> None:
        """Give the journal or standard error a moment for the last lines, and let go."""
        if self._journal:
            self._journal.close()
        self._stderr.close()
        if self._file:
            self._file.close()

    def _put(
        self,
        event: str,
        fields: Mapping[str, object],
        stage: str,
        level: Level,
        cause: str | None,
        ts: float | None,
        pid: int | None,
        *,
        relayed: bool = False,
    ) -> None:
        if LEVELS.index(level) < LEVELS.index(self.level):
            return
        record = make_record(event, stage, level, _now(ts), pid or os.getpid(), cause, fields)
        line = to_json(record)
        self._to_file(line)
        self._to_stderr(record, line, relayed=relayed)
        self._to_subscribers(record)

    def _reach_journal(self, path: str) -> JournalWriter | None:
        """None: systemd reads standard error, and journald's own socket is not to be had (a container's root)."""
        try:
            return JournalWriter(lambda count: self._entry(_dropped(count, "the journal")), path)
        except OSError:
            return None

    def _entry(self, record: Mapping[str, Any], *, relayed: bool = False) -> bytes:
        return entry_of(record, epoch=self.epoch, relayed=relayed)

    def _to_stderr(self, record: Mapping[str, Any], line: bytes, *, relayed: bool = False) -> None:
        if self._journal is not None:
            self._journal.write(self._entry(record, relayed=relayed))
        elif self.screen is not None and self._style == "terminal":
            self.screen.print_above(readable(record, colour=self._colour))
        else:
            self._stderr.write(line if self._style == "json" else self._render(record))

    def _render(self, record: Mapping[str, Any]) -> bytes:
        if self._style == "json":
            return to_json(record)
        text = with_priority(record) if self._style == "journal" else readable(record, colour=self._colour)
        return text.encode("utf-8", "backslashreplace")

    def _to_file(self, line: bytes) -> None:
        if self._file is None:
            return
        try:
            # in one write: where only the notice fits the trouble is not over, and would be said again with every line
            missing = to_json(_dropped(self.file_dropped, str(self._file.path))) if self.file_dropped else b""
            self._file.append(missing + line)
            self.file_dropped = 0
        except OSError as error:
            self.file_dropped += 1
            self.file_dropped_total += 1
            if self.file_dropped == 1:  # said once per trouble; how many were lost is said when it is over
                record = _own("log_file_failed", path=str(self._file.path), reason=error.strerror or str(error))
                self._to_stderr(record, to_json(record))
                self._to_subscribers(record)

    def _to_subscribers(self, record: Mapping[str, Any]) -> None:
        for subscriber in tuple(self._subscribers):
            try:
                subscriber(record)
            except Exception as error:  # noqa: BLE001 - whoever follows the log must not be able to end it
                self._subscribers.remove(subscriber)
                own = _own("log_follower_dropped", reason=repr(error))
                self._to_stderr(own, to_json(own))


def _own(event: str, **fields: object) -> dict[str, Any]:
    """A record of the log about itself."""
    return make_record(event, SUPERVISOR, level_of(event), time.time(), os.getpid(), None, fields)


def _dropped(count: int, where: str) -> dict[str, Any]:
    return _own("log_lines_dropped", count=count, where=where)


def _now(ts: float | None) -> float:
    """Seconds since the epoch; a time that datetime cannot show (a stage may send anything) becomes now."""
    return ts if isinstance(ts, int | float) and 0 <= ts < 1e11 else time.time()
