"""The consumer's SQLite sink, beside the loop around `executemany` that somebody would write instead."""

from __future__ import annotations

import sqlite3
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Final

import numpy as np

from bench.page import Cell
from speed.bench import Bench, median, spread
from speed.contest import UnequalError
from speed.peer_fused import commit
from speed.work import Work, given, stage
from streampiped.records import Batch
from streampiped.sinks.sqlite import CHECKPOINT_PAGES, PAGE_BYTES
from streampiped.stages.base import SinkStage

EPOCH_ROWS: Final = 150_000
"""What the pipeline writes in a second, which is an epoch."""
RECORDS, RECORDS_QUICK = 3 * EPOCH_ROWS, EPOCH_ROWS
ROUNDS, ROUNDS_QUICK = 7, 3
RATE: Final = 0.9
FILE: Final = "records.sqlite"  # the sink's default
SAME: Final = 1e-6  # of sums over all rows, added up in another order
OURS, ALONE = "**the consumer**", "SQLite alone"
Epochs = list[list[Batch]]


@dataclass(frozen=True, slots=True)
class Took:
    """Seconds of one way to write all rows."""

    wall: float
    cpu: float


def sink(bench: Bench) -> None:
    """Both ways in turn over the same arrays, and a target for the ratio."""
    epochs = _epochs(RECORDS_QUICK if bench.quick else RECORDS)
    records = sum(batch.rows for epoch in epochs for batch in epoch)
    found: dict[str, list[Took]] = {ALONE: [], OURS: []}
    for turn in range(ROUNDS_QUICK if bench.quick else ROUNDS):
        for name in (ALONE, OURS) if turn % 2 else (OURS, ALONE):
            found[name].append(_timed(WAYS[name], epochs))
    rows: list[list[Cell]] = []
    for name, took in found.items():
        wall, cpu = ([getattr(each, what) / records * 1e9 for each in took] for what in ("wall", "cpu"))
        bench.keep("sink", name.strip("*"), records=records, wall_ns=wall, cpu_ns=cpu)
        rows.append([name, 1e9 / median(wall), median(wall), spread(wall), median(cpu), spread(cpu)])
    ratio = median(alone.wall / ours.wall for alone, ours in zip(found[ALONE], found[OURS], strict=True))
    bench.page.add("### The sink beside SQLite alone", SINK.format(records=records, every=EPOCH_ROWS))
    titles = ["", "records/s", "wall ns/record", "from, to", "CPU ns/record", "from, to"]
    bench.page.add_table(titles, rows)
    bench.page.add(f"The sink writes {ratio:.2f} times as many records/s as SQLite alone, the median of the turns.")
    bench.least("the SQLite sink's rate by that of SQLite alone", ratio, RATE, ".2f")


def _epochs(records: int) -> Epochs:
    """Batches in memory of their own; each list is an epoch of at least `EPOCH_ROWS`, the last one may be smaller."""
    epochs: Epochs = [[]]
    for batch in given(stage("generator", Work(records))):
        if sum(each.rows for each in epochs[-1]) >= EPOCH_ROWS:
            epochs.append([])
        epochs[-1].append(batch.copy())
    return epochs


def _timed(way: Callable[[Path, Epochs], None], epochs: Epochs) -> Took:
    with tempfile.TemporaryDirectory(prefix="streampipe-") as directory:
        cpu, wall = time.process_time(), time.perf_counter()
        way(Path(directory), epochs)
        took = Took(time.perf_counter() - wall, time.process_time() - cpu)
        _check(Path(directory) / FILE, epochs)
        return took


def _check(file: Path, epochs: Epochs) -> None:
    """All rows are there, or the figures say nothing."""
    batches = [batch for epoch in epochs for batch in epoch]
    names = ("position", *batches[0].schema.names)
    parts = [(batch.positions(), *batch.columns().values()) for batch in batches]
    wanted = [float(np.concatenate(column).sum()) for column in zip(*parts, strict=True)]
    with closing(sqlite3.connect(file)) as db:
        found = db.execute(f"SELECT {', '.join(f'total({name})' for name in names)} FROM records").fetchone()
    if not np.allclose(found, wanted, rtol=SAME, atol=SAME):
        raise UnequalError(f"not the same rows: {found}, wanted {wanted}")


def consumer(directory: Path, epochs: Epochs) -> None:
    """`FILE`, as the pipeline writes it."""
    made = stage("consumer", Work(0, sink="sqlite"), directory)
    assert isinstance(made, SinkStage)
    for number, epoch in enumerate(epochs, 1):
        for batch in epoch:
            made.process(batch)
        commit([made], number)
    made.close()


def alone(directory: Path, epochs: Epochs) -> None:
    """`FILE`: the same rows in the same columns, as large transactions, as durable when each has ended; no marks
    of epochs, and no view that hides what is not committed."""
    columns = epochs[0][0].schema.names
    with closing(sqlite3.connect(directory / FILE, isolation_level=None)) as db:
        db.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        typed = ", ".join(f"{name} REAL" for name in columns)
        db.execute(f"CREATE TABLE records (id INTEGER PRIMARY KEY, source TEXT, position INTEGER, {typed})")
        insert = f"INSERT INTO records (source, position, {', '.join(columns)}) VALUES (?, ?{', ?' * len(columns)})"
        for epoch in epochs:
            db.execute("BEGIN")
            for batch in epoch:
                values = (column.tolist() for column in (batch.positions(), *batch.columns().values()))
                db.executemany(insert, zip(repeat(batch.spans[0].source, batch.rows), *values, strict=True))
            db.execute("COMMIT")


WAYS: Final[dict[str, Callable[[Path, Epochs], None]]] = {OURS: consumer, ALONE: alone}

SINK: Final = """{records:,} records in batches of 8,192 that stand ready in memory, in transactions of at least
{every:,}, each on the disk before the next begins. *The consumer* is the stage with `type = "sqlite"`, an epoch for
each transaction, in one thread. *SQLite alone* is a loop around Python's `executemany`: the same rows and columns from
the same arrays, made into Python's numbers by `tolist`, in WAL with the sink's page size and checkpoints and
`synchronous = FULL`. In turn."""
