"""What happened to the model, by row of the stream: who was champion from where to where, and where it drifted."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, Final, Literal

KEPT: Final = 256  # of each kind; the counts go on


class History:
    """Append-only; the oldest entries are let go.

    >>> history = History()
    >>> history.crown(0, "mean", "first")
    >>> history.crown(64, "ridge", "better")
    >>> [(term["member"], term["from"], term["to"]) for term in history.timeline()]
    [('mean', 0, 64), ('ridge', 64, None)]
    """

    __slots__ = ("_crowned", "_drifts", "crown_count", "drift_count")

    def __init__(self) -> None:
        self._crowned: deque[list[Any]] = deque(maxlen=KEPT)
        self._drifts: deque[list[Any]] = deque(maxlen=KEPT)
        self.crown_count = 0
        self.drift_count = 0

    def crown(self, row: int, member: str, reason: str) -> None:
        """From this row on `member` is served."""
        self._crowned.append([row, member, reason])
        self.crown_count += 1

    def drift(self, row: int, kind: Literal["drift", "label_shift"], member: str) -> None:
        """At this row the errors of `member`, which is served, have grown, or the label has another level."""
        self._drifts.append([row, kind, member])
        self.drift_count += 1

    def shift(self, row: int, member: str) -> None:
        """At this row a feature is scaled anew; no drift."""
        self._drifts.append([row, "shift", member])

    def timeline(self) -> list[dict[str, Any]]:
        """Who was served from which row to which (None: still is), oldest first."""
        ends = [*(row for row, *_ in list(self._crowned)[1:]), None]
        return [
            {"from": row, "to": end, "member": member, "reason": reason}
            for (row, member, reason), end in zip(self._crowned, ends, strict=False)  # nobody yet: no end either
        ]

    def drifts(self) -> list[dict[str, Any]]:
        return [{"row": row, "kind": kind, "member": member} for row, kind, member in self._drifts]

    def state(self) -> dict[str, Any]:
        """Portable and exact: the argument of `restore`."""
        crowned, drifts = [list(entry) for entry in self._crowned], [list(entry) for entry in self._drifts]
        counts = [self.crown_count, self.drift_count]
        return {"crowned": crowned, "drifts": drifts, "counts": counts}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._crowned = deque((list(entry) for entry in state["crowned"]), maxlen=KEPT)
        self._drifts = deque((list(entry) for entry in state["drifts"]), maxlen=KEPT)
        self.crown_count, self.drift_count = (int(count) for count in state["counts"])
