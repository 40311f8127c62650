"""What a batch meets before a stage does: rows that are skipped, batches that are suspected; and how records that were
put aside come back. docs/specs/dead_letters.md is the contract."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from streampiped.errors import StateError, StorageError
from streampiped.host import Host
from streampiped.records import Batch, Span
from streampiped.runtime import dead_letters
from streampiped.runtime.dead_letters import Record
from streampiped.skips import Skips, overlaps
from streampiped.stages.base import Stage
from streampiped.trial import Row, judge
from streampiped.wire.messages import CHUNK_BYTES, Guilty

SLEEP_PER_CPU: Final = 10.0  # a row may sleep so many times longer than it may compute: starved is not looping
ROOM_S: Final = 1.0  # of waiting for a busy supervisor, between two words to whoever watches us
REPLAY_BATCH_BYTES: Final = 4 << 20  # of texts in one batch of a replay: a thousand long records are no frame any more


class Gate:
    """Of one stage. Costs one look while there is neither a suspect nor a row to skip."""

    def __init__(self, process: Host, stage: Stage, encode: Callable[[Batch], object]) -> None:
        """`encode`: what becomes of the stage's results."""
        self._encode = encode
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
        hang = self._process.spec.hang_timeout
        verdict = judge(
            self._stage,
            batch,
            cpu_limit=limit,
            wall_limit=SLEEP_PER_CPU * limit,
            hang_limit=hang,
            encode=self._encode,
            tick=self._process.tick,
            forget_outside=self._process.channel.mute,
        )
        if not verdict.tried:
            self._process.emit("batch_not_tried", count=len(verdict.guilty))
        for row in verdict.guilty:
            self._name(row, attempt)
        return len(verdict.guilty)

    def _name(self, row: Row, attempt: int) -> None:
        """Tell the supervisor of a guilty row, whole, and wait until it has room: a channel that is full drops."""
        masked, channel = self._process.credentials.masked, self._process.channel
        place = (self._generation, row.via, row.source, row.position, attempt, row.manner)
        last = max(0, (len(row.record) - 1) // CHUNK_BYTES) * CHUNK_BYTES
        for start in range(0, last, CHUNK_BYTES):
            channel.send(Guilty(*place, "", "", row.record[start : start + CHUNK_BYTES], more=True))
            self._await_room()
        channel.send(Guilty(*place, masked(row.reason), masked(row.traceback), row.record[last:]))
        self._await_room()

    def _await_room(self) -> None:
        while self._process.channel.queued:
            self._process.tick()
            self._process.channel.flush(ROOM_S)

    def letters(self, change: Mapping[str, Any]) -> Iterator[tuple[int, Batch]]:
        """The records that a replay gives back to the stage, as (attempt, batch), by source, position and way, each by
        the way by which it had come; one batch for those that have the same columns, of at most REPLAY_BATCH_BYTES
        or one record."""
        records = dead_letters.records(self._root, change)
        for (attempt, _), group in itertools.groupby(records, key=lambda row: (row.attempt, _shape(row.values))):
            for rows in _portions(list(group)):
                yield attempt, _batch(rows)


def _batch(rows: Sequence[Record]) -> Batch:
    columns = {name: _column([row.values[name] for row in rows]) for name in rows[0].values}
    return Batch.build(columns, spans=tuple(Span(r.source, r.position, 1, r.via) for r in rows))


def _portions(rows: Sequence[Record]) -> Iterator[list[Record]]:
    """In order, each small enough for a frame."""
    portion: list[Record] = []
    room = REPLAY_BATCH_BYTES
    for row in rows:
        texts = (value for value in row.values.values() if isinstance(value, str))
        size = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
        if portion and size > room:
            yield portion
            portion, room = [], REPLAY_BATCH_BYTES
        portion.append(row)
        room -= size
    if portion:
        yield portion


def _shape(record: Mapping[str, Any]) -> tuple[tuple[str, type], ...]:
    """Names and types; a missing text is a text."""
    return tuple((name, str if value is None else type(value)) for name, value in record.items())


def _column(values: list[Any]) -> Any:
    """As `Batch.build` wants it: what was an integer column stays one."""
    if isinstance(values[0], str | None):
        return values
    return np.array(values, dtype=np.int64 if isinstance(values[0], int) else np.float64)
