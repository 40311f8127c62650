"""A sink whose rows are gone once they are told: nothing that it has shown can be taken back."""

from __future__ import annotations

from typing import Any, ClassVar

from streampiped.records import Batch
from streampiped.stages.base import SinkStage, StageOptions, State


class Teller(SinkStage):
    """Counts rows."""

    Options = StageOptions
    retractable: ClassVar[bool] = False

    def __init__(self, options: StageOptions, context: Any) -> None:
        self._rows = 0

    def process(self, batch: Batch) -> Batch:
        self._rows += batch.rows
        return batch

    def snapshot(self) -> State:
        return {"rows": self._rows}

    def restore(self, state: State | None) -> None:
        self._rows = state["rows"] if state else 0
