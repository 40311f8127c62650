"""Rows as JSON Lines in one file that only grows, and is cut back after a crash.

A small file beside it, `NAME.epochs`, says how long the file was at each epoch and how much of it is committed; it is
replaced by rename, so a reader sees the old or the new one. Who wants committed rows only reads `visible_bytes` bytes.
NaN is null, infinities are the strings "Infinity" and "-Infinity": JSON has no word for them, and a line that strict
readers refuse would be worse. There is no retention: rotate by starting with a new path.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from streampiped.errors import StateError, StorageError
from streampiped.records import Batch, Schema
from streampiped.sinks.base import Refusal, Sink, outer_names, positions_of, sources_of
from streampiped.sinks.side_file import Marks
from streampiped.stages.base import Emit, StageOptions

BUFFER_BYTES: Final = 1 << 20  # written when so much is there; fewer, larger writes


class JsonlSinkOptions(StageOptions):
    """`type = "jsonl"`."""

    type: Literal["jsonl"] = "jsonl"
    path: Path = Path("records.jsonl")
    """Relative to the stage's directory."""


class JsonlSink(Sink):
    """The file is opened at the first call, so that checking a configuration creates nothing."""

    def __init__(self, options: JsonlSinkOptions, directory: Path, emit: Emit) -> None:
        self._options = options
        self._path = directory / options.path
        self._marks = Marks(self._path.with_name(self._path.name + ".epochs"), "bytes")
        self._emit = emit
        self._fd = -1
        self._refusal = Refusal(self._path)
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._length = 0  # of the file and what is pending
        self._template: tuple[Schema | None, str] = (None, "")

    def write(self, batch: Batch) -> None:
        with self._guarded():
            if self._template[0] != batch.schema:
                self._template = (batch.schema, _template(batch.schema))
            template = self._template[1]
            sources = map(json.dumps, sources_of(batch))
            positions = ("null" if position is None else position for position in positions_of(batch))
            rows = zip(sources, positions, *map(_texts, batch.columns().values()), strict=True)
            data = "".join([template % row for row in rows]).encode()
            self._pending.append(data)
            self._pending_bytes += len(data)
            self._length += len(data)
            if self._pending_bytes >= BUFFER_BYTES:
                self._flush()

    def prepare(self, epoch: int) -> None:
        with self._guarded():
            self._flush()
            os.fsync(self._fd)
            self._marks.add(epoch, self._length)
            self._marks.save(durable=True)

    def commit(self, epoch: int) -> None:
        with self._guarded():
            if self._marks.show(epoch):
                self._marks.save(durable=False)  # after a power failure `rollback` says it again

    def rollback(self, epoch: int | None) -> None:
        """What no mark that counts reaches is cut off first: the side file needs room, and the disk may be full of it.
        Committed rows go only when the side file says so: a file shorter than its mark would be taken for damage."""
        self._refusal.clear()
        self.close()
        with self._guarded():
            length = os.fstat(self._fd).st_size
            mark = None if epoch is None else self._target(epoch, length)
            visible = mark or (None, 0)
            os.ftruncate(self._fd, min(length, max(self._marks.visible[1], visible[1])))
            self._marks.go_back(mark)
            self._marks.save(durable=True)
            os.ftruncate(self._fd, visible[1])
            self._length = visible[1]

    def foresee(self, epoch: int) -> None:
        """Raise and emit what `rollback(epoch)` would, and touch nothing. For a sink that does nothing else."""
        length = self._path.stat().st_size
        self._recall(length)
        self._target(epoch, length)

    def summary(self) -> Mapping[str, Any]:
        epoch, visible = self._marks.visible
        return {"sink": "jsonl", "path": str(self._path), "bytes": visible, "epoch": epoch}

    def double(self) -> Sink:
        """Texts are made and go to /dev/null."""
        double = JsonlSink(self._options, self._path.parent, self._emit)
        double._fd = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        return double

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1
        self._pending, self._pending_bytes = [], 0

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """The file is open. A write that failed may have left a part of a row."""
        self._refusal.check()
        try:
            if self._fd < 0:
                self._open()
            yield
        except (OSError, StorageError) as error:
            raise self._refusal.storage(error) from error
        except (ValueError, KeyError, StateError) as error:
            raise self._refusal.state(error) from error

    def _target(self, epoch: int, length: int) -> tuple[int, int] | None:
        """The mark to go back to in a file of this length."""
        mark = self._marks.target(epoch, self._path, self._emit)
        if mark is not None and length < mark[1]:
            raise StateError(
                f"is shorter than the {mark[1]} bytes that were committed; put it back, or remove it together "
                f"with {self._marks.side.name} to begin a new one"
            )
        return mark

    def _open(self) -> None:
        is_new = not self._path.exists()
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        try:
            self._length = os.fstat(fd).st_size
            self._recall(None if is_new else self._length)
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd

    def _recall(self, length: int | None) -> None:
        """What the side file says of a file of this length; None: of a new one."""
        there = self._marks.side.exists()
        if length and not there:  # ours has one before it has its first row
            raise StateError(
                f"has {length} bytes and no {self._marks.side.name} beside it: another program's file, or one copied "
                "alone. Name another path, put the two together again, or move the file away to begin a new one"
            )
        self._marks.forget()
        if there and length is not None:  # the marks of a file that was removed are no marks of this one
            self._marks.load()

    def _flush(self) -> None:
        data = memoryview(b"".join(self._pending))
        self._pending, self._pending_bytes = [], 0
        while data:
            data = data[os.write(self._fd, data) :]


def _template(schema: Schema) -> str:
    """A line with a place for source, position and each column, to be filled with JSON text."""
    names = outer_names(schema.names)
    keys = ["source", "position", *(names[name] for name in schema.names)]
    return "{" + ", ".join(json.dumps(key).replace("%", "%%") + ": %s" for key in keys) + "}\n"


def _texts(values: Any) -> Iterable[Any]:
    """A column's values as JSON text; `repr` gives the shortest number that reads back to the same bits."""
    if isinstance(values, list):
        return map(json.dumps, values)
    if values.dtype.kind == "i" or np.isfinite(values).all():
        return map(repr, values.tolist())
    words = {"nan": "null", "inf": '"Infinity"', "-inf": '"-Infinity"'}
    return (words.get(text, text) for text in map(repr, values.tolist()))
