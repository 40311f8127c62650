"""A pipeline to which nothing comes costs nearly nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.daemon import running, wait_for
from support.idle import RECORDS, measure, processes, quiet_chain

pytestmark = [pytest.mark.system, pytest.mark.timing]

STAGES = ("generator", "normalizer", "consumer", "trainer", "evaluator", "launcher")
CPU_MAX = 0.006  # of a core, all processes; measured 0.0028 on a quiet machine, on a busy one caches are cold


def test_idle_stages_sleep_and_no_epoch_is_made(tmp_path: Path) -> None:
    """Without records no stage wakes up even once, no epoch is made, and all together takes a trace of a core."""
    with running(quiet_chain(tmp_path / "quiet.csv")) as daemon:
        daemon.wait_progress(RECORDS)
        pids = processes(daemon)

        def quiet() -> bool:
            found = measure(pids, 5.0)
            still = all(found[name].wakes_per_s == 0 for name in STAGES)
            return still and sum(use.cpu for use in found.values()) <= CPU_MAX

        assert set(STAGES) < set(pids)
        wait_for(quiet, "five seconds of rest")
        epoch = daemon.status()["epoch"]
        wait_for(quiet, "five more seconds of rest")
        assert daemon.status()["epoch"] == epoch
