"""An epoch in flight: from the request to the last sink's answer. Data of the coordinator (epochs.py)."""

from __future__ import annotations

from dataclasses import dataclass, field

from streampiped.core.epoch_commands import Change, EpochTimes, Part


@dataclass(slots=True)
class Flight:
    """Times are on the clock of `now`."""

    epoch: int
    began: float
    hold: bool
    finished: bool
    changes: tuple[Change, ...]
    parts: dict[str, Part] = field(default_factory=dict)
    confirmed: set[str] = field(default_factory=set)
    durable_at: float = 0.0
    written_at: float = 0.0

    def times(self, now: float) -> EpochTimes:
        parts = self.parts.values()
        return EpochTimes(
            align=max(0.0, max(part.aligned for part in parts) - self.began),
            snapshot=max(part.snapshot for part in parts),
            fsync=max(part.durable for part in parts),
            manifest=self.written_at - self.durable_at,
            sink_commit=now - self.written_at,
            total=now - self.began,
        )
