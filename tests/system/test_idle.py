"""A pipeline to which nothing comes costs nearly nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.daemon import running, wait_for
from support.idle import RECORDS, measure, processes, quiet_chain

pytestmark = [pytest.mark.system, pytest.mark.timing]

STAGES = ("generator", "normalizer", "consumer", "trainer", "evaluator", "launcher")
# Of a core, all processes. Measured 0.0028 on a quiet machine; 0.0065 to 0.011 in an hour in which a bare process took
# 95 us to be woken instead of 16. The wake-ups are what must not grow: a stage has none, and this is for the others.
CPU_MAX = 0.02


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
