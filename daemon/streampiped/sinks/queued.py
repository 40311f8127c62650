"""A sink that takes rows while its `prepare` runs: they wait in memory until it is done.

`prepare` waits for the disk (an fsync of an epoch's rows, now and then copying the write-ahead log back), tens to
hundreds of milliseconds. Rows that went into the place meanwhile would have to be told from those before the barrier,
and would wait for the same locks and the same dirty pages. So they are copied and queued, and written afterwards, a
few batches with each one that comes: the data path never waits for longer than that. While they are queued each call
takes as long as writing would have: else a pipeline at full speed would fill the queue in a moment, and then wait for
the whole of `prepare`. A full queue waits all the same, for memory is bounded.

Who may touch the sink inside: the data path while no sealed epoch is open, the thread in `prepare` while one is. A host
that never calls `seal` holds `process` back itself, and nothing is ever queued.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from streampiped.records import Batch
from streampiped.sinks.base import Sink

QUEUE_ROWS: Final = 1 << 17  # 18 MB with 17 columns, and 0.4 s at the 300 k rows/s that the SQLite sink takes
QUEUE_BYTES: Final = 64 << 20  # the same bound for rows with long texts
CATCH_UP: Final = 2  # queued batches written with each that comes: the queue ends, and no call takes long
PACE_MAX_S: Final = 0.05  # of one call: a batch that was slow once must not slow down all the others
TICK_S: Final = 1.0  # a wait for a slow disk is no hang


class QueuedSink(Sink):
    """`sink`, with `seal`. `tick` says 'not hung' while a full queue waits."""

    def __init__(self, sink: Sink, tick: Callable[[], None]) -> None:
        self._sink = sink
        self._tick = tick
        self._queue: deque[Batch | int] = deque()  # batches, and the number of an epoch behind its last one
        self._rows = self._bytes = 0  # in the queue, written by both sides under `_turn`
        self._row_s = 0.0  # what writing a row takes, of the last batch that was written at once
        self._turn = threading.Condition()
        self._open: set[int] = set()  # epochs sealed and not prepared yet

    def seal(self, epoch: int) -> None:
        """Everything written so far belongs to `epoch`, what comes belongs to a later one. On the data path, at once;
        `prepare(epoch)` follows."""
        self._queue.append(epoch)
        self._open.add(epoch)

    def write(self, batch: Batch) -> None:
        if self._open and (self._rows >= QUEUE_ROWS or self._bytes >= QUEUE_BYTES):
            self._await_prepared()
        if not self._open and not self._queue:
            began = time.perf_counter()
            self._sink.write(batch)
            self._row_s = (time.perf_counter() - began) / max(batch.rows, 1)
            return
        self._enqueue(batch.copy())  # the memory of a batch is another one's after `process`
        if self._open:
            with self._turn:
                self._turn.wait_for(lambda: not self._open, min(self._row_s * batch.rows, PACE_MAX_S))
            return
        for _ in range(CATCH_UP):
            if self._queue and not self._open:
                self._write_next()

    def prepare(self, epoch: int) -> None:
        try:
            while self._queue and (self._queue[0] != epoch or isinstance(self._queue[0], Batch)):
                self._write_next()
            if self._queue:
                self._queue.popleft()
            self._sink.prepare(epoch)
        finally:
            with self._turn:
                self._open.discard(epoch)
                self._turn.notify_all()

    def commit(self, epoch: int) -> None:
        self._await_prepared()
        self._sink.commit(epoch)

    def rollback(self, epoch: int | None) -> None:
        """No `prepare` is running, nor will one come for an epoch that was sealed."""
        self._open.clear()
        self._queue.clear()
        self._rows = self._bytes = 0
        self._sink.rollback(epoch)

    def summary(self) -> Mapping[str, Any]:
        return self._sink.summary()

    def double(self) -> QueuedSink:
        """The locks here may have been taken by a thread that the fork has not: the double has its own."""
        return QueuedSink(self._sink.double(), self._tick)

    def close(self) -> None:
        self._sink.close()

    def _await_prepared(self) -> None:
        with self._turn:
            while not self._turn.wait_for(lambda: not self._open, TICK_S):
                self._tick()

    def _enqueue(self, batch: Batch) -> None:
        with self._turn:
            self._rows += batch.rows
            self._bytes += batch.nbytes
        self._queue.append(batch)

    def _write_next(self) -> None:
        item = self._queue.popleft()
        if isinstance(item, Batch):  # else the mark of an epoch that was aborted before it came to `prepare`
            with self._turn:
                self._rows -= item.rows
                self._bytes -= item.nbytes
            self._sink.write(item)
