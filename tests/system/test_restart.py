"""What an operator does to a running pipeline: restart, stop, start, many times and under load."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

import pytest

from support.daemon import Daemon, chain, children, comm, rss_mib, running, wait_for
from support.restarts import restarts

pytestmark = [pytest.mark.system, pytest.mark.timing]


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    """The default chain, as fast as it goes, without end."""
    with running(chain()) as daemon:
        yield daemon


def test_status_is_answered_under_load(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    """With every core busy the daemon answers `status`, usage figures included, in less than 100 ms in the median."""
    times = []
    for _ in range(25):
        began = time.monotonic()
        daemon.status()
        times.append(time.monotonic() - began)
    with capsys.disabled():
        print(f"\nstatus answered under load: median {statistics.median(times) * 1e3:.0f} ms", end="")
    assert statistics.median(times) < 0.1


def test_status_knows_every_process(daemon: Daemon) -> None:
    """status shows state, pid, counters and, from the service monitor, CPU and memory of every process."""

    def complete() -> bool:
        status = daemon.status()
        known = [p for p in status["processes"] if p["rss_bytes"] and p["uss_bytes"] and p["cpu_percent"] is not None]
        return len(known) == len(status["processes"]) == 7 and status["report"]["r2"] is not None

    wait_for(complete, "every process has its figures")
    stages = [p for p in daemon.status()["processes"] if p["role"] != "service"]
    assert all(p["records_in"] > 0 and p["state"] == "running" for p in stages)


def test_report_while_it_runs(daemon: Daemon) -> None:
    """`report` gives the evaluator's verdict with MSE and R2, and its JSON twin."""
    text = daemon.ctl("report")
    assert text.returncode == 0, text.stderr
    assert "MSE" in text.stdout
    assert "R2" in text.stdout
    report = daemon.call("report")
    assert report["results"]
    assert report["operations"]["generation"] >= 1


def test_unknown_stage_is_named(daemon: Daemon) -> None:
    """A command about a stage that is not there exits 4 and names those that are."""
    done = daemon.ctl("restart", "normaliser")
    assert done.returncode == 4
    assert "normalizer" in done.stderr


def test_stop_and_start_a_stage(daemon: Daemon) -> None:
    """A stage stopped on purpose holds the pipeline and does not make status fail; start brings it back."""
    assert daemon.ctl("stop", "trainer").returncode == 0
    status = daemon.status()
    assert status["state"] == "stopped"
    assert daemon.process_status("trainer")["pid"] is None
    assert daemon.ctl("status").returncode == 0
    assert daemon.ctl("start", "trainer").returncode == 0
    daemon.wait_progress(1000)


def test_restart_everything(daemon: Daemon) -> None:
    """`restart` without a name replaces every process, services included."""
    before = daemon.pids()
    done = daemon.ctl("restart")
    assert done.returncode == 0, done.stderr
    after = daemon.pids()
    assert set(after) == set(before)
    assert not set(after.values()) & set(before.values())
    daemon.wait_progress(1000)


def test_service_restart_leaves_the_data_path(daemon: Daemon) -> None:
    """Restarting the service monitor does not begin a new generation."""
    generation = daemon.status()["generation"]
    assert daemon.ctl("restart", "service_monitor").returncode == 0
    assert daemon.status()["generation"] == generation


def test_supervisor_stays_small(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    """The supervisor's resident memory is at most 40 MiB."""
    size = rss_mib(daemon.process.pid)
    with capsys.disabled():
        print(f"\nsupervisor: {size:.1f} MiB", end="")
    assert size <= 40.0


def test_stages_are_children_by_name(daemon: Daemon) -> None:
    """Under the supervisor `pstree` shows the launcher and every stage by its name."""
    names = {comm(pid) for pid in children(daemon.process.pid)}
    assert names == {
        "launcher", "generator", "normalizer", "consumer", "trainer", "evaluator", "log_extractor", "service_monitor"
    }  # fmt: skip


def test_restart_at_full_speed(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    """At whatever speed the machine has, the stream stands still for at most 150 ms in the median. The operator waits
    for what the disk has to write of the last second as well, while it flows."""
    times = restarts(daemon, capsys, "at full speed")
    assert times.pause <= 0.15
    assert times.answer <= 1.0
