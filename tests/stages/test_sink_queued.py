"""Rows that come while `prepare` runs: they wait, bounded in memory and in time, and none changes its epoch."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import pytest

from streampiped.errors import StorageError
from streampiped.records import Batch
from streampiped.sinks import queued as queued_module
from streampiped.sinks.base import Sink
from streampiped.sinks.queued import CATCH_UP, QueuedSink
from support.contract import garble
from support.streams import numbered

DEADLINE_S = 10.0


class SlowSink(Sink):
    """Notes what it is asked; `prepare` lasts until `go`."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.preparing, self.go = threading.Event(), threading.Event()
        self.fails = False

    def write(self, batch: Batch) -> None:
        assert not self.preparing.is_set(), "used by two at a time"
        self.calls.append(int(batch["x"][0]))

    def prepare(self, epoch: int) -> None:
        self.preparing.set()
        assert self.go.wait(DEADLINE_S)
        self.go.clear()
        self.preparing.clear()
        if self.fails:
            raise StorageError("full")
        self.calls.append(f"prepare {epoch}")

    def commit(self, epoch: int) -> None:
        self.calls.append(f"commit {epoch}")

    def rollback(self, epoch: int | None) -> None:
        self.calls.append(f"rollback {epoch}")

    def summary(self) -> Mapping[str, Any]:
        return {}

    def double(self) -> Sink:
        return SlowSink()


class Preparing:
    """`prepare(epoch)` in a thread, as the shell does it, inside of `with`."""

    def __init__(self, queued: QueuedSink, sink: SlowSink, epoch: int) -> None:
        self.sink = sink
        self.thread = threading.Thread(target=self._prepare, args=(queued, epoch))

    def _prepare(self, queued: QueuedSink, epoch: int) -> None:
        try:
            queued.prepare(epoch)
        except StorageError:
            self.sink.calls.append("failed")

    def __enter__(self) -> None:
        self.thread.start()
        assert self.sink.preparing.wait(DEADLINE_S)

    def __exit__(self, *error: object) -> None:
        self.sink.go.set()
        self.thread.join(DEADLINE_S)
        assert not self.thread.is_alive()


def made() -> tuple[QueuedSink, SlowSink]:
    sink = SlowSink()
    return QueuedSink(sink, lambda: None), sink


def test_rows_behind_the_barrier_wait() -> None:
    """What comes after `seal` is written after `prepare`, in its order, a few batches with each that comes."""
    queued, sink = made()
    queued.write(numbered(0, 1))
    queued.seal(1)
    queued.write(numbered(1, 1))
    with Preparing(queued, sink, 1):
        for number in range(2, 6):
            queued.write(numbered(number, 1))
        assert sink.calls == [0]
    queued.commit(1)
    assert sink.calls == [0, "prepare 1", "commit 1"]
    for number in range(6, 12):
        before = len(sink.calls)
        queued.write(numbered(number, 1))
        assert len(sink.calls) - before <= CATCH_UP
    assert sink.calls[3:] == list(range(1, 12))


def test_rows_in_the_queue_belong_to_the_next_epoch() -> None:
    """A barrier that comes while rows of the epoch before it are still queued takes them along, and no other."""
    queued, sink = made()
    queued.seal(1)
    with Preparing(queued, sink, 1):
        for number in range(4):
            queued.write(numbered(number, 1))
    queued.seal(2)
    queued.write(numbered(4, 1))
    with Preparing(queued, sink, 2):
        assert sink.calls == ["prepare 1", 0, 1, 2, 3]
    assert sink.calls[-1] == "prepare 2"
    queued.write(numbered(5, 1))
    assert sink.calls[-2:] == [4, 5]


def test_an_aborted_epoch_gives_its_rows_to_the_next() -> None:
    """An epoch that was sealed while another one is prepared, and then a third: each has its rows."""
    queued, sink = made()
    queued.seal(1)
    queued.write(numbered(0, 1))
    queued.seal(2)
    queued.write(numbered(1, 1))
    sink.go.set()
    queued.prepare(1)
    sink.go.set()
    queued.prepare(2)
    assert sink.calls == ["prepare 1", 0, "prepare 2"]


def test_without_seal_everything_so_far_is_prepared() -> None:
    """A host that holds `process` back need not seal."""
    queued, sink = made()
    queued.write(numbered(0, 1))
    sink.go.set()
    queued.prepare(1)
    queued.write(numbered(1, 1))
    assert sink.calls == [0, "prepare 1", 1]


def test_queued_rows_are_copies() -> None:
    """The memory of a batch is written again after the call; what is queued does not change."""
    queued, sink = made()
    queued.seal(1)
    batch = numbered(7, 1)
    queued.write(batch)
    garble(batch)
    sink.go.set()
    queued.prepare(1)
    queued.write(numbered(8, 1))
    assert sink.calls == ["prepare 1", 7, 8]


@pytest.mark.parametrize(("bound", "value"), [("QUEUE_ROWS", 10), ("QUEUE_BYTES", 100)])
def test_a_full_queue_waits_and_is_no_hang(bound: str, value: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With QUEUE_ROWS or QUEUE_BYTES waiting, the next batch waits for `prepare`, and the watcher is told so."""
    monkeypatch.setattr(queued_module, bound, value)
    monkeypatch.setattr(queued_module, "TICK_S", 0.001)
    sink = SlowSink()
    ticks = 0

    def tick() -> None:
        nonlocal ticks
        ticks += 1
        if ticks == 3:
            sink.go.set()

    queued = QueuedSink(sink, tick)
    queued.seal(1)
    queued.write(numbered(0, 10))
    with Preparing(queued, sink, 1):
        queued.write(numbered(10, 1))
    assert ticks >= 3
    assert sink.calls == ["prepare 1", 0, 10]


def test_a_prepare_that_fails_frees_the_queue() -> None:
    """After a failure rows go to the sink again, which refuses them, and a rollback forgets the queued ones."""
    queued, sink = made()
    sink.fails = True
    queued.seal(1)
    with Preparing(queued, sink, 1):
        queued.write(numbered(0, 1))
    queued.rollback(None)
    queued.write(numbered(9, 1))
    assert sink.calls == ["failed", "rollback None", 9]


def test_a_rollback_forgets_what_was_sealed() -> None:
    """Sealed and never prepared, because the generation ended: nothing waits for it."""
    queued, sink = made()
    queued.seal(1)
    queued.write(numbered(0, 1))
    queued.rollback(None)
    queued.commit(0)
    queued.write(numbered(1, 1))
    assert sink.calls == ["rollback None", "commit 0", 1]
