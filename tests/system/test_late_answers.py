"""What takes longer than an operator waits goes on, and its end is no less whole."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from support.daemon import running, simple, wait_for

pytestmark = [pytest.mark.system]

SLOW = simple(
    head='\n[checkpoint]\ninterval = "1h"\n',
    count="batch_max = 100",
    middle="seconds_per_record = 0.005\nticks = true",
    rate="1k/s",
)
"""A barrier takes half a second: so long the middle stage has a batch."""


def test_checkpoint_that_comes_late_keeps_its_name() -> None:
    """A checkpoint whose operator does not wait for it is answered with 8 and the reason, and kept under its name all
    the same."""
    with running(SLOW) as daemon:
        wait_for(lambda: daemon.status()["epoch"] is not None, "the first epoch is committed")
        daemon.wait_progress(1)
        late = daemon.ctl("checkpoint", "--keep", "before-upgrade", "--timeout", "0.1")
        assert (late.returncode, late.stderr) == (
            8,
            "streampipectl: still going on after 0.1 s: the epoch under way is aligning\n",
        )
        wait_for(
            lambda: ["before-upgrade"] in [row["names"] for row in daemon.call("checkpoints")["checkpoints"]],
            "the epoch is kept",
        )


def test_one_name_is_one_epoch() -> None:
    """Of several checkpoints that ask for one name at once one gets it; the others are refused, and told why."""
    with running(SLOW) as daemon:
        daemon.wait_progress(1)
        with ThreadPoolExecutor(3) as operators:
            ended = list(operators.map(lambda _: daemon.ctl("checkpoint", "--keep", "mine"), range(3)))
        assert sorted(ctl.returncode for ctl in ended) == [0, 7, 7]
        refused = "streampipectl: 'mine' is to name an epoch that is being made\n"
        assert {ctl.stderr for ctl in ended if ctl.returncode} == {refused}
        named = [row["names"] for row in daemon.call("checkpoints")["checkpoints"]]
        assert named.count(["mine"]) == 1


def test_forced_restart_ends_the_wait_of_another() -> None:
    """A restart that waits for a barrier is hurried by a forced one: the stage is restarted once, and the first client
    is answered too."""
    with running(SLOW) as daemon:
        daemon.wait_progress(1)
        before = daemon.process_status("total")["restarts"]
        assert daemon.ctl("restart", "total", "--timeout", "0.05").returncode == 8
        assert daemon.ctl("restart", "total", "--force").returncode == 0
        wait_for(lambda: daemon.status()["state"] == "running", "it runs again")
        assert daemon.process_status("total")["restarts"] == before + 1
