"""What exactly-once costs: the default chain with epochs of a second against the same chain without epochs.

PYTHONPATH=tests .venv/bin/python -m support.cost --pairs 12
PYTHONPATH=tests .venv/bin/python -m support.cost --pairs 12 --interval 50ms   # where an epoch stands out of the noise

Runs in turn, so that a machine whose speed drifts does not decide. Per run the CPU time of all stages and the records
that the last stage has had within the same seconds, from the black boxes and /proc.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from support.daemon import Daemon, chain, running

SINKS = {"none": '[stages.consumer.sink]\ntype = "none"\n', "sqlite": ""}
HEAD = '[checkpoint]\ninterval = "{interval}"\n[log_extractor]\nenabled = false\n[service_monitor]\nenabled = false\n'
OFF = "1h"


class Run(NamedTuple):
    """Records per second, microseconds on the CPU per record, and records per epoch (infinite without epochs)."""

    rate: float
    cpu: float
    per_epoch: float


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def look(daemon: Daemon) -> tuple[float, int, float, int]:
    """Now: the clock, records at the last stage, CPU seconds of everybody, the epoch."""
    status = daemon.status()
    cpu = sum(cpu_seconds(p["pid"]) for p in status["processes"]) + cpu_seconds(status["pid"])
    return time.monotonic(), status["processes"][-1]["records_in"], cpu, status["epoch"] or 0


def measure(interval: str, sink: str, seconds: float) -> Run:
    """The chain for so many seconds, once it flows."""
    with running(HEAD.format(interval=interval) + chain(consumer=SINKS[sink])) as daemon:
        daemon.wait_progress(200_000)
        began = look(daemon)
        time.sleep(seconds)
        ended = look(daemon)
    records = ended[1] - began[1]
    epochs = ended[3] - began[3]
    cpu = (ended[2] - began[2]) / records * 1e6
    return Run(records / (ended[0] - began[0]), cpu, records / epochs if epochs else float("inf"))


def mean_of(values: Sequence[float]) -> tuple[float, float, float]:
    """The mean and its 95 % interval."""
    mean = statistics.fmean(values)
    half = 1.96 * statistics.stdev(values) / len(values) ** 0.5
    return mean, mean - half, mean + half


def percent(ratios: Sequence[float]) -> str:
    mean, low, high = ((ratio - 1) * 100 for ratio in mean_of(ratios))
    return f"{mean:+.1f} % (95 %: {low:+.1f} to {high:+.1f})"


def pairs(count: int, interval: str, sink: str, seconds: float) -> Iterator[tuple[Run, Run]]:
    """Runs with epochs and without; who goes first changes with every pair."""
    for number in range(count):
        order = (interval, OFF) if number % 2 else (OFF, interval)
        found = {each: measure(each, sink, seconds) for each in order}
        yield found[interval], found[OFF]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--interval", default="1s", help="between two epochs")
    parser.add_argument("--sink", choices=SINKS, default="none")
    wanted = parser.parse_args()
    found = list(pairs(wanted.pairs, wanted.interval, wanted.sink, wanted.seconds))
    each = mean_of([(on.cpu - off.cpu) * on.per_epoch / 1e3 for on, off in found])
    print(f"sink {wanted.sink}, {wanted.pairs} pairs of {wanted.seconds:g} s, an epoch every {wanted.interval}, none:")
    print(f"  throughput      {percent([on.rate / off.rate for on, off in found])}")
    print(f"  CPU per record  {percent([on.cpu / off.cpu for on, off in found])}")
    print("  CPU per epoch   {:.1f} ms (95 %: {:.1f} to {:.1f})".format(*each))


if __name__ == "__main__":
    main()
