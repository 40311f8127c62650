"""The trainer's memory over ten million records of the synthetic source, through the default chain."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from support.daemon import Daemon, chain, rss_mib, running

RECORDS: Final = 10_000_000
MARKS: Final = (1_000_000, 2_000_000, 5_000_000, RECORDS)
GROWTH_MAX_MIB: Final = 16.0
"""From the first mark to the last: an allocator's slack, not a leak. 9 million records that each left a byte would
be 9 MiB, each left one number 72."""
LOOK_S: Final = 0.25
FINISHED_S: Final = 1_800.0
HEAD: Final = "[log_extractor]\nenabled = false\n[service_monitor]\nenabled = false\n"
SOURCE: Final = '[stages.generator.source]\ntype = "synthetic"\nrecords = {records}\ndrift_at = [{drift}]\n'


@dataclass(frozen=True, slots=True)
class Grown:
    """MiB resident in the trainer's process."""

    at: dict[int, float]
    """When so many records, or a few more, had passed the last stage."""
    rate: float
    """Records per second."""

    @property
    def growth(self) -> float:
        return max(self.at.values()) - self.at[min(self.at)]

    @property
    def passed(self) -> bool:
        return max(self.at) >= RECORDS and self.growth <= GROWTH_MAX_MIB


def measure(records: int = RECORDS) -> Grown:
    """Half-way the law changes."""
    text = HEAD + chain(SOURCE.format(records=records, drift=records // 2))
    with running(text) as daemon:
        began, found = time.monotonic(), dict[int, float]()
        for mark in (*(mark for mark in MARKS if mark < records), records):
            _wait(daemon, mark, began + FINISHED_S)
            found[mark] = rss_mib(daemon.pids()["trainer"])
        return Grown(found, records / (time.monotonic() - began))


def _wait(daemon: Daemon, records: int, until: float) -> None:
    while (daemon.status()["processes"][-1]["records_in"] or 0) < records:
        if time.monotonic() > until:
            raise TimeoutError(f"{records:,} records are not through in {FINISHED_S:g} s")
        time.sleep(LOOK_S)
