"""How old records are when the evaluator is done with them, at a fixed rate."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from speed import contest
from speed.contest import Run
from speed.stages import entries
from speed.work import Work
from streampiped.records import IntArray

WARM_S: Final = 1.0  # left out: caches, the first model


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds, and cores in use."""

    p50: float
    """From the source's handing a batch on to the return of the evaluator's `process`."""
    p99: float
    due_p99: float
    """From the moment that the rate gives to each record: with the time that it waited for its batch to fill."""
    cores: float
    rows: float
    """Of a batch, on average."""
    reached: float
    """Part of the rate; below 1 the source was held back, and what was due waited ever longer."""


def measure(name: str, work: Work, seconds: float, run: Run = contest.run) -> tuple[Latency, float]:
    """`work.rate` for so long; and what it reached (`work.Reached`). UnequalError unless every record has come once."""
    with tempfile.TemporaryDirectory(prefix="streampipe-") as directory:
        log = Path(directory) / "log"
        records = int(work.rate * (WARM_S + seconds))
        ran = run(name, replace(work, records=records, log=str(log)))
        found = entries(log)
        complete(name, found, records)
        return judge(found, work.rate, ran.cpu / ran.seconds), ran.figure


def complete(name: str, found: IntArray, records: int) -> None:
    """What `stages.Watched` wrote down has every position once, in their order; or UnequalError.

    >>> complete("x", np.array([[0, 2, 0, 0], [2, 3, 0, 0]]), 5)
    >>> complete("x", np.array([[0, 2, 0, 0], [3, 2, 0, 0]]), 5)
    Traceback (most recent call last):
        ...
    speed.contest.UnequalError: x: 4 of 5 records came to the evaluator, or not in their order
    """
    first, rows = found[:, 0], found[:, 1]
    ends = np.cumsum(rows)
    if ends[-1:].tolist() != [records] or (first != ends - rows).any():
        raise contest.UnequalError(
            f"{name}: {rows.sum()} of {records} records came to the evaluator, or not in their order"
        )


def judge(found: IntArray, rate: float, cores: float) -> Latency:
    """Of what `stages.Watched` wrote down.

    >>> ms = 1_000_000
    >>> log = np.array([[n, 1, n * ms, n * ms + ms // 2] for n in range(3_000)])
    >>> judge(log, 1_000.0, 0.5)
    Latency(p50=0.5, p99=0.5, due_p99=0.5, cores=0.5, rows=1.0, reached=1.0)
    """
    found = found[found[:, 0] >= WARM_S * rate]
    first, rows, emitted, done = found.T
    wide = float(rows.mean())
    seconds = float(emitted[-1] - emitted[0]) / 1e9
    reached = min(1.0, float(first[-1] - first[0]) / rate / seconds)
    ages = np.repeat(done - emitted, rows) / 1e6
    # a record is due at start + number / rate; nothing goes out before it is due, so the start is where that is tight
    start = (emitted - (first + rows) / rate * 1e9).min()
    numbers = np.concatenate([np.arange(f, f + r) for f, r in zip(first.tolist(), rows.tolist(), strict=True)])
    due = (np.repeat(done, rows) - start - (numbers + 1) / rate * 1e9) / 1e6
    p50, p99 = np.quantile(ages, (0.5, 0.99)).tolist()
    return Latency(p50, p99, round(float(np.quantile(due, 0.99)), 6), cores, wide, reached)


def start_of(name: str, work: Work, run: Run = contest.run) -> float:
    """Seconds from a contestant's start to the first batch that the evaluator is done with."""
    with tempfile.TemporaryDirectory(prefix="streampipe-") as directory:
        log = Path(directory) / "log"
        ran = run(name, replace(work, records=work.batch, log=str(log)))
        found = entries(log)
        complete(name, found, work.batch)
        return float(found[0, 3] - ran.began_ns) / 1e9
