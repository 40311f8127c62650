"""Many schedules on all cores, or the story of one.

PYTHONPATH=daemon:tests python -m sim.run --schedules 100000 --seed 1
PYTHONPATH=daemon:tests python -m sim.run --seed 4711 --story
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Final

from sim.schedule import Schedule, compare, run, undisturbed

CHUNK: Final = 500  # schedules at a time for one core: some seconds, so that progress is seen
FAILURES_MAX: Final = 10  # then it is time to read a story
PROGRESS_S: Final = 10.0


@dataclass
class Tally:
    """What some schedules came to."""

    schedules: int = 0
    steps: int = 0
    faults: int = 0
    records: int = 0
    changed: int = 0
    topologies: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[int, str]] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        self.schedules += other.schedules
        self.steps += other.steps
        self.faults += other.faults
        self.records += other.records
        self.changed += other.changed
        self.topologies += other.topologies
        self.failures += other.failures


def attempt(seeds: range) -> Tally:
    """Run these; whatever is raised is a failure of its seed."""
    tally = Tally()
    for seed in seeds:
        tally.schedules += 1
        try:
            outcome = run(seed)
        except Exception as error:  # noqa: BLE001  a crash of the decisions is what we look for
            tally.failures.append((seed, f"{type(error).__name__}: {error}"))
            continue
        tally.steps += outcome.steps
        tally.faults += outcome.faults
        tally.records += len(outcome.what["sink"])
        tally.changed += outcome.changed
        tally.topologies[outcome.topology] += 1
    return tally


def replay_command(seed: int) -> str:
    return f"PYTHONPATH=daemon:tests {os.path.basename(sys.executable)} -m sim.run --seed {seed} --story"


def chunks(first: int, count: int) -> Iterator[range]:
    for start in range(first, first + count, CHUNK):
        yield range(start, min(start + CHUNK, first + count))


def run_many(first: int, count: int, jobs: int) -> Tally:
    """On `jobs` cores, with a line now and then."""
    total, began, told = Tally(), time.monotonic(), time.monotonic()
    with ProcessPoolExecutor(jobs) as pool:
        for done in as_completed([pool.submit(attempt, seeds) for seeds in chunks(first, count)]):
            tally = done.result()
            total.add(tally)
            for seed, reason in tally.failures:
                print(f"seed {seed}: {reason}\n    {replay_command(seed)}", flush=True)
            if time.monotonic() - told >= PROGRESS_S:
                told = time.monotonic()
                print(f"{total.schedules} of {count} schedules, {len(total.failures)} failed", flush=True)
            if len(total.failures) >= FAILURES_MAX:
                pool.shutdown(cancel_futures=True)
                break
    seconds = time.monotonic() - began
    print(
        f"{total.schedules} schedules from seed {first} in {seconds:.0f} s: {len(total.failures)} failed; "
        f"{total.steps} steps, {total.faults} faults and commands, {total.records} records in sinks, "
        f"{total.changed} streams changed by operators, {dict(total.topologies)}"
    )
    return total


def tell(seed: int) -> bool:
    """Print the story of one seed; whether the law held."""
    schedule = Schedule(seed, told=True)
    try:
        outcome = schedule.run()
        compare(outcome, undisturbed(schedule.topology, schedule.total))
    except Exception as error:  # noqa: BLE001  as above
        verdict = f"{type(error).__name__}: {error}"
    else:
        verdict = ""
    print(*schedule.story, sep="\n")
    print(verdict or f"the law holds: {schedule.topology}, {schedule.total} records, {schedule.world.steps} steps")
    return not verdict


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m sim.run", description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1, help="the first one")
    parser.add_argument("--schedules", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="cores to use")
    parser.add_argument("--story", action="store_true", help="everything that happens in one schedule")
    options = parser.parse_args()
    if options.story:
        return 0 if tell(options.seed) else 1
    return 1 if run_many(options.seed, options.schedules, options.jobs).failures else 0


if __name__ == "__main__":
    sys.exit(main())
