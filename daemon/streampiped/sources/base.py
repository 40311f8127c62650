"""The contract of a source connector: a position goes in, rows come out.

A connector is plain Python: no event loop, no thread, no clock. `stages/generator.py` drives it, in this order: `seek`
(any number of times), then any sequence of `ready`, `read` and `position`; `close` at the end, which is not guaranteed.
It never waits: `ready` says what could be read at once, and what to wait for otherwise.

The law every connector keeps: `seek(position())` followed by the same reads gives the same records, bit for bit, in
this process or another one. What is given may depend on nothing but the options, the position and the outer file.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from streampiped.records import Batch
from streampiped.stages.base import State


@dataclass(frozen=True, slots=True)
class Ready:
    """What a connector could give now."""

    count: int
    """Records from the present position on, at most the limit that was asked for."""
    last: bool = False
    """No other record will ever follow these."""
    wake_at: float | None = None
    """CLOCK_MONOTONIC second at which there will be more; None: only the descriptor tells."""
    full: bool = False
    """They are a batch, though fewer than the limit: with another one it would be too large."""


class Connector(ABC):
    """One outer source of records. Positions are 0-based, consecutive, and stand in the spans of the batches."""

    @abstractmethod
    def ready(self, limit: int, now: float) -> Ready:
        """What `read(limit)` would give. `now` is CLOCK_MONOTONIC in seconds; only a replay at a speed looks at it.
        Raises SourceError when the source cannot be read."""

    @abstractmethod
    def read(self, limit: int) -> Batch | None:
        """The next records, covering at most `limit` positions, which must not be more than `ready` said. None
        when every one of them was rejected; the position has moved on all the same."""

    @abstractmethod
    def position(self) -> State:
        """Where the next `read` begins; portable, and the argument of `seek`."""

    @abstractmethod
    def seek(self, position: State | None) -> None:
        """Go to where `position` was asked for; None is the beginning. Raises SourceError when what stood there is
        no longer to be found, and says what was looked for."""

    def wake_fd(self) -> int | None:
        """A descriptor that becomes readable when `ready` may say more than it did."""
        return None

    def total(self) -> int | None:
        """Records from the first to the last when that is bounded and known; for progress only."""
        return None

    def given(self) -> int | None:
        """Records given from the beginning to the present position, when that is known; for people only."""
        return None

    def summary(self) -> Mapping[str, Any]:
        """Counts for the operator, msgpack-able."""
        return {}

    def close(self) -> None:
        """Let go of descriptors."""
        return
