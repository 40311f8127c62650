"""A pipeline to which nothing comes costs nearly nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.daemon import running, wait_for
from support.idle import RECORDS, measure, processes, quiet_chain

pytestmark = [pytest.mark.system, pytest.mark.timing]

STAGES = ("generator", "normalizer", "consumer", "trainer", "evaluator", "launcher")
WAKES_MAX = {"supervisor": 9.0, "log_extractor": 4.0, "service_monitor": 4.0}
"""A second; measured 1.6 to 3.2, 0.6 and 0.8. A stage has none. A page that is read back counts as one."""
CPU_MAX = 0.2
"""Of a core, all processes: a guard against work that wakes nobody, and no more. Measured 0.0028 on a quiet machine;
0.03 to 0.06 where memory was being reclaimed from whoever was idle, so that each wake-up read it back from the disk, by
this state of the code and an older one in turn."""


def test_idle_stages_sleep_and_no_epoch_is_made(tmp_path: Path) -> None:
    """Without records no stage wakes up even once, no epoch is made, and all together takes a trace of a core."""
    with running(quiet_chain(tmp_path / "quiet.csv")) as daemon:
        daemon.wait_progress(RECORDS)
        pids = processes(daemon)

        def quiet() -> bool:
            found = measure(pids, 5.0)
            still = all(use.wakes_per_s <= WAKES_MAX.get(name, 0.0) for name, use in found.items())
            return still and sum(use.cpu for use in found.values()) <= CPU_MAX

        assert set(STAGES) < set(pids)
        wait_for(quiet, "five seconds of rest")
        epoch = daemon.status()["epoch"]
        wait_for(quiet, "five more seconds of rest")
        assert daemon.status()["epoch"] == epoch
