"""What a batch meets before a stage does: rows that are skipped, batches that are suspected; and how records that were
put aside come back. docs/specs/dead_letters.md is the contract."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from streampiped.errors import StateError, StorageError
from streampiped.host import Host
from streampiped.records import Batch, Span
from streampiped.runtime import dead_letters
from streampiped.skips import Skips, overlaps
from streampiped.stages.base import Stage
from streampiped.trial import judge
from streampiped.wire.messages import Guilty

SLEEP_PER_CPU: Final = 10.0  # a row may sleep so many times longer than it may compute: starved is not looping


class Gate:
    """Of one stage. Costs one look while there is neither a suspect nor a row to skip."""

    def __init__(self, process: Host, stage: Stage) -> None:
        self._process = process
        self._stage = stage
        self._root = Path(process.plan.paths.state)
        self._skips = Skips({})
        self._suspects: Sequence[Sequence[Any]] = ()
        self._generation = 0
        self.looks = False
        """Whether batches must be shown to `admit`."""

    def reset(self, generation: int, suspects: Sequence[Sequence[Any]]) -> None:
        """A generation begins. StorageError when the list of what is skipped cannot be read."""
        try:
            self._skips = Skips(dead_letters.skips(self._root, self._process.spec.name))
        except StateError as error:  # no stage's fault: everybody waits until the right file is back
            raise StorageError(str(error)) from error
        self._suspects = suspects
        self._generation = generation
        self.looks = bool(suspects) or len(self._skips) > 0

    def suspects(self, batch: Batch) -> bool:
        """Whether `admit` would try this batch: nothing else may be at work in the stage then."""
        return bool(self._suspects) and overlaps(batch.spans, self._suspects)

    def admit(self, batch: Batch, attempt: int) -> tuple[Batch | None, int | None]:
        """What of the batch the stage gets (None: it must not be processed), and the number of its rows that were
        found guilty (None: it was not tried)."""
        keep = self._skips.keep(batch, attempt)
        admitted = batch if keep is None else batch.select(keep)
        if not self.suspects(batch):
            return admitted, None
        guilty = self._try(admitted, attempt)
        if guilty:
            return None, guilty
        self._suspects = ()
        self.looks = len(self._skips) > 0
        return admitted, 0

    def _try(self, batch: Batch, attempt: int) -> int:
        limit = self._process.plan.supervision.probe_timeout
        verdict = judge(
            self._stage,
            batch,
            cpu_limit=limit,
            wall_limit=SLEEP_PER_CPU * limit,
            tick=self._process.tick,
            forget_outside=self._process.channel.mute,
        )
        masked = self._process.credentials.masked
        for row in verdict.guilty:
            place = (self._generation, row.via, row.source, row.position, attempt)
            told = (row.manner, masked(row.reason), masked(row.traceback))
            self._process.channel.send(Guilty(*place, *told, row.record))
        return len(verdict.guilty)

    def letters(self, change: Mapping[str, Any]) -> Iterator[tuple[int, Batch]]:
        """The records that a replay gives back to the stage, as (attempt, batch), by source, position and way, each by
        the way by which it had come; one batch for those that have the same columns."""
        records = dead_letters.records(self._root, change)
        for (attempt, _), group in itertools.groupby(records, key=lambda row: (row.attempt, _shape(row.values))):
            rows = list(group)
            columns = {name: _column([row.values[name] for row in rows]) for name in rows[0].values}
            yield attempt, Batch.build(columns, spans=tuple(Span(r.source, r.position, 1, r.via) for r in rows))


def _shape(record: Mapping[str, Any]) -> tuple[tuple[str, type], ...]:
    """Names and types; a missing text is a text."""
    return tuple((name, str if value is None else type(value)) for name, value in record.items())


def _column(values: list[Any]) -> Any:
    """As `Batch.build` wants it: what was an integer column stays one."""
    if isinstance(values[0], str | None):
        return values
    return np.array(values, dtype=np.int64 if isinstance(values[0], int) else np.float64)
