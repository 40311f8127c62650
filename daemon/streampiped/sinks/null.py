"""The sink that keeps nothing: for pipelines whose product is the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from streampiped.records import Batch
from streampiped.sinks.base import Sink
from streampiped.stages.base import StageOptions


class NullOptions(StageOptions):
    """`type = "none"`."""

    type: Literal["none"] = "none"


class NullSink(Sink):
    """Every row is gone at once, so there is nothing to show or take back."""

    def write(self, batch: Batch) -> None:
        return

    def prepare(self, epoch: int) -> None:
        return

    def commit(self, epoch: int) -> None:
        return

    def rollback(self, epoch: int | None) -> None:
        return

    def summary(self) -> Mapping[str, Any]:
        return {"sink": "none"}

    def double(self) -> Sink:
        return self
