"""What a batch meets before a stage does: rows that are skipped, batches that are suspected."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from streampiped.host import Host
from streampiped.records import Batch
from streampiped.stages.base import Stage


class Gate:
    """Of one stage. Says nothing and costs one look while there is neither a suspect nor a row to skip."""

    def __init__(self, process: Host, stage: Stage) -> None:
        self._process = process
        self._stage = stage
        self.looks = False
        """Whether batches must be shown to `admit`."""

    def reset(self, suspects: Sequence[Sequence[Any]]) -> None:
        """A generation begins. StorageError when the list of what is skipped cannot be read."""

    def admit(self, batch: Batch, attempt: int) -> tuple[Batch | None, int | None]:
        """What of the batch the stage gets (None: it must not be processed), and the number of its rows that were
        found guilty (None: it was not tried)."""
        return batch, None

    def letters(self, change: Mapping[str, Any]) -> Iterator[tuple[int, Batch]]:
        """The records that a replay gives back to the stage, as (attempt, batch)."""
        yield from ()
