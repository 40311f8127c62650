"""Helpers for tests of sources, sinks and the stages around them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from streampiped.events import CATALOGUE
from streampiped.records import Batch, Span
from streampiped.stages.base import Ended, Idle, StageContext
from streampiped.stages.generator import Generator, GeneratorOptions
from streampiped.wire.state import pack, unpack


class Events:
    """Records what a stage emits; every event must be in the catalogue."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, event: str, /, **fields: Any) -> None:
        CATALOGUE[event].text.format_map(fields)
        self.seen.append((event, fields))

    def names(self) -> list[str]:
        return [event for event, _ in self.seen]


def generator(
    source: dict[str, Any], *, emit: Any = None, seed: int = 1, resuming: bool = False, **options: Any
) -> Generator:
    """A generator at the beginning of its source."""
    checked = GeneratorOptions.model_validate({"source": source, **options})
    context = StageContext(name="generator", seed=seed, emit=emit or Events(), resuming=resuming)
    made = Generator(checked, context)
    made.restore(None)
    return made


def drain(stage: Generator, now: float = 0.0, count: int | None = None) -> list[Batch]:
    """Batches until the stage is idle, has ended, or has given `count`."""
    batches: list[Batch] = []
    while count is None or len(batches) < count:
        got = stage.read(now)
        if isinstance(got, Batch):
            batches.append(got)
        elif isinstance(got, Ended) or got.wake_at != now:  # Idle(now): ask again at once
            break
    return batches


def idle(stage: Generator, now: float = 0.0) -> Idle:
    """What a stage says that must be idle."""
    got = stage.read(now)
    assert isinstance(got, Idle), got
    return got


def column(batches: Iterable[Batch], name: str) -> list[Any]:
    """One column over all batches."""
    return [value for batch in batches for value in list(batch[name])]


def positions(batches: Iterable[Batch]) -> list[int]:
    return [int(p) for batch in batches for p in batch.positions()]


def same(first: Batch, second: Batch) -> bool:
    """Equal bit for bit, positions and sequence included."""
    if (first.schema, first.rows, first.spans, first.sequence) != (
        second.schema,
        second.rows,
        second.spans,
        second.sequence,
    ):
        return False
    pairs = [(first[name], second[name]) for name in first.schema.names]
    return all(a == b if isinstance(a, list) else a.tobytes() == b.tobytes() for a, b in pairs)


def travelled(state: Any) -> dict[str, Any]:
    """The state as it comes back from its file."""
    return unpack(pack("test", state), "test")


def numbered(start: int, rows: int, **columns: Any) -> Batch:
    """A batch of source `s` whose column `x` is its position."""
    x = np.arange(start, start + rows, dtype=np.float64)
    return Batch.build({"x": x, **columns}, spans=(Span("s", start, rows),))


def write_lines(path: Path, *lines: str) -> None:
    """Append lines, as a program that logs does."""
    with path.open("a") as file:
        file.writelines(line + "\n" for line in lines)
