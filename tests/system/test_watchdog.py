"""Stages that make no progress: told, shown where they are, ended if it is their own fault, and only then."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.daemon import Daemon, running, simple, wait_for
from support.simple_stages import WORK_S

pytestmark = [pytest.mark.system]

HEAD = '\n[supervision]\nmax_restarts = 1000\nbackoff_first = "10ms"\nbackoff_max = "50ms"\n'
HANG_S = 1.0
STARVED_S = 5 * HANG_S
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


def test_starved_stage_is_left_alone(patient: Patient) -> None:
    """A stage that others leave no CPU, for several times its `hang_timeout` and in the middle of a batch, is told to
    be starved and not killed; when there is CPU again it goes on."""
    daemon, flag = patient
    generation, pid = daemon.wait_running()["generation"], daemon.pids()["middle"]
    hung, starved = len(_told(daemon, "stage_hung")), len(_told(daemon, "stage_starved"))
    cpu = max(os.sched_getaffinity(0))
    allowed = os.sched_getaffinity(pid)
    os.sched_setaffinity(pid, {cpu})
    os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))
    with contextlib.suppress(OSError):  # every session its own share of the CPU, where the kernel does that
        Path(f"/proc/{pid}/autogroup").write_text("19")
    burners = [
        subprocess.Popen([sys.executable, "-c", BURN, str(cpu), str(STARVED_S)], start_new_session=True)
        for _ in range(2)
    ]
    try:
        flag.write_text("work")
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
    daemon.wait_progress(1000)
    assert daemon.pids()["middle"] == pid
    assert daemon.status()["generation"] == generation
    assert len(_told(daemon, "stage_hung")) == hung
    wait_for(lambda: len(_told(daemon, "stage_starved")) > starved, "somebody says that it was starved")
