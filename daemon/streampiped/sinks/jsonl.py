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
from streampiped.sinks.base import Refusal, Sink, outer_names, positions_of, sources_of, unreachable
from streampiped.stages.base import Emit, StageOptions

BUFFER_BYTES: Final = 1 << 20  # written when so much is there; fewer, larger writes
MARKS_KEPT: Final = 1024  # epochs whose length is remembered: the largest `retain_epochs` is 1000; a file of 20 kB


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
        self._side = self._path.with_name(self._path.name + ".epochs")
        self._emit = emit
        self._fd = -1
        self._refusal = Refusal(self._path)
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._length = 0  # of the file and what is pending
        self._epochs: dict[int, int] = {}  # epoch -> length, ascending
        self._newest: int | None = None  # epoch ever prepared
        self._visible: tuple[int | None, int] = (None, 0)
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
            self._epochs[epoch] = self._length
            self._epochs = dict(sorted(self._epochs.items())[-MARKS_KEPT:])
            self._newest = max(epoch, -1 if self._newest is None else self._newest)
            self._write_side(durable=True)

    def commit(self, epoch: int) -> None:
        with self._guarded():
            mark = self._mark(epoch)
            if mark is not None and mark[0] > (-1 if self._visible[0] is None else self._visible[0]):
                self._visible = mark
                self._write_side(durable=False)  # after a power failure `rollback` says it again

    def rollback(self, epoch: int | None) -> None:
        """What no mark that counts reaches is cut off first: the side file needs room, and the disk may be full of it.
        Committed rows go only when the side file says so: a file shorter than its mark would be taken for damage."""
        self._refusal.clear()
        self.close()
        with self._guarded():
            mark = None if epoch is None else self._target(epoch)
            visible = mark or (None, 0)
            if os.fstat(self._fd).st_size < visible[1]:
                raise StateError(
                    f"is shorter than the {visible[1]} bytes that were committed; put it back, or remove it together "
                    f"with {self._side.name} to begin a new one"
                )
            os.ftruncate(self._fd, min(os.fstat(self._fd).st_size, max(self._visible[1], visible[1])))
            self._visible = visible
            self._epochs = {e: n for e, n in self._epochs.items() if mark is not None and e <= mark[0]}
            self._write_side(durable=True)
            os.ftruncate(self._fd, visible[1])
            self._length = visible[1]

    def summary(self) -> Mapping[str, Any]:
        return {"sink": "jsonl", "path": str(self._path), "bytes": self._visible[1], "epoch": self._visible[0]}

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

    def _open(self) -> None:
        is_new = not self._path.exists()
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        if (length := os.fstat(fd).st_size) and not self._side.exists():  # ours has one before it has its first row
            os.close(fd)
            raise StateError(
                f"has {length} bytes and no {self._side.name} beside it: another program's file, or one copied "
                "alone. Name another path, put the two together again, or move the file away to begin a new one"
            )
        self._fd, self._length = fd, length
        self._epochs, self._visible, self._newest = {}, (None, 0), None
        if self._side.exists() and not is_new:  # the marks of a file that was removed are no marks of this one
            side = json.loads(self._side.read_text())
            self._epochs = {int(epoch): length for epoch, length in side["epochs"].items()}
            self._visible = (side["visible_epoch"], side["visible_bytes"])
            self._newest = side.get("newest_epoch", max(self._epochs, default=None))

    def _target(self, epoch: int) -> tuple[int, int] | None:
        """The mark to go back to. Raises StateError when that of `epoch` was there and is gone."""
        mark = self._mark(epoch)
        if mark is None or mark[0] != epoch:
            if self._newest is not None and epoch <= self._newest:
                raise unreachable(epoch, min(self._epochs, default=None), max(self._epochs, default=None))
            reason = "the file is new" if mark is None else f"the newest epoch it knows is {mark[0]}"
            self._emit("sink_incomplete", path=str(self._path), epoch=epoch, reason=reason)
        return mark

    def _mark(self, epoch: int) -> tuple[int, int] | None:
        return max(((e, length) for e, length in self._epochs.items() if e <= epoch), default=None)

    def _flush(self) -> None:
        data = memoryview(b"".join(self._pending))
        self._pending, self._pending_bytes = [], 0
        while data:
            data = data[os.write(self._fd, data) :]

    def _write_side(self, *, durable: bool) -> None:
        """Not durable: a power failure may bring back the file before, but never half of this one."""
        epochs = {str(epoch): length for epoch, length in self._epochs.items()}
        side = {
            "visible_epoch": self._visible[0],
            "visible_bytes": self._visible[1],
            "newest_epoch": self._newest,
            "epochs": epochs,
        }
        temporary = self._side.with_name(self._side.name + ".new")
        with temporary.open("w") as file:
            json.dump(side, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._side)
        if durable:
            fd = os.open(self._side.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)


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
