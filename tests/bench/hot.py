"""Where the CPU goes on the hot path: nanoseconds per record of each stage's `process`, by rows in a batch.

    PYTHONPATH=daemon:tests python -m bench.hot
    PYTHONPATH=daemon:tests python -m bench.hot --rows 1 8192 --columns 16 --set trainer.members='["ridge"]'
    PYTHONPATH=daemon:tests python -m bench.hot --profile trainer --rows 1

Synthetic records of float64 through normalizer, consumer (without a sink), trainer and evaluator in one process, as the
daemon constructs them, without links and without snapshots. The trainer has the guesses and `sgd` alone unless told
otherwise. Of each cell the median of several stretches, each measured as CPU time of this process; with `--against` the
same of another checkout, in turn with this one, and the ratio of both.
"""

from __future__ import annotations

import argparse
import cProfile
import importlib
import json
import os
import pstats
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bench.inline import Settings, settings_of
from streampiped.records import Batch
from streampiped.runtime.linux import keep_freed_memory
from streampiped.sources.synthetic import SyntheticOptions, SyntheticSource
from streampiped.stages.base import Stage, StageContext

STAGES: Final = {
    "normalizer": "Normalizer",
    "consumer": "Consumer",
    "trainer": "Trainer",
    "evaluator": "Evaluator",
}
DEFAULTS: Final[Settings] = {"consumer": {"sink": {"type": "none"}}, "trainer": {"members": ["sgd"]}}
ROWS: Final = (1, 64, 1024, 8192)
STRETCH_S: Final = 0.25
"""Of CPU time of all stages together: what one stretch measures."""
WARM_UP: Final = 20_000
"""Records before the first stretch: blocks have their full length then, and every gate is warm."""
SEED: Final = 7

Cells = dict[str, dict[str, float]]
"""Rows in a batch -> stage -> nanoseconds per record."""


def chain(settings: Settings, directory: Path) -> dict[str, Stage]:
    """The stages at the beginning of a stream."""
    made: dict[str, Stage] = {}
    for name, kind in STAGES.items():
        klass = getattr(importlib.import_module(f"streampiped.stages.{name}"), kind)
        options = klass.Options.model_validate({**DEFAULTS.get(name, {}), **settings.get(name, {})})
        seed = zlib.crc32(f"{SEED}:{name}".encode())
        made[name] = klass(options, StageContext(name=name, seed=seed, pipeline_seed=SEED, directory=directory))
        made[name].restore(None)
    return made


class Stream:
    """Batches of `rows` records without end."""

    def __init__(self, columns: int) -> None:
        self._source = SyntheticSource(SyntheticOptions(features=columns, seed=SEED), "generator", SEED)
        self._sequence = 0

    def batch(self, rows: int) -> Batch:
        made = self._source.read(rows)
        made.sequence, self._sequence = self._sequence, self._sequence + 1
        return made


def stretch(stages: Mapping[str, Stage], stream: Stream, rows: int, seconds: float) -> dict[str, float]:
    """Nanoseconds per record of each stage, over so many seconds of CPU."""
    spent, done = dict.fromkeys(stages, 0), 0
    while sum(spent.values()) < seconds * 1e9:
        some: list[Batch | None] = [stream.batch(rows) for _ in range(max(1, 256 // rows))]
        for name, stage in stages.items():  # stage by stage, as in processes of their own: caches stay warm
            began = time.process_time_ns()
            some = [stage.process(batch) for batch in some if batch is not None]
            spent[name] += time.process_time_ns() - began
        done += rows * max(1, 256 // rows)
    return {name: each / done for name, each in spent.items()}


def measured(settings: Settings, columns: int, rows: int, stretches: int) -> dict[str, float]:
    """The median of several stretches, of one stream."""
    with tempfile.TemporaryDirectory(prefix="streampipe-hot-") as kept:
        stages, stream = chain(settings, Path(kept)), Stream(columns)
        for size, records in ((1024, WARM_UP), (rows, 2 * rows)):
            for _ in range(-(-records // size)):
                batch: Batch | None = stream.batch(size)
                for stage in stages.values():
                    batch = stage.process(batch) if batch is not None else None
        found = [stretch(stages, stream, rows, STRETCH_S) for _ in range(stretches)]
        for stage in stages.values():
            stage.close()
    return {name: statistics.median(each[name] for each in found) for name in stages}


def profiled(settings: Settings, columns: int, rows: int, name: str) -> None:
    """Print where one stage's time goes."""
    with tempfile.TemporaryDirectory(prefix="streampipe-hot-") as kept:
        stages, stream = chain(settings, Path(kept)), Stream(columns)
        profile = cProfile.Profile()
        until = time.process_time() + 4.0
        while time.process_time() < until:
            batch: Batch | None = stream.batch(rows)
            for each, stage in stages.items():
                if each == name:
                    profile.enable()
                batch = stage.process(batch) if batch is not None else None
                profile.disable()
        pstats.Stats(profile).sort_stats("tottime").print_stats(40)


def elsewhere(checkout: Path, arguments: Sequence[str]) -> Cells:
    """What another checkout takes, by this script."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(checkout / "daemon"), str(_tests())))}
    line = [sys.executable, "-m", "bench.hot", "--json", *arguments]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=True)
    found: Cells = json.loads(done.stdout)
    return found


def table(cells: Cells, head: str) -> str:
    """One line for each size of batch, the last column the sum."""
    lines = [f"{head:<22}" + "".join(f"{name:>12}" for name in (*STAGES, "sum"))]
    for rows, found in cells.items():
        shown = [*(found[name] for name in STAGES), sum(found.values())]
        lines.append(f"{rows + ' rows':<22}" + "".join(f"{value:>12,.{_digits(value)}f}" for value in shown))
    return "\n".join(lines)


def _digits(value: float) -> int:
    return 0 if value >= 100 else 1 if value >= 10 else 2


def _tests() -> Path:
    return Path(__file__).resolve().parent.parent


def _median(runs: Sequence[Cells]) -> Cells:
    return {
        rows: {name: statistics.median(run[rows][name] for run in runs) for name in found}
        for rows, found in runs[0].items()
    }


def _arguments(parser: argparse.ArgumentParser) -> Any:
    parser.add_argument("--rows", type=int, nargs="+", default=list(ROWS), help="rows in a batch")
    parser.add_argument("--columns", type=int, default=16, help="features")
    parser.add_argument("--stretches", type=int, default=5)
    parser.add_argument("--set", action="append", default=[], metavar="STAGE.OPTION=VALUE")
    parser.add_argument("--profile", choices=STAGES, help="of this stage, instead of the table")
    parser.add_argument("--against", type=Path, help="another checkout")
    parser.add_argument("--against-set", action="append", default=[], metavar="STAGE.OPTION=VALUE", help="there")
    parser.add_argument("--turns", type=int, default=3, help="with --against: how often each is run")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    wanted = _arguments(parser)
    settings = settings_of(wanted.set)
    keep_freed_memory()  # as the launcher does: without it a block of 152 columns costs a sixth more
    if wanted.profile:
        profiled(settings, wanted.columns, wanted.rows[0], wanted.profile)
        return

    def here() -> Cells:
        return {str(rows): measured(settings, wanted.columns, rows, wanted.stretches) for rows in wanted.rows}

    if wanted.against is None:
        cells = here()
        print(json.dumps(cells) if wanted.json else table(cells, "ns per record"))
        return
    common = ["--columns", str(wanted.columns), "--stretches", str(wanted.stretches), "--rows", *map(str, wanted.rows)]
    common += [part for text in wanted.against_set or wanted.set for part in ("--set", text)]
    ours, theirs = [], []
    for _ in range(wanted.turns):
        theirs.append(elsewhere(wanted.against, common))
        ours.append(here())
    mine, other = _median(ours), _median(theirs)
    ratios = {rows: {name: value / other[rows][name] for name, value in found.items()} for rows, found in mine.items()}
    print(table(other, "ns per record, before"))
    print(table(mine, "ns per record, now"))
    for rows, found in ratios.items():
        whole = sum(mine[rows].values()) / sum(other[rows].values())
        cells_shown = "".join(f"{ratio:>12.2f}" for ratio in (*found.values(), whole))
        print(f"{rows + ' rows, ratio':<22}{cells_shown}")


if __name__ == "__main__":
    main()
