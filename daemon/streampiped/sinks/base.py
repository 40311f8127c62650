"""The contract of a sink connector: what `stages/consumer.py` asks of the place where rows end.

Rows written since the last `prepare` belong to the epoch that the next `prepare` names: its number is not known before.
Order of calls: `rollback`, then any sequence of `write`, `prepare` and `commit`; `close` is not guaranteed. Every
method but `write` is idempotent; `commit` and `rollback` are cumulative. `prepare` may come from a helper thread, never
at the same time as another call (`sinks/queued.py` sees to that).

Two kinds of failure: StorageError when the disk refuses (full, read-only, an I/O error), which is worth another try,
and StateError when what is there cannot be gone on with (damage, another program's file). After either, what the sink
holds of the unprepared rows is unknown: it refuses everything until the next `rollback`, so that a later success can
never hide a hole. That `rollback` recovers wholly once the disk has room again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from itertools import repeat
from typing import Any, Final

from streampiped.errors import StateError, StorageError, StreampipeError
from streampiped.records import Batch

RESERVED: Final = ("id", "source", "position", "epoch")  # what a sink adds to the columns of a batch


class Sink(ABC):
    """One outer place for rows."""

    @abstractmethod
    def write(self, batch: Batch) -> None:
        """Take the rows of a batch; they may become durable at any time and must stay invisible."""

    @abstractmethod
    def prepare(self, epoch: int) -> None:
        """When this returns, every row written so far survives a power failure as part of `epoch`."""

    @abstractmethod
    def commit(self, epoch: int) -> None:
        """Show the rows of every prepared epoch <= `epoch`. Quick."""

    @abstractmethod
    def rollback(self, epoch: int | None) -> None:
        """Show exactly the rows of epochs <= `epoch` (None: no rows), and forget all others; or raise StateError and
        change nothing, when rows or marks of that epoch were there and are gone. A place that never saw `epoch` (a new
        file) goes on from what it has and emits `sink_incomplete`."""

    @abstractmethod
    def summary(self) -> Mapping[str, Any]:
        """For the operator, msgpack-able."""

    @abstractmethod
    def double(self) -> Sink:
        """Another sink, open and ready for `write`, that does the same work and reaches nothing outside. Called in a
        fork: it may not touch what this one has open (a database closed here would delete the log of the process that
        is writing it), and must keep this one alive until the fork is gone."""

    def close(self) -> None:
        """Let go of files; what is not prepared is dropped."""
        return


class Refusal:
    """What a sink says from a failed call on until its next `rollback`."""

    def __init__(self, path: object) -> None:
        self._path = path
        self._failure: StreampipeError | None = None

    @property
    def failure(self) -> StreampipeError | None:
        """Of the last failed call, since `clear`."""
        return self._failure

    def clear(self) -> None:
        self._failure = None

    def check(self) -> None:
        """Raise what the failed call raised, of the same kind."""
        if self._failure is not None:
            raise type(self._failure)(f"{self._failure}; the rows since the last epoch must be written again")

    def storage(self, reason: object) -> StorageError:
        """The disk refuses. To be raised."""
        self._failure = StorageError(f"{self._path}: {reason}")
        return self._failure

    def state(self, reason: object) -> StateError:
        """What is there cannot be used. To be raised."""
        self._failure = StateError(f"{self._path}: {reason}")
        return self._failure


def unreachable(epoch: int, oldest: int | None, newest: int | None) -> StateError:
    """The sink once went further than `epoch` and cannot show its rows; it has those of `oldest` to `newest`."""
    has = "it has no epoch left" if oldest is None else f"it can go to epochs {oldest} to {newest}"
    return StateError(
        f"cannot go back to exactly the rows of epoch {epoch}: they or their mark were removed since; {has}. Restore "
        "one of those (`streampiped restore --from`), or move the file away: a new one begins without the older rows"
    )


def outer_names(names: Iterable[str], taken: Iterable[str] = ()) -> dict[str, str]:
    """Column name -> name in the outer place, where case does not count and some names are the sink's own.

    >>> outer_names(["x", "X", "epoch"])
    {'x': 'x', 'X': 'X_2', 'epoch': 'epoch_2'}
    """
    used = {name.lower() for name in (*RESERVED, *taken)}
    result: dict[str, str] = {}
    for name in names:
        outer, number = name, 1
        while outer.lower() in used:
            number += 1
            outer = f"{name}_{number}"
        used.add(outer.lower())
        result[name] = outer
    return result


def sources_of(batch: Batch) -> Iterable[str | None]:
    """The source of every row, as the spans tell it; None for a batch without spans."""
    if len(batch.spans) == 1:
        return repeat(batch.spans[0].source, batch.rows)
    if not batch.spans:
        return repeat(None, batch.rows)
    return [span.source for span in batch.spans for _ in range(span.count)]


def positions_of(batch: Batch) -> Iterable[int | None]:
    """The source position of every row; None for a batch without spans."""
    return batch.positions().tolist() if batch.spans else repeat(None, batch.rows)
