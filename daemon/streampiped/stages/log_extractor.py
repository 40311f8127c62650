"""The log extractor: turns the pipeline's log into facts that can be asked for.

A service beside the data path. It follows the event file by inotify, across rotations, or the journal by its cursor,
and keeps counts per stage, level and template, restarts with their reasons, slow epochs, drops and bursts of errors in
a database in its directory. After a kill at any instant every line is counted exactly once, because the position is
part of the transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

from pydantic import Field

from streampiped.errors import OptionError
from streampiped.stages import log_since, log_store
from streampiped.stages.base import Service, StageContext, StageOptions
from streampiped.stages.history import History
from streampiped.stages.log_facts import Memory, Tally, fact_of
from streampiped.stages.log_follow import Chunk, EventFollower
from streampiped.stages.log_journal import JournalFollower, fact_of_entry
from streampiped.units import Duration

FILE_NAME: Final = "log.sqlite"
JOURNAL_NAME: Final = "journal.sqlite"  # its own: the same events come by both ways, and no count may have them twice
LINGER_S: Final = 0.1  # between two transactions: a storm of lines costs ten commits a second, not one per line
TEMPLATE_BYTES: Final = 4096  # a page for each: no template and its example need more
FIXED_BYTES: Final = 32 << 20  # everything else, whose rows are bounded in log_store.py; a backstop, never met
UNWATCHED_S: Final = 2.0  # between looks while inotify is not to be had or the directory is gone


class LogExtractorOptions(StageOptions):
    """`[services.log_extractor]`"""

    source: Literal["file", "journal"] = Field(default="file", alias="from")
    """What is followed: the event file, or the journal of systemd."""
    path: str = ""
    """The event file to follow; the daemon gives its own."""
    unit: str = Field(default="streampipe.service", min_length=1)
    """Whose entries of the journal are read; its user needs the group systemd-journal for that."""
    templates_max: int = Field(default=1000, ge=10, le=100_000)
    """Templates kept; what was not seen for the longest time is forgotten into `(other)`."""
    burst_window: Duration = 10.0
    burst_errors: int = Field(default=10, ge=2, le=1000)
    """A burst is on while a stage's last `burst_errors` errors lie within `burst_window`."""


class LogExtractor(Service):
    """Follows `path` or the journal; `query("summary", {"stage": NAME?, "since": TS?})` gives the facts."""

    Options: ClassVar[type[StageOptions]] = LogExtractorOptions

    def __init__(self, options: LogExtractorOptions, context: StageContext) -> None:
        journal = options.source == "journal"
        if not (options.path or journal):
            raise OptionError("path: the event file to follow is missing")
        self._options = options
        self._history = History(
            context.directory / (JOURNAL_NAME if journal else FILE_NAME),
            log_store.SCHEMA,
            log_store.VERSION,
            context.emit,
            bytes_max=FIXED_BYTES + options.templates_max * TEMPLATE_BYTES,
        )
        self._own = (*context.processes, *((options.unit,) if journal else ()))
        self._opened = self._history.opened
        self._memory: Memory | None = None
        """None: to be read from the database first."""
        position = log_store.position_of(self._history)
        self._follower: EventFollower | JournalFollower
        if journal:
            self._read = fact_of_entry
            self._follower = JournalFollower(options.unit, position, context.emit)
        else:
            self._read = fact_of
            self._follower = EventFollower(Path(options.path), position)
        self._next = 0.0

    def wake(self, now: float) -> float | None:
        """Count what is new. Between two transactions LINGER_S pass; nothing new and a watched directory: None."""
        idle = self._drain(now)
        if now < self._next:
            return self._next
        if self._opened != self._history.opened:  # counts and position began anew together
            self._opened = self._history.opened
            self._memory = None
            self._follower.go_to(None)
        chunk = self._follower.peek()
        if chunk is None:
            return idle
        if self._count(chunk, now):
            self._follower.advance(chunk)
            self._next = now + LINGER_S
        else:
            self._memory = None  # it knows lines that are not counted
            self._next = max(self._history.retry_at, now + LINGER_S)
        return self._next

    def wake_fd(self) -> int | None:
        return self._follower.fd

    def _drain(self, now: float) -> float | None:
        """Take in what there is. When to look again should there be nothing to count: None when the descriptor says."""
        if isinstance(self._follower, JournalFollower):
            return self._follower.drain(now)
        return None if self._follower.drain() else now + UNWATCHED_S

    def query(self, method: str, params: Mapping[str, Any]) -> Any:
        match method:
            case "summary":
                stage = None if params.get("stage") is None else str(params["stage"])
                since = float(params.get("since") or 0.0)
                if since > 0:
                    found = log_since.summary_since(self._history, stage, since)
                else:
                    found = log_store.summary(self._history, stage)
                return {**found, "unwritten": self._history.trouble}
            case _:
                raise KeyError(method)

    def close(self) -> None:
        self._follower.close()
        self._history.close()

    def _count(self, chunk: Chunk, now: float) -> bool:
        options = self._options

        def act(db: sqlite3.Connection) -> None:
            if self._memory is None:
                self._memory = log_store.memory_of(db, options.templates_max, self._own)
            tally = Tally.of(chunk.lines, self._memory, self._read)
            log_store.add(db, tally, self._memory, chunk, window=options.burst_window, threshold=options.burst_errors)

        return self._history.write(act, now)
