"""The contract of a sink connector: what `stages/consumer.py` asks of the place where rows end.

Rows written since the last `prepare` belong to the epoch that the next `prepare` names: its number is not known before.
Order of calls: `rollback`, then any sequence of `write`, `prepare` and `commit`; `close` is not guaranteed. Every
method but `write` is idempotent; `commit` and `rollback` are cumulative. `prepare` may come from a helper thread, never
at the same time as another call.

After a failed call (StateError) what the sink holds of the unprepared rows is unknown: it refuses everything until the
next `rollback`, so that a later success can never hide a hole.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from itertools import repeat
from typing import Any, Final

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
        """Show exactly the rows of epochs <= `epoch` (None: no rows), and forget all others."""

    @abstractmethod
    def summary(self) -> Mapping[str, Any]:
        """For the operator, msgpack-able."""

    def close(self) -> None:
        """Let go of files; what is not prepared is dropped."""
        return


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
