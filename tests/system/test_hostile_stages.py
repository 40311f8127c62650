"""Stages that misbehave: a clear state, a clear line, nobody else hurt."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.daemon import Daemon, is_alive, running, simple, wait_for

pytestmark = [pytest.mark.system]

PATIENT = '\n[supervision]\nmax_restarts = 1000\nbackoff_first = "10ms"\nbackoff_max = "50ms"\n'


def mischief(kind: str, flag: Path) -> str:
    return f'mischief = "{kind}"\nflag = "{flag}"'


@dataclass(frozen=True, slots=True)
class Patient:
    """A daemon that stands everything. What a test writes into `flag` is what its middle stage does wrong: when it is
    constructed, or with the next batch, once."""

    daemon: Daemon
    flag: Path

    def others(self) -> dict[str, int]:
        return {name: pid for name, pid in self.daemon.pids().items() if name != "middle"}


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Patient]:
    flag = tmp_path_factory.mktemp("patient") / "flag"
    middle = f'flag = "{flag}"\nat = -1\nonce = true'
    with running(simple(head=PATIENT, middle=middle)) as daemon:
        yield Patient(daemon, flag)


@pytest.fixture
def patient(started: Patient) -> Iterator[Patient]:
    """The one daemon of all tests that leave it running. After each of them nothing goes wrong, and records flow."""
    yield started
    started.flag.unlink(missing_ok=True)
    started.daemon.wait_running()
    started.daemon.wait_progress(1000)


@pytest.fixture
def flag(tmp_path: Path) -> Path:
    """While this file exists the stage misbehaves."""
    path = tmp_path / "flag"
    path.touch()
    return path


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("raise", "process refused on purpose"),
        ("raise_surrogate", "RuntimeError: no such file: \\udc80.csv"),
        ("raise_unsayable", "UnsayableError, of which nothing can be told: KeyError"),
        ("segfault", "SIGSEGV"),
        ("exit", "SystemExit: 3"),
        ("nobodys_rows", "OutputError: the result, batch"),
        ("fewer_rows", "rows, has spans of 256. Right would be"),
    ],
)
def test_stage_that_fails_in_process(kind: str, said: str, patient: Patient) -> None:
    """A stage that raises, segfaults or exits in a batch, or gives one that none can take, is restarted, and the other
    stages are the same processes; its reason stands in status and log, the traceback or fault in the log."""
    daemon, others = patient.daemon, patient.others()
    generation = daemon.status()["generation"]
    patient.flag.write_text(kind)
    wait_for(lambda: said in (daemon.process_status("middle")["last_reason"] or ""), "the reason is in status")
    if kind == "raise":
        raised = daemon.wait_event("stage_raised")
        assert "simple_stages.py" in raised["traceback"]
        assert raised["phase"] == "process"
    daemon.wait_running(generation + 1)
    daemon.wait_progress(1000)
    assert patient.others() == others


@pytest.mark.parametrize("step", ["construction", "restore"])
def test_stage_that_cannot_begin_later(step: str, patient: Patient) -> None:
    """A stage that raises in construction, or cannot restore the state of the one before it, when it is restarted: the
    restart is answered with the reason, the old one stays, nothing else happens."""
    daemon, before, generation = patient.daemon, patient.daemon.pids(), patient.daemon.status()["generation"]
    assert daemon.ctl("checkpoint").returncode == 0
    patient.flag.write_text(f"raise_in_{step}")
    done = daemon.ctl("restart", "middle")
    assert done.returncode == 1
    assert f"{step} refused on purpose" in done.stderr
    assert daemon.pids() == before
    assert daemon.status()["generation"] == generation
    daemon.wait_progress(1000)


def test_stage_that_closes_stdout_works_on(patient: Patient) -> None:
    """A stage without standard output and error works like any other."""
    daemon = patient.daemon
    patient.flag.write_text("close_stdout")
    assert daemon.ctl("restart", "middle").returncode == 0
    generation = daemon.status()["generation"]
    daemon.wait_progress(1000)
    assert daemon.status()["generation"] == generation
    patient.flag.unlink()
    assert daemon.ctl("restart", "middle").returncode == 0


def test_dead_stage_takes_its_grandchild_along(patient: Patient) -> None:
    """A grandchild in a session of its own does not outlive its stage: the supervisor finds and ends it."""
    daemon = patient.daemon
    patient.flag.write_text("escaped_grandchild")
    assert daemon.ctl("restart", "middle").returncode == 0
    before, generation = daemon.family(), daemon.status()["generation"]
    patient.flag.unlink()
    os.kill(daemon.pids()["middle"], signal.SIGKILL)
    daemon.wait_running(generation + 1)
    daemon.wait_event("orphan_ended")
    wait_for(lambda: len(daemon.family()) == len(before) - 1, "the grandchild is gone, and there is no other")


def test_stage_names_no_process_may_take_the_state(patient: Patient) -> None:
    """A second daemon on the same state directory is refused with a clear line; the first one does not notice."""
    daemon = patient.daemon
    second = Daemon(simple(), daemon.root)
    try:
        assert second.wait(30.0) != 0
    finally:
        second.close()
    assert "in use by another" in daemon.stderr()
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


def test_spewing_stage_is_rationed(flag: Path) -> None:
    """A stage that prints without end has its lines rationed and counted; the pipeline and the control socket work."""
    with running(simple(count="batch_max = 8", middle=mischief("spew", flag), rate="20k/s")) as daemon:
        daemon.wait_event("output_dropped")
        assert daemon.ctl("status").returncode == 0
        daemon.wait_progress(1000)
        lines = len(daemon.events("stage_output"))
        daemon.wait_event("output_dropped", len(daemon.events("output_dropped")) + 1)
        assert len(daemon.events("stage_output")) - lines < 2000


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


def test_stage_that_works_long_and_says_so_is_not_hung(flag: Path) -> None:
    """A stage of the user's that takes longer for a batch than the hang timeout and calls `tick` is left alone; when it
    does not any more it is killed."""
    slow = f'seconds_per_record = 0.25\nhang_timeout = "1s"\nticks = true\nflag = "{flag}"'
    with running(simple(count="batch_max = 8", middle=slow)) as daemon:
        daemon.wait_progress(8)
        assert not daemon.events("stage_hung")
        flag.unlink()
        daemon.wait_event("stage_hung")
