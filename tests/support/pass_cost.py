"""What a stage costs that only passes batches on: microseconds on the CPU per frame, for several sizes of a batch.

PYTHONPATH=daemon:ctl:tests .venv/bin/python -m support.pass_cost --rows 1 64 1024 8192 --runs 3

A source that gives the same batch of 16 columns again and again, three stages that pass it on, and one that takes it.
CPU time by the scheduler's count, of the stages in the middle; sizes in turn, the median of the runs.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from pathlib import Path
from typing import Any, Final

from streampiped.records import Batch, Span
from streampiped.stages.base import SourceStage, Stage, StageOptions, State
from support.daemon import Daemon, running
from support.wide_stages import WideOptions, columns_at

MIDDLE: Final = ("first", "second", "third")
HEAD: Final = """
[checkpoint]
interval = "1s"
[log_extractor]
enabled = false
[service_monitor]
enabled = false
[stages.again]
class = "support.pass_cost:Again"
batch_max = {rows}
max_rate = "{rate}"
"""
ONE: Final = '[stages.{name}]\nclass = "support.pass_cost:{klass}"\ninput = "{above}"\n'


class Again(SourceStage):
    """The same numbers under ever new positions: a source that costs next to nothing."""

    Options = WideOptions

    def __init__(self, options: WideOptions, context: Any) -> None:
        self._batch = Batch.build(columns_at(0, options.batch_max))
        self._name = context.name
        self._next = 0

    def read(self, now: float) -> Batch:
        batch, start = self._batch, self._next
        self._next += batch.rows
        spans = (Span(self._name, start, batch.rows),)
        return Batch(batch.schema, batch.rows, batch.floats, batch.ints, {}, sequence=start // batch.rows, spans=spans)

    def snapshot(self) -> State:
        return {"next": self._next}

    def restore(self, state: State | None) -> None:
        self._next = state["next"] if state else 0


class Pass(Stage):
    """Hands on what it gets."""

    def __init__(self, options: StageOptions, context: Any) -> None: ...

    def process(self, batch: Batch) -> Batch:
        return batch


def pipeline(rows: int, rate: str = "0/s") -> str:
    """The stages in a row; `rate` 0: as fast as they go."""
    names = ("again", *MIDDLE, "last")
    stages = (ONE.format(name=name, klass="Pass", above=above) for above, name in itertools.pairwise(names))
    return HEAD.format(rows=rows, rate=rate) + "".join(stages)


def cpu_ns(pid: int) -> int:
    """On a CPU, all threads."""
    return sum(int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir())


def look(daemon: Daemon) -> dict[str, tuple[int, int]]:
    """Per stage in the middle: records so far, nanoseconds on the CPU."""
    return {
        each["name"]: (each["records_in"], cpu_ns(each["pid"]))
        for each in daemon.status()["processes"]
        if each["name"] in MIDDLE
    }


def measure(rows: int, seconds: float, rate: str) -> tuple[float, float]:
    """Microseconds per frame of a stage in the middle, and frames a second."""
    with running(pipeline(rows, rate)) as daemon:
        daemon.wait_progress(10 * rows)
        time.sleep(0.5)  # the windows have grown
        before, began = look(daemon), time.monotonic()
        time.sleep(seconds)
        after, ended = look(daemon), time.monotonic()
    frames = sum(after[name][0] - before[name][0] for name in MIDDLE) / rows
    cpu = sum(after[name][1] - before[name][1] for name in MIDDLE)
    return cpu / frames / 1e3, frames / len(MIDDLE) / (ended - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 64, 1024, 8192])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rate", default="0/s", help="records a second of the source at most; 0: no limit")
    wanted = parser.parse_args()
    found: dict[int, list[tuple[float, float]]] = {rows: [] for rows in wanted.rows}
    for _ in range(wanted.runs):
        for rows, results in found.items():
            results.append(measure(rows, wanted.seconds, wanted.rate))
    for rows, results in found.items():
        cost, rate = (statistics.median(values) for values in zip(*results, strict=True))
        print(f"{rows:6} rows: {cost:6.1f} us a frame, {rate:8.0f} frames/s")


if __name__ == "__main__":
    main()
