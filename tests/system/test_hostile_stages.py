"""Stages that misbehave: a clear state, a clear line, nobody else hurt."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from support.daemon import Daemon, is_alive, running, simple, wait_for

pytestmark = [pytest.mark.system]

PATIENT = '\n[supervision]\nmax_restarts = 1000\nbackoff_first = "10ms"\nbackoff_max = "50ms"\n'


def mischief(kind: str, flag: Path, **options: object) -> str:
    lines = [f'mischief = "{kind}"', f'flag = "{flag}"', *(f"{k} = {v}" for k, v in options.items())]
    return "\n".join(lines)


@pytest.fixture
def flag(tmp_path: Path) -> Path:
    """While this file exists the stage misbehaves."""
    path = tmp_path / "flag"
    path.touch()
    return path


def ends_well(daemon: Daemon, flag: Path, others: dict[str, int]) -> None:
    """When the mischief ends the pipeline runs again, and the other stages are the same processes."""
    flag.unlink()
    generation = daemon.status()["generation"]
    daemon.wait_running(generation)
    daemon.wait_progress(1000)
    assert {name: daemon.pids()[name] for name in others} == others


@pytest.mark.parametrize(
    ("kind", "said"), [("raise", "process refused on purpose"), ("segfault", "SIGSEGV"), ("exit", "SystemExit: 3")]
)
def test_stage_that_fails_in_process(kind: str, said: str, flag: Path) -> None:
    """A stage that raises, segfaults or exits in a batch is restarted; its reason stands in status and log, the
    traceback or fault in the log."""
    with running(simple(head=PATIENT, middle=mischief(kind, flag, at=20_000))) as daemon:
        others = {name: pid for name, pid in daemon.pids().items() if name != "middle"}
        wait_for(lambda: said in (daemon.process_status("middle")["last_reason"] or ""), "the reason is in status")
        if kind == "raise":
            raised = daemon.wait_event("stage_raised")
            assert "simple_stages.py" in raised["traceback"]
            assert raised["phase"] == "process"
        ends_well(daemon, flag, others)


def test_stage_that_cannot_be_constructed_later(flag: Path) -> None:
    """A stage that raises in construction when it is restarted: the restart is answered with the reason, the old one
    stays, nothing else happens."""
    flag.unlink()
    with running(simple(head=PATIENT, middle=mischief("raise_in_construction", flag))) as daemon:
        before = daemon.pids()
        flag.touch()
        done = daemon.ctl("restart", "middle")
        assert done.returncode == 1
        assert "construction refused on purpose" in done.stderr
        assert daemon.pids() == before
        assert daemon.status()["generation"] == 1
        daemon.wait_progress(1000)


def test_stage_that_cannot_be_imported_is_a_configuration_problem(tmp_path: Path) -> None:
    """A class that cannot be imported stops the start with exit 78 and the reason, before any process exists."""
    daemon = Daemon(simple(middle="").replace("simple_stages:Mischief", "simple_stages:Nobody"), tmp_path)
    try:
        assert daemon.wait(30.0) == 78
        assert "Nobody" in daemon.stderr()
        assert not (tmp_path / "run" / "control.sock").exists()
    finally:
        daemon.close()


def test_stage_that_ignores_sigterm(flag: Path) -> None:
    """A stage that ignores SIGTERM is killed after `stop_timeout`; restart and stop of the daemon still work."""
    head = '\n[supervision]\nstop_timeout = "500ms"\n'
    with running(simple(head=head, middle=mischief("ignore_sigterm", flag))) as daemon:
        daemon.wait_progress(1000)
        old = daemon.pids()["middle"]
        assert daemon.ctl("restart", "middle").returncode == 0
        assert not is_alive(old)
        family = daemon.family()
        assert daemon.stop(20.0) == 0
        assert not any(is_alive(pid) for pid in family)


def test_stopped_stage_is_found_and_replaced() -> None:
    """A SIGSTOPped stage is taken for hung, killed and replaced; the others stay."""
    hang = 'hang_timeout = "600ms"'
    with running(simple(head=PATIENT, count=hang, middle=hang, total=hang)) as daemon:
        for name in ("count", "middle", "total"):
            generation = daemon.wait_running()["generation"]
            daemon.wait_progress(1000)
            before = daemon.pids()
            os.kill(before[name], signal.SIGSTOP)
            daemon.wait_running(generation + 1)
            after = daemon.pids()
            assert after[name] != before[name]
            assert {n: p for n, p in after.items() if n != name} == {n: p for n, p in before.items() if n != name}
            daemon.wait_progress(1000)


def test_stopped_stage_can_be_stopped_and_restarted() -> None:
    """An operator's restart by force and the daemon's stop get past a SIGSTOPped stage; a patient restart says what it
    waits for."""
    with running(
        simple(head='\n[supervision]\nstop_timeout = "500ms"\nreset_timeout = "2s"\ndrain_timeout = "1s"\n')
    ) as daemon:
        os.kill(daemon.pids()["middle"], signal.SIGSTOP)
        assert daemon.ctl("restart", "middle", "--timeout", "1s").returncode == 8
        assert daemon.ctl("restart", "middle", "--force").returncode == 0
        daemon.wait_progress(1000)
        os.kill(daemon.pids()["middle"], signal.SIGSTOP)
        family = daemon.family()
        assert daemon.stop(40.0) == 0
        assert not any(is_alive(pid) for pid in family)


def test_looping_stage_leaves_its_stack(flag: Path) -> None:
    """A stage that loops for ever has its stack dumped into the log, is killed and replaced."""
    with running(simple(head=PATIENT, middle=mischief("loop", flag, at=20_000) + '\nhang_timeout = "1s"')) as daemon:
        others = {name: pid for name, pid in daemon.pids().items() if name != "middle"}
        daemon.wait_event("stage_hung")
        wait_for(lambda: any("simple_stages.py" in e["line"] for e in daemon.events("stage_output")), "the stack")
        ends_well(daemon, flag, others)


def test_stage_that_closes_stdout_works_on(flag: Path) -> None:
    """A stage without standard output and error works like any other."""
    with running(simple(middle=mischief("close_stdout", flag))) as daemon:
        daemon.wait_progress(1000)
        assert daemon.status()["generation"] == 1
        assert daemon.ctl("restart", "middle").returncode == 0


def test_spewing_stage_is_rationed(flag: Path) -> None:
    """A stage that prints without end has its lines rationed and counted; the pipeline and the control socket work."""
    with running(simple(count="batch_max = 8", middle=mischief("spew", flag), rate="20k/s")) as daemon:
        daemon.wait_event("output_dropped")
        assert daemon.ctl("status").returncode == 0
        daemon.wait_progress(1000)
        lines = len(daemon.events("stage_output"))
        daemon.wait_event("output_dropped", len(daemon.events("output_dropped")) + 1)
        assert len(daemon.events("stage_output")) - lines < 2000


def test_stage_names_no_process_may_take_the_state(tmp_path: Path) -> None:
    """A second daemon on the same state directory is refused with a clear line; the first one does not notice."""
    with running(simple(), tmp_path) as daemon:
        second = Daemon(simple(), tmp_path)
        try:
            assert second.wait(30.0) != 0
        finally:
            second._own_directory = False
            second.close()
        assert "in use by another" in daemon.stderr()
        daemon.wait_progress(1000)


def test_restarts_too_often_is_a_state() -> None:
    """A stage that dies more often than the intensity allows is 'failed': the pipeline holds, says why, answers."""
    with running(simple(head='\n[supervision]\nmax_restarts = 2\nwindow = "60s"\nbackoff_first = "10ms"\n')) as daemon:
        for _ in range(3):
            pid = wait_for(lambda: daemon.pids().get("middle"), "the stage lives")
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda old=pid: daemon.pids().get("middle") != old, "the death is seen")  # type: ignore[misc]  # mypy cannot infer a lambda with a default
        status = wait_for(lambda: (s := daemon.status())["state"] == "failed" and s, "the stage is given up")
        assert "middle" in status["reason"]
        assert daemon.ctl("status").returncode == 3
        assert daemon.ctl("start", "middle").returncode == 0
        daemon.wait_running()
        daemon.wait_progress(1000)


def test_dead_stage_takes_its_grandchild_along() -> None:
    """A grandchild in a session of its own does not outlive its stage: the supervisor finds and ends it."""
    with running(simple(middle='mischief = "escaped_grandchild"')) as daemon:
        before = daemon.family()
        os.kill(daemon.pids()["middle"], signal.SIGKILL)
        daemon.wait_running(2)
        daemon.wait_event("orphan_ended")
        wait_for(lambda: len(daemon.family()) == len(before), "the old grandchild is gone")


def test_stage_that_works_long_and_says_so_is_not_hung() -> None:
    """A stage of the user's that takes longer for a batch than the hang timeout and calls `tick` is left alone; the
    same without `tick` is killed."""
    slow = 'seconds_per_record = 0.25\nhang_timeout = "1s"\n'
    with running(simple(count="batch_max = 8", middle=slow + "ticks = true")) as daemon:
        daemon.wait_progress(8)
        assert not daemon.events("stage_hung")
    with running(simple(count="batch_max = 8", middle=slow)) as daemon:
        daemon.wait_event("stage_hung")
