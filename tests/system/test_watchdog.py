"""Stages that make no progress: told, shown where they are, ended if it is their own fault, and only then."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.daemon import Daemon, running, simple, wait_for
from support.simple_stages import WORK_S

pytestmark = [pytest.mark.system]

HEAD = '\n[supervision]\nmax_restarts = 1000\nbackoff_first = "10ms"\nbackoff_max = "50ms"\n'
HANG_S = 1.0
STARVED_S = 5 * HANG_S
FROZEN_S = 4.0  # twice the limits
assert WORK_S < HANG_S / 2, "what is hard work must not look like a hang to itself"

Patient = tuple[Daemon, Path]


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Patient]:
    """A daemon, and the file that says what its middle stage does wrong with its next batch, once."""
    flag = tmp_path_factory.mktemp("watchdog") / "flag"
    middle = f'flag = "{flag}"\nat = -1\nonce = true\nhang_timeout = "{HANG_S:g}s"'
    with running(simple(head=HEAD, middle=middle)) as daemon:
        yield daemon, flag


def _told(daemon: Daemon, event: str) -> list[dict[str, object]]:
    return [line for line in daemon.events(event) if line["stage"] == "middle"]


@pytest.mark.parametrize(
    ("kind", "condition"), [("spin", "on the CPU"), ("sleep", "asleep"), ("read", "asleep")], ids=lambda x: str(x)
)
def test_hang_is_shown_and_ended(kind: str, condition: str, patient: Patient) -> None:
    """A stage that hangs, in Python or in C, is told to be late (or starved, on a busy machine) with its stack, and
    killed later with the stack once more; the log has the line where it is. Its successor goes on, the others are the
    same processes."""
    daemon, flag = patient
    before, generation = daemon.pids(), daemon.wait_running()["generation"]
    kinds = ("stage_stalled", "stage_starved", "stage_hung", "stage_output")
    late, starved, hung, lines = (len(_told(daemon, each)) for each in kinds)
    flag.write_text(kind)
    daemon.wait_running(generation + 1)
    daemon.wait_progress(1000)
    dump = "\n".join(str(line["line"]) for line in _told(daemon, "stage_output")[lines:])
    assert len([line for line in dump.splitlines() if "simple_stages.py" in line and "in process" in line]) == 2
    if not _told(daemon, "stage_starved")[starved:]:
        assert [told["condition"] for told in _told(daemon, "stage_stalled")[late:]] == [condition]
    assert [told["condition"] for told in _told(daemon, "stage_hung")[hung:]] == [condition]
    reason = str(daemon.process_status("middle")["last_reason"])
    assert reason.startswith("hung: no progress for")
    assert condition in reason
    assert {n: p for n, p in daemon.pids().items() if n != "middle"} == {
        n: p for n, p in before.items() if n != "middle"
    }


BURN = """
import os, sys, time
os.sched_setaffinity(0, {int(sys.argv[1])})
until = time.monotonic() + float(sys.argv[2])
while time.monotonic() < until:
    pass
"""
"""Keeps one CPU busy for so many seconds, and ends by itself."""


@contextlib.contextmanager
def starving(pid: int) -> Iterator[None]:
    """What is done inside has happened to a process that others then leave no CPU for STARVED_S. Afterwards it has
    CPU again."""
    cpu = max(os.sched_getaffinity(0))
    allowed = os.sched_getaffinity(pid)
    os.sched_setaffinity(pid, {cpu})
    os.sched_setscheduler(pid, os.SCHED_IDLE | os.SCHED_RESET_ON_FORK, os.sched_param(0))
    with contextlib.suppress(OSError):  # every session its own share of the CPU, where the kernel does that
        Path(f"/proc/{pid}/autogroup").write_text("19")
    burners = [
        subprocess.Popen([sys.executable, "-c", BURN, str(cpu), str(STARVED_S)], start_new_session=True)
        for _ in range(2)
    ]
    try:
        yield
        for burner in burners:
            burner.wait(60.0)
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()
        with contextlib.suppress(OSError):
            os.sched_setaffinity(pid, allowed)
            os.sched_setscheduler(pid, os.SCHED_OTHER, os.sched_param(0))  # or others' work starves it for ever
        with contextlib.suppress(OSError):
            Path(f"/proc/{pid}/autogroup").write_text("0")


def test_starved_stage_is_left_alone(patient: Patient) -> None:
    """A stage that others leave no CPU, for several times its `hang_timeout` and in the middle of a batch, is told to
    be starved and not killed; when there is CPU again it goes on."""
    daemon, flag = patient
    generation, pid = daemon.wait_running()["generation"], daemon.pids()["middle"]
    hung, starved = len(_told(daemon, "stage_hung")), len(_told(daemon, "stage_starved"))
    with starving(pid):
        flag.write_text("work")
    daemon.wait_progress(1000)
    assert daemon.pids()["middle"] == pid
    assert daemon.status()["generation"] == generation
    assert len(_told(daemon, "stage_hung")) == hung
    wait_for(lambda: len(_told(daemon, "stage_starved")) > starved, "somebody says that it was starved")


SHORT = '\n[supervision]\nstart_timeout = "2s"\n'


@pytest.mark.parametrize("planned", [True, False])
def test_stopped_launcher_is_replaced(planned: bool) -> None:
    """A launcher that is stopped owes a fork, to an operator's restart or to a stage that has died: it is ended after
    `start_timeout`, and the next one forks. Nobody else is touched."""
    with running(simple(head=SHORT)) as daemon:
        before, launcher = daemon.pids(), daemon.launcher_pid()
        os.kill(launcher, signal.SIGSTOP)
        if planned:
            assert daemon.ctl("restart", "middle").returncode == 0
        else:
            os.kill(before["middle"], signal.SIGKILL)
        daemon.wait_running(2)
        daemon.wait_progress(1000)
        after = daemon.pids()
        assert {name for name in before if before[name] != after[name]} == {"middle"}
        assert daemon.launcher_pid() != launcher
        assert len(daemon.events("launcher_died")) == 1


def test_starved_launcher_is_left_alone() -> None:
    """A launcher that others leave no CPU for longer than `start_timeout`, while it owes forks to a restart and to a
    death, is not killed for it; they come when there is CPU again."""
    with running(simple(head=SHORT)) as daemon:
        launcher = daemon.launcher_pid()
        with starving(launcher):
            daemon.call("restart", stages=["middle"], wait=False)
            os.kill(daemon.pids()["total"], signal.SIGKILL)
        for pid in daemon.family():  # what it has forked is on its CPU as well
            with contextlib.suppress(OSError):
                os.sched_setaffinity(pid, os.sched_getaffinity(0))
        wait_for(lambda: daemon.process_status("middle")["restarts"] >= 1, "the restart comes about")
        wait_for(lambda: daemon.status()["state"] == "running", "the pipeline runs")
        daemon.wait_progress(1000)
        assert daemon.launcher_pid() == launcher
        assert not daemon.events("launcher_died")


def test_frozen_family_kills_nobody() -> None:
    """When the daemon and all its processes stand still in the middle of a recovery for longer than its limits, as on a
    machine that is paused, nobody is killed for that afterwards."""
    short = '\n[supervision]\nstart_timeout = "2s"\nreset_timeout = "2s"\n'
    with running(simple(head=short)) as daemon:
        os.kill(daemon.pids()["middle"], signal.SIGKILL)
        daemon.wait_event("stage_died")
        family = daemon.family()
        try:
            for pid in sorted(family, key=lambda pid: pid != daemon.process.pid):  # first who would miss the others
                os.kill(pid, signal.SIGSTOP)
            thawed = time.monotonic() + FROZEN_S
            wait_for(lambda: time.monotonic() >= thawed, "the machine goes on", FROZEN_S + 60.0)
        finally:
            for pid in family:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
        daemon.wait_running(2)
        daemon.wait_progress(1000)
        assert [(died["stage"], died["reason"]) for died in daemon.events("stage_died")] == [
            ("middle", "killed by SIGKILL")
        ]
        assert not daemon.events("launcher_died")
