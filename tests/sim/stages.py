"""Tiny stages. A row is a text that grows by `|stage:hash` at every stage, and the hash is over all rows that the stage
has seen, in their order: one look at the sink's rows tells what every stage before it has seen, and when.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import msgpack
import numpy as np

from sim.disk import Disk, Fuse
from sim.world import ViolationError
from streampiped.errors import StorageError
from streampiped.records import Batch, Block, Schema, Span

SCHEMA: Final = Schema(ints=("mark",), texts=("row",))
NOTHING: Final = np.zeros(0)
BATCH_MAX: Final = 3
REPLAY: Final = "replay"
"""The source of rows that a change gives to a stage."""


def make_batch(rows: list[str | None], spans: tuple[Span, ...], sequence: int, marks: Block | None = None) -> Batch:
    """Without the checks of `Batch.build`: thousands of them are made in a second. `marks` are those of a batch that is
    passed on."""
    count = len(rows)
    if marks is None:
        marks = Block.build(("mark",), count, ([mark_of_row(row) for row in rows if row is not None],), np.int64)
    return Batch(SCHEMA, count, Block((), count, NOTHING), marks, {"row": rows}, sequence=sequence, spans=spans)


def mark_of_row(row: str) -> int:
    """What stands beside a row, in the memory that stages share, on its whole way."""
    return zlib.crc32(row.partition("|")[0].encode())


def mix(seen: int, row: str) -> int:
    return (seen * 1000003 ^ zlib.crc32(row.encode())) & 0xFFFFFFFF


def changed_by(number: int) -> str:
    """What a stage takes in at a change of this number."""
    return f"change/{number}"


Place: TypeAlias = tuple[str, str, int]
"""Of a row before a stage: its way (`Span.via`), its source, its position there."""

Verdict: TypeAlias = tuple[Place, int]
"""A row that a stage does not survive, and in which attempt: 0 in the stream, n in its n-th replay."""


def deaths(number: int) -> int:
    """In so many attempts the replayed row of this number kills the stage that it is given to."""
    return (0, 0, 1, 0, 2)[zlib.crc32(b"%d" % number) % 5]


@dataclass(frozen=True)
class Node:
    """One stage of a topology. `total`: of a source, its records; `hands_on`: the marks of its rows stay where they
    lie, and are not written anew into memory of its own."""

    name: str
    role: str
    inputs: tuple[str, ...] = ()
    total: int = 0
    hands_on: bool = True


class Stage:
    """Passes rows on, each with the hash of everything so far."""

    def __init__(self, node: Node, disk: Disk) -> None:
        self.node = node
        self.seen = 0
        self.rows = 0
        self.batches = 0

    def process(self, batch: Batch, fuse: Fuse) -> Batch:
        made: list[str | None] = []
        for row, mark in zip(batch.texts["row"], batch["mark"].tolist(), strict=True):
            assert row is not None
            if mark != mark_of_row(row):
                raise ViolationError(f"{self.node.name} reads {mark} beside {row}: somebody has written there")
            self.seen = mix(self.seen, row)
            made.append(f"{row}|{self.node.name}:{self.seen:x}")
        self.rows += batch.rows
        self.batches += 1
        marks = batch.ints if self.node.hands_on else None
        return make_batch(made, batch.spans, batch.sequence, marks)

    def change(self, kind: str, params: Mapping[str, Any]) -> None:
        """Its hash tells of it, and when it was."""
        self.seen = mix(self.seen, changed_by(params["number"]))

    def snapshot(self) -> bytes:
        data: bytes = msgpack.packb([self.node.name, self.seen, self.rows, self.batches])
        return data

    def restore(self, data: bytes | None) -> None:
        state: list[Any] = msgpack.unpackb(data) if data is not None else [self.node.name, 0, 0, 0]
        assert state[0] == self.node.name, state
        self.seen, self.rows, self.batches = state[1:]

    def position(self) -> int | None:
        return None


class Source(Stage):
    """Gives `name/0`, `name/1`, ... in batches whose size follows from the position."""

    def read(self) -> Batch | None:
        """None: at its end."""
        name, start = self.node.name, self.rows
        count = min(1 + zlib.crc32(f"{name}{start}".encode()) % BATCH_MAX, self.node.total - start)
        if not count:
            return None
        rows: list[str | None] = [f"{name}/{start + n}" for n in range(count)]
        self.rows += count
        self.batches += 1
        return make_batch(rows, (Span(name, start, count),), self.batches)

    def position(self) -> int | None:
        return self.rows


class Sink(Stage):
    """Keeps its rows in one file per epoch, and in `mark` the newest epoch whose rows count: rows of later ones are
    prepared and invisible. Passes everything on."""

    def __init__(self, node: Node, disk: Disk) -> None:
        super().__init__(node, disk)
        self._disk = disk
        self._open: list[str] = []
        self._sealed: dict[int, list[str]] = {}
        self._broken = True  # until the first rollback

    def process(self, batch: Batch, fuse: Fuse) -> Batch:
        assert not self._broken
        try:  # a database writes before anything is durable
            self._disk.write(fuse, f"{self.node.name}/spill", b"")
        except OSError as error:
            self._broken = True
            raise StorageError(str(error)) from error
        result = super().process(batch, fuse)
        self._open += (row for row in result.texts["row"] if row is not None)
        return result

    def seal(self, epoch: int) -> None:
        self._sealed[epoch] = self._open
        self._open = []

    def prepare(self, epoch: int, fuse: Fuse) -> Iterator[None]:
        """In steps, beside whatever else happens."""
        path = f"{self.node.name}/{epoch:08d}"
        rows = self._sealed.pop(epoch)
        try:
            yield from save(self._disk, fuse, path, msgpack.packb(rows))
        except OSError as error:
            self._broken = True
            raise StorageError(str(error)) from error

    def commit(self, epoch: int, fuse: Fuse) -> None:
        self._set_mark(epoch, fuse)

    def rollback(self, epoch: int | None, fuse: Fuse) -> None:
        self._open = []
        self._sealed.clear()
        directory = self.node.name
        try:
            for name in self._disk.list(directory):
                number = name.removesuffix(".tmp")
                if number.isdigit() and (epoch is None or int(number) > epoch or name != number):
                    self._disk.unlink(fuse, f"{directory}/{name}")
            self._disk.sync(fuse, directory)  # before anything later is made visible
        except OSError as error:
            raise StorageError(str(error)) from error
        if mark_of(self._disk, directory) != (epoch or 0):
            self._set_mark(epoch or 0, fuse)
        self._broken = False

    def _set_mark(self, epoch: int, fuse: Fuse) -> None:
        try:
            for _ in save(self._disk, fuse, f"{self.node.name}/mark", b"%d" % epoch):
                pass
        except OSError as error:
            self._broken = True
            raise StorageError(str(error)) from error


def save(disk: Disk, fuse: Fuse, path: str, data: bytes) -> Iterator[None]:
    """The whole file or nothing, in steps; OSError when the disk refuses one of them."""
    temporary = path + ".tmp"
    disk.unlink(fuse, temporary)  # never into an old one: a second fsync of it might say what is not so
    disk.write(fuse, temporary, data)
    yield
    disk.fsync(fuse, temporary)
    yield
    disk.rename(fuse, temporary, path)
    yield
    disk.sync(fuse, path.split("/")[0])


def mark_of(disk: Disk, sink: str) -> int:
    """The newest epoch that the outer world sees; 0: none."""
    return int(disk.read(f"{sink}/mark") or 0)


def visible(disk: Disk, sink: str) -> list[str]:
    """What the outer world sees, in order. Raises when a file that counts is damaged."""
    mark = mark_of(disk, sink)
    found: list[str] = []
    for name in disk.list(sink):
        if name.isdigit() and int(name) <= mark:
            found += msgpack.unpackb(disk.read(f"{sink}/{name}") or b"")
    return found


def make_stage(node: Node, disk: Disk) -> Stage:
    """One that is no sink."""
    return Source(node, disk) if node.role == "source" else Stage(node, disk)


def chain(total: int) -> tuple[Node, ...]:
    """Two look at what the sink hands on, and it lies in the memory of `middle`."""
    return (
        Node("source", "source", total=total),
        Node("middle", "transform", ("source",), hands_on=False),
        Node("sink", "sink", ("middle",)),
        Node("last", "transform", ("sink",)),
        Node("other", "transform", ("sink",)),
    )


def diamond(total: int) -> tuple[Node, ...]:
    """Three ways from the source to the sink."""
    return (
        Node("source", "source", total=total // 2),
        Node("left", "transform", ("source",)),
        Node("right", "transform", ("source",)),
        Node("sink", "sink", ("left", "source", "right")),
    )


def join(total: int) -> tuple[Node, ...]:
    """Two sources, of which one ends early."""
    return (
        Node("long", "source", total=total),
        Node("short", "source", total=total // 3),
        Node("join", "transform", ("long", "short")),
        Node("sink", "sink", ("join",)),
    )


TOPOLOGIES: Final = {"chain": chain, "diamond": diamond, "join": join}
