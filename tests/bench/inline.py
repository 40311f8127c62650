"""The learning stages in one process, as the daemon would run them: the same figures to the last bit, in a second.

    PYTHONPATH=daemon:tests python -m bench.inline trump chick diabetes friedman_gra --batch 1024
    PYTHONPATH=daemon:tests python -m bench.inline development --set trainer.holdout=0.0 --json

Names are those of bench/streams.py, or a group's: reported, development, unseen. Normalizer, trainer and evaluator are
constructed as the daemon does it (options, seeds, names) and called with the batches that the generator would cut; the
consumer is left out, which without options passes everything on. The daemon's own run differs in when it snapshots,
which changes nothing, and tests/system/test_bench_inline.py holds both together.
"""

from __future__ import annotations

import argparse
import importlib
import json
import time
import tomllib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np

from bench.generators import Floats
from bench.score import Figures, figures
from bench.streams import ALL, GROUPS, Stream, load
from bench.tap import SERVED
from streampiped.records import Batch, Span
from streampiped.stages.base import Stage, StageContext

LEARNING: Final = {"normalizer": "Normalizer", "trainer": "Trainer", "evaluator": "Evaluator"}

Settings = Mapping[str, Mapping[str, Any]]
"""Stage -> options."""


@dataclass(slots=True)
class Run:
    """One stream, once through."""

    stream: Stream
    results: dict[str, Any]
    """Of the report."""
    cpu: dict[str, float]
    """Seconds in each stage."""
    served: dict[str, Floats]
    """What was served with each row: those columns of SERVED that there were."""
    sections: dict[str, Any] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Rows per second on one CPU, all stages together."""
        return self.stream.rows / max(sum(self.cpu.values()), 1e-9)

    def figures(self) -> Figures:
        """Of what was served."""
        return figures(self.served, self.stream.labels, warm_up=self.stream.warm_up)


def stages(
    target: str, settings: Settings | None = None, seed: int = 0, names: Sequence[str] = tuple(LEARNING)
) -> dict[str, Stage]:
    """Normalizer, trainer and evaluator at the beginning of a stream, or those of them that are named."""
    made: dict[str, Stage] = {}
    for name in names:
        kind = LEARNING[name]
        klass = getattr(importlib.import_module(f"streampiped.stages.{name}"), kind)
        options = klass.Options.model_validate({"target": target, **(settings or {}).get(name, {})})
        context = StageContext(name=name, seed=zlib.crc32(f"{seed}:{name}".encode()), pipeline_seed=seed)
        made[name] = klass(options, context)
        made[name].restore(None)
    return made


def batches(stream: Stream, size: int) -> Iterator[Batch]:
    """As the generator cuts a source that always has more."""
    for start in range(0, stream.rows, size):
        part = slice(start, min(stream.rows, start + size))
        yield Batch.build(
            {name: values[part] for name, values in stream.columns.items()},
            sequence=start // size,
            spans=(Span("generator", start, part.stop - start),),
        )


def run(stream: Stream, *, batch: int = 1024, settings: Settings | None = None, seed: int = 0) -> Run:
    """The stream through the stages, and what the evaluator reports."""
    chain = stages(stream.target, settings, seed)
    served, cpu = serve(chain, stream, batch)
    sections = _sections(chain)
    results = _report(chain["evaluator"], sections)
    return Run(stream, results, cpu, served, sections)


def serve(chain: Mapping[str, Stage], stream: Stream, batch: int) -> tuple[dict[str, Floats], dict[str, float]]:
    """The stream through these stages: what was served, and the seconds in each of them."""
    cpu = dict.fromkeys(chain, 0.0)
    served: dict[str, list[Floats]] = {name: [] for name in SERVED}
    for made in batches(stream, batch):
        passed: Batch | None = made
        for name, stage in chain.items():
            began = time.process_time()
            passed = stage.process(passed) if passed is not None else None
            cpu[name] += time.process_time() - began
        if passed is None:
            raise ValueError("a whole batch was dropped: the rows served cannot be told from the others")
        for name in SERVED:
            if name in passed:
                served[name].append(np.array(passed[name], dtype=np.float64))
    return {name: np.concatenate(parts) for name, parts in served.items() if parts}, cpu


def _sections(chain: Mapping[str, Stage]) -> dict[str, Any]:
    """What the stages add to the report, by the section's name."""
    found = {}
    for stage in chain.values():
        try:
            section = stage.query("section", {})
        except KeyError:
            continue
        found[section["name"]] = section
    return found


def _report(evaluator: Stage, sections: Mapping[str, Any]) -> dict[str, Any]:
    given = {name: section["results"] for name, section in sections.items()}
    results: dict[str, Any] = evaluator.query("report", {"sections": given} if given else {})["results"]
    return results


def settings_of(texts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """`stage.option=VALUE` (VALUE as in TOML, else a text) as settings.

    >>> settings_of(["trainer.holdout=0.0", "trainer.members=['sgd']"])
    {'trainer': {'holdout': 0.0, 'members': ['sgd']}}
    """
    found: dict[str, dict[str, Any]] = {}
    for text in texts:
        place, _, value = text.partition("=")
        stage, _, option = place.partition(".")
        try:
            found.setdefault(stage, {})[option] = tomllib.loads(f"v = {value}")["v"]
        except tomllib.TOMLDecodeError:
            found.setdefault(stage, {})[option] = value
    return found


def names_of(wanted: Sequence[str]) -> list[str]:
    """Streams, with groups taken apart."""
    names = [name for each in wanted for name in GROUPS.get(each, {each: None})]
    if unknown := [name for name in names if name not in ALL]:
        raise SystemExit(f"no stream {unknown}; there are {', '.join(ALL)} and the groups {', '.join(GROUPS)}")
    return names


def best_guess(results: Mapping[str, Any]) -> float | None:
    """The least squared error of the report's baselines over all rows."""
    known = [each["total"]["mse"] for each in results["baselines"].values() if each["total"]["mse"] is not None]
    return min(known, default=None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("streams", nargs="+")
    parser.add_argument("--batch", type=int, default=1024, help="rows in a batch")
    parser.add_argument("--seed", type=int, default=0, help="the pipeline's")
    parser.add_argument("--rows", type=int, help="only so many of each stream")
    parser.add_argument("--set", action="append", default=[], metavar="STAGE.OPTION=VALUE")
    parser.add_argument("--json", action="store_true", help="one line each, with the whole report")
    wanted = parser.parse_args()
    if not wanted.json:
        head = ("MSE", "R2", "R2 after", "best guess", "ratio", "rows", "rows/s CPU")
        print(f"{'':<16}" + "".join(f"{title:>12}" for title in head))
    for name in names_of(wanted.streams):
        stream = load(name) if wanted.rows is None else load(name).head(wanted.rows)
        done = run(stream, batch=wanted.batch, settings=settings_of(wanted.set), seed=wanted.seed)
        found, guess = done.figures(), best_guess(done.results)
        if wanted.json:
            line = {
                "stream": name,
                **asdict(found),
                "cpu": done.cpu,
                "rate": done.rate,
                "results": done.results,
                "sections": done.sections,
            }
            print(json.dumps(line), flush=True)
            continue
        cells = (found.mse, found.r2, found.r2_after, guess, found.ratio(guess))
        shown = "".join(f"{'-' if cell is None else format(cell, '.4g'):>12}" for cell in cells)
        print(f"{name:<16}{shown}{stream.rows:>12}{done.rate:>12,.0f}", flush=True)


if __name__ == "__main__":
    main()
