"""What CSV and JSON Lines files share: layout, conversion, positions, rejected lines, replay at a speed.

A position of the connector is the number of a data line, counted over all rotated files: line n of a CSV file with a
header is position n - 2. Blank and rejected lines have positions too, so a position finds its line in the file.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from streampiped.errors import OptionError, SourceError
from streampiped.records import Array, Batch, Span
from streampiped.sources.base import Connector, Ready
from streampiped.sources.columns import Kind, Table, convert, infer, to_floats
from streampiped.sources.lines import LineFile
from streampiped.sources.replay import Replay
from streampiped.stages.base import Emit, StageOptions, State

BATCH_BYTES: Final = 4 << 20  # of lines in a batch: a frame has its bounds, and every queue holds several of them
KEYS_TOLD_MAX: Final = 64  # where lines have ever other keys (ids), more of them would be noise
KEYS_SHOWN: Final = 16  # in one event
SAMPLE_LINES: Final = 256  # from which column types are inferred: a few ms, and past the odd first rows


class TextFileOptions(StageOptions):
    """Options of every file of lines."""

    path: Path
    columns: tuple[str, ...] | None = None
    """Columns to read, in this order; None: all, in the file's order."""
    types: Mapping[str, Kind] = {}
    """Of columns whose type the first 256 lines would not tell rightly. Others are float or text."""
    missing: tuple[str, ...] = ("", "NA", "N/A", "null", "None")
    """Texts that mean 'no value'; NaN in a number column, None in a text column."""
    speed: Annotated[float, Field(ge=0)] = 0.0
    """Seconds of data per second of replay; 0: as fast as possible."""
    time_column: str | None = None
    """Seconds, ascending; with `speed`."""
    follow: bool = False
    """After the end wait for more, across rotation (rename and create) and truncation (copytruncate)."""

    @model_validator(mode="after")
    def _fits(self) -> TextFileOptions:
        if self.speed and self.time_column is None:
            raise ValueError("speed needs time_column, the column that has the seconds")
        if self.speed and self.follow:
            raise ValueError("speed replays a finished file; with follow, records come when they are written")
        return self


class LineFormat(Protocol):
    """How a line is split."""

    header: bool
    """The first line of a file names the columns."""

    def names(self, header: bytes | None, sample: Sequence[bytes]) -> tuple[str, ...]:
        """The columns in their order. Raises ValueError."""

    def split(
        self,
        lines: Sequence[bytes],
        names: Sequence[str],
        floats: Collection[str] = (),
        told: Collection[str] | None = None,
    ) -> Table:
        """The raw values of the lines. A column of `floats` may come as an array in which missing is NaN, or with
        numbers of which float() makes the same. What lines have beside `names` and `told` is told as `further`; None:
        nobody wants to know."""


class TextFile(Connector):
    """Records are the lines of a file. `name` is the stage's, for the spans."""

    def __init__(
        self, options: TextFileOptions, name: str, emit: Emit, line_format: LineFormat, *, resuming: bool
    ) -> None:
        """Raises OptionError when the file is not there or has not the columns that were asked for. When `resuming` the
        file at the path need not be the one that is read: `seek` finds that, or refuses."""
        self._options = options
        self._name = name
        self._emit = emit
        self._format = line_format
        self._lines = LineFile(options.path, follow=options.follow, emit=emit)
        self._missing = frozenset(options.missing)
        self._replay = Replay(options.speed or 1.0)
        self._names: tuple[str, ...] = ()
        self._kinds: dict[str, Kind] = {}
        self._rejected = 0
        self._told: set[str] = set()  # keys that are no columns; once for a process, whatever it goes back to
        self._given = 0
        self._headed = 0  # the number of the file whose header was looked at
        self._times: tuple[int, Array] | None = None
        if not (options.follow or resuming):
            self._try()

    def ready(self, limit: int, now: float) -> Ready:
        found = self._fill(limit)
        count = self._lines.fitting(found, BATCH_BYTES)
        full = count < found
        last = self._lines.finished and self._lines.buffered == count
        if not self._options.speed or not count:
            return Ready(count, last, full=full)
        due, wake_at = self._replay.due(self._line_times(count), now)
        return Ready(due, last and due == count, wake_at, full and due == count)

    def read(self, limit: int) -> Batch | None:
        start = self._lines.row
        floats = [name for name in self._names if self._kind(name) == "float"]
        wanted = self._options.columns is None and len(self._told) < KEYS_TOLD_MAX
        table = self._format.split(self._lines.take(limit), self._names, floats, self._told if wanted else None)
        if table.further:
            self._tell(table.further, start)
        columns, keep, reason = self._convert(table)
        rejected = table.rejected + int(np.count_nonzero(~keep))
        if rejected:
            self._rejected += rejected
            reason, row = table.reason or reason, start + _first_left_out(table.lines[keep])
            self._emit("records_rejected", count=rejected, path=str(self._options.path), row=row, reason=reason)
        lines = table.lines[keep]
        if not lines.size:
            return None
        if rejected:
            columns = {name: _kept(values, keep) for name, values in columns.items()}
        self._given += int(lines.size)
        return Batch.build(columns, spans=_spans(self._name, start + lines))

    def position(self) -> State:
        return {
            "file": self._lines.position(),
            "names": list(self._names),
            "kinds": dict(self._kinds),
            "rejected": self._rejected,
            "given": self._given,
        }

    def seek(self, position: State | None) -> None:
        self._forget()
        if position:
            self._names = tuple(position["names"])
            self._kinds = dict(position["kinds"])
            self._rejected = int(position["rejected"])
            self._given = int(position.get("given", 0))
            if not set(self._options.columns or ()) <= set(self._names):  # asked for since the position was saved
                self._kinds = {}
                self._names = self._names if self._format.header else ()
        self._lines.seek(position["file"] if position else None)

    def wake_fd(self) -> int | None:
        return self._lines.wake_fd()

    def given(self) -> int | None:
        return self._given

    def summary(self) -> Mapping[str, Any]:
        return {"lines": self._lines.row, "rejected": self._rejected}

    def close(self) -> None:
        self._lines.close()

    def _forget(self) -> None:
        self._names, self._kinds = (), {}
        self._rejected = self._given = self._headed = 0
        self._times = None
        self._replay.reset()

    def _try(self) -> None:
        """What is wrong with the file is told before the pipeline starts."""
        if not self._options.path.exists():
            raise OptionError(f"path: {self._options.path} does not exist")
        try:
            self._fill(1)
        except SourceError as error:
            raise OptionError(str(error)) from error
        finally:
            self.close()
            self.seek(None)

    # --- layout ----------------------------------------------------------------------------------------------------

    def _fill(self, limit: int) -> int:
        """Lines that can be taken, header and layout being known."""
        while True:
            count = self._lines.fill(limit if self._kinds else max(limit, SAMPLE_LINES + 1))
            if not count:
                return 0
            at_top = self._lines.offset == 0 and self._headed != self._lines.opened
            if at_top and self._format.header:
                self._look_at_header(self._lines.peek(1)[0])
                continue
            if not self._kinds:
                self._infer(self._lines.peek(SAMPLE_LINES))
            if not self._kinds:  # none of them is a record; what is given out must not have one then
                self._infer(self._lines.peek(limit))
            return min(count, limit)

    def _look_at_header(self, line: bytes) -> None:
        """Skip it, or find that this later file begins with data."""
        self._headed = self._lines.opened
        try:
            names = self._told_names(line, ())
        except SourceError:
            if not self._names:
                raise
            return  # these can be no names: `5,5`
        if self._names and names != self._names:
            if set(names) & set(self._names):
                raise SourceError(f"{self._options.path}: the columns changed from {self._names} to {names}")
            return
        self._names = names
        self._lines.skip_header()

    def _infer(self, sample: Sequence[bytes]) -> None:
        options = self._options
        self._names = self._names or self._told_names(None, sample)
        wanted = {*(options.columns or ()), *options.types, *((options.time_column,) if options.time_column else ())}
        if absent := sorted(wanted - set(self._names)):
            raise SourceError(f"{options.path} has no column {', '.join(absent)}; there are {', '.join(self._names)}")
        table = self._format.split(sample, self._names)
        self._kinds = {name: infer(table.columns[name], self._missing) for name in self._names}

    def _told_names(self, header: bytes | None, sample: Sequence[bytes]) -> tuple[str, ...]:
        try:
            return self._format.names(header, sample)
        except ValueError as error:
            raise SourceError(f"{self._options.path}: {error}") from error

    # --- rows ------------------------------------------------------------------------------------------------------

    def _kind(self, name: str) -> Kind:
        return self._options.types.get(name) or self._kinds[name]

    def _convert(self, table: Table) -> tuple[dict[str, Any], NDArray[np.bool_], str]:
        """The columns, which of their rows are good, and why the first bad one is not."""
        keep = np.ones(len(table.lines), dtype=np.bool_)
        columns: dict[str, Any] = {}
        reason = ""
        for name in self._options.columns or self._names:
            kind = self._kind(name)
            columns[name], bad = convert(kind, table.columns[name], self._missing)
            if bad:
                keep[bad] = False
                value = str(table.columns[name][bad[0]])[:40]
                reason = reason or f"{value!r} in column {name} is no {kind}"
        return columns, keep, reason

    def _tell(self, further: Mapping[str, int], start: int) -> None:
        """Of keys that were not there when the columns were chosen, and are left out."""
        keys = list(further)
        self._told.update(keys[: KEYS_TOLD_MAX - len(self._told)])
        more = f" and {len(keys) - KEYS_SHOWN} more" if len(keys) > KEYS_SHOWN else ""
        row = start + min(further.values())
        self._emit("keys_left_out", path=str(self._options.path), row=row, keys=", ".join(keys[:KEYS_SHOWN]) + more)

    def _line_times(self, count: int) -> Array:
        """The data time of the next `count` lines, NaN where a line has none. A batch is asked for several times
        while it waits: parsed once."""
        if self._times is None or self._times[0] != self._lines.row or len(self._times[1]) != count:
            table = self._format.split(self._lines.peek(count), self._names)
            times = np.full(count, np.nan)
            times[table.lines] = to_floats(table.columns[str(self._options.time_column)], self._missing)[0]
            self._times = (self._lines.row, times)
        return self._times[1]


def _first_left_out(lines: NDArray[np.intp]) -> int:
    """The first line that is not among these, which are ascending from 0 on: rejected, or blank before one that is."""
    moved = np.flatnonzero(lines != np.arange(lines.size))
    return int(moved[0]) if moved.size else int(lines.size)


def _kept(values: Any, keep: NDArray[np.bool_]) -> Any:
    if isinstance(values, list):
        return [value for value, kept in zip(values, keep, strict=True) if kept]
    return values[keep]


def _spans(name: str, positions: NDArray[np.intp]) -> tuple[Span, ...]:
    """Runs of consecutive positions."""
    cuts = np.flatnonzero(np.diff(positions) != 1) + 1
    return tuple(Span(name, int(run[0]), int(run.size)) for run in np.split(positions, cuts))
