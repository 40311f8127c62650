"""One stream through the real daemon: five processes, default stages, a fresh state, and `streampipectl report`."""

from __future__ import annotations

import csv
import json
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench import tap
from bench.generators import Floats
from bench.inline import Settings
from bench.score import Figures, figures
from bench.streams import Stream
from support.cost import cpu_seconds
from support.daemon import Daemon, running, wait_for

FINISHED_S: Final = 900.0
NONE_S: Final = 60.0
LOOK_S: Final = 0.2
"""Between two looks at a daemon that works: each costs the supervisor a millisecond."""
CSV_ROWS_MAX: Final = 5_000
"""Up to here a stream goes through a CSV file; above, through bench/table.py, since parsing text is not learning."""

HEAD: Final = """
[pipeline]
seed = {seed}
[log_extractor]
enabled = false
[service_monitor]
enabled = false
"""
CSV: Final = """
[stages.generator]
class = "generator"
batch_max = {batch}
[stages.generator.source]
type = "csv"
path = {path}
"""
TABLE: Final = """
[stages.generator]
class = "bench.table:Table"
batch_max = {batch}
path = {path}
"""
TAP: Final = '[stages.tap]\nclass = "bench.tap:Tap"\ninput = "evaluator"\n'
INPUTS: Final = {"normalizer": "generator", "consumer": "normalizer", "trainer": "consumer", "evaluator": "trainer"}
WITH_TARGET: Final = ("normalizer", "trainer", "evaluator")


@dataclass(slots=True)
class Ran:
    """One stream through the daemon."""

    stream: Stream
    report: dict[str, Any]
    """What `streampipectl report --json` printed."""
    exit_code: int
    """Of that command."""
    seconds: float
    """From 'every stage is ready' to 'finished', which includes the last epoch."""
    cpu: dict[str, float]
    """Seconds on the CPU of every stage's process, its start included."""
    deaths: int
    """Of stages; 0, or something is wrong."""
    served: dict[str, Floats]
    """Row by row, from the tap; empty without one."""

    @property
    def rate(self) -> float:
        return self.stream.rows / self.seconds

    @property
    def results(self) -> dict[str, Any]:
        found: dict[str, Any] = self.report["results"]
        return found

    def figures(self) -> Figures:
        """Of what was served; needs the tap."""
        return figures(self.served, self.stream.labels, warm_up=self.stream.warm_up)


def config(
    stream: Stream, source: str, *, batch: int = 1024, seed: int = 0, settings: Settings | None = None, tapped: bool
) -> str:
    """The default chain for this stream; `source` is a file that `write` made."""
    form = CSV if source.endswith(".csv") else TABLE
    text = HEAD.format(seed=seed) + form.format(batch=batch, path=json.dumps(source))
    for name, before in INPUTS.items():
        options = {"target": stream.target} if name in WITH_TARGET else {}
        options |= (settings or {}).get(name, {})
        lines = [f"{key} = {_toml(value)}" for key, value in options.items()]
        text += "\n".join([f'[stages.{name}]\nclass = "{name}"\ninput = "{before}"', *lines, ""])
    return text + (TAP if tapped else "")


def write(stream: Stream, directory: Path) -> str:
    """The stream as a file for the source: small ones as CSV, every number so that it comes back exactly."""
    name = stream.name.replace("/", "-")
    if stream.rows <= CSV_ROWS_MAX:
        path = directory / f"{name}.csv"
        with path.open("w", newline="") as file:
            out = csv.writer(file)
            out.writerow(stream.columns)
            out.writerows(zip(*(map(repr, values.tolist()) for values in stream.columns.values()), strict=True))
    else:
        path = directory / f"{name}.npz"
        np.savez(path, allow_pickle=False, order=np.array(list(stream.columns)), **stream.columns)
    return str(path)


def run(
    stream: Stream, *, batch: int = 1024, seed: int = 0, settings: Settings | None = None, tapped: bool = True
) -> Ran:
    """The stream from beginning to end in a daemon of its own. `tapped`: with one more process, that writes down what
    was served; without it for the speed."""
    with tempfile.TemporaryDirectory(prefix="streampipe-bench-") as kept:
        source = write(stream, Path(kept))
        text = config(stream, source, batch=batch, seed=seed, settings=settings, tapped=tapped)
        with running(text) as daemon:
            wait_for(lambda: daemon.status()["state"] == "finished", f"{stream.name} ends", FINISHED_S, LOOK_S)
            cpu = {name: cpu_seconds(pid) for name, pid in daemon.pids().items()}
            done = daemon.ctl("report", "--json", timeout=NONE_S)
            if not done.stdout.strip().startswith("{"):
                raise RuntimeError(f"streampipectl report: {done.stderr or done.stdout}")
            served = tap.served(daemon.state / "stages" / "tap") if tapped else {}
            return Ran(
                stream,
                json.loads(done.stdout),
                done.returncode,
                _seconds(daemon),
                cpu,
                len(daemon.events("stage_died")),
                served,
            )


def _seconds(daemon: Daemon) -> float:
    """Between two events of the log."""
    ready, finished = (daemon.wait_event(name)["ts"] for name in ("pipeline_ready", "pipeline_finished"))
    return float(finished - ready)


def _toml(value: Any) -> str:
    """A value as TOML, which JSON is for texts, numbers, booleans and lists; a table inline."""
    if isinstance(value, Mapping):
        text = ", ".join(f"{json.dumps(key)} = {_toml(each)}" for key, each in value.items())
        text = f"{{ {text} }}"
    else:
        text = json.dumps(value)
    assert tomllib.loads(f"v = {text}")["v"] == value
    return text
