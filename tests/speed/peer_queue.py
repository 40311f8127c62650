"""One process per stage on multiprocessing.Queue, which pickles the arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from speed import five
from speed.clock import Clock
from speed.work import Reached, Work, put_together, taken_apart
from streampiped.records import Batch

TITLE = "multiprocessing.Queue"


class QueueLink:
    """A bounded queue."""

    def __init__(self, context: Any, address: str) -> None:
        self._queue = context.Queue(five.DEPTH)

    def writer(self) -> Callable[[Batch | None], None]:
        return lambda batch: self._queue.put(None if batch is None else taken_apart(batch))

    def reader(self) -> Callable[[], Batch | None]:
        def get() -> Batch | None:
            found = self._queue.get(timeout=five.DEADLINE_S)
            return None if found is None else put_together(*found)

        return get


def run(work: Work, clock: Clock) -> Reached:
    return five.run(work, clock, QueueLink)
