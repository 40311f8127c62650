"""What exactly-once costs: the default chain with epochs of a second against the same chain without epochs.

PYTHONPATH=tests .venv/bin/python -m support.cost --pairs 12

Runs in turn, so that a machine whose speed drifts does not decide. Per run the CPU time of all stages and the records
that the last stage has had within the same seconds, from the black boxes and /proc.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from support.daemon import Daemon, chain, running

SINKS = {"none": '[stages.consumer.sink]\ntype = "none"\n', "sqlite": ""}
HEAD = '[checkpoint]\ninterval = "{interval}"\n[log_extractor]\nenabled = false\n[service_monitor]\nenabled = false\n'
ON, OFF = "1s", "1h"


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def look(daemon: Daemon) -> tuple[float, int, float]:
    """Now: the clock, records at the last stage, CPU seconds of everybody."""
    status = daemon.status()
    cpu = sum(cpu_seconds(p["pid"]) for p in status["processes"]) + cpu_seconds(status["pid"])
    return time.monotonic(), status["processes"][-1]["records_in"], cpu


def measure(interval: str, sink: str, seconds: float) -> tuple[float, float]:
    """Records per second, and microseconds on the CPU per record."""
    text = HEAD.format(interval=interval) + chain().replace(
        'class = "consumer"\ninput = "normalizer"\n', f'class = "consumer"\ninput = "normalizer"\n{SINKS[sink]}'
    )
    with running(text) as daemon:
        daemon.wait_progress(200_000)
        began = look(daemon)
        time.sleep(seconds)
        ended = look(daemon)
    records = ended[1] - began[1]
    return records / (ended[0] - began[0]), (ended[2] - began[2]) / records * 1e6


def interval_of(ratios: Sequence[float]) -> str:
    """Mean and 95 % interval of the mean, for people."""
    mean = statistics.fmean(ratios)
    half = 1.96 * statistics.stdev(ratios) / len(ratios) ** 0.5
    return f"{(mean - 1) * 100:+.1f} % (95 %: {(mean - half - 1) * 100:+.1f} to {(mean + half - 1) * 100:+.1f})"


def pairs(count: int, sink: str, seconds: float) -> Iterator[tuple[float, float]]:
    """Throughput and CPU per record, with epochs over without; who goes first changes with every pair."""
    for number in range(count):
        order = (ON, OFF) if number % 2 else (OFF, ON)
        found = {interval: measure(interval, sink, seconds) for interval in order}
        yield found[ON][0] / found[OFF][0], found[ON][1] / found[OFF][1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--sink", choices=SINKS, default="none")
    wanted = parser.parse_args()
    ratios = list(pairs(wanted.pairs, wanted.sink, wanted.seconds))
    print(f"sink {wanted.sink}, {wanted.pairs} pairs of {wanted.seconds:g} s, epochs of {ON} against none:")
    print(f"  throughput      {interval_of([throughput for throughput, _ in ratios])}")
    print(f"  CPU per record  {interval_of([cpu for _, cpu in ratios])}")


if __name__ == "__main__":
    main()
