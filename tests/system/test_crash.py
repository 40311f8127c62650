"""What happens when a process dies: the pipeline comes back by itself, and nothing is left behind."""

from __future__ import annotations

import os
import random
import signal
import statistics
import time
from collections.abc import Iterator

import pytest

from support.daemon import Daemon, children, comm, is_alive, running, simple, stat, wait_for

pytestmark = [pytest.mark.system]

PATIENT = "\n[supervision]\nmax_restarts = 1000\n"
KILLS_PER_STAGE = 5


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running(simple(head=PATIENT)) as daemon:
        yield daemon


def recover(daemon: Daemon, kill: list[str]) -> float:
    """Kill by name, wait for the next generation; seconds from the death to the first batch at the last stage."""
    generation = daemon.wait_running()["generation"]
    daemon.wait_progress(1000)
    seen = len(daemon.events("first_batch_seen"))
    for name in kill:
        os.kill(daemon.pids()[name], signal.SIGKILL)
    daemon.wait_running(generation + 1)
    return float(daemon.wait_event("first_batch_seen", seen + 1)["seconds"])


@pytest.mark.parametrize("name", ["count", "middle", "total"])
def test_killed_stage_comes_back(daemon: Daemon, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """After SIGKILL of any stage the pipeline runs again by itself, and the other stages keep their pids."""
    before = daemon.pids()
    times = [recover(daemon, [name]) for _ in range(KILLS_PER_STAGE)]
    after = daemon.pids()
    assert after[name] != before[name]
    assert {n: p for n, p in after.items() if n != name} == {n: p for n, p in before.items() if n != name}
    with capsys.disabled():
        print(
            f"\nkill -9 {name}: first batch at the last stage after median {statistics.median(times) * 1e3:.0f} ms",
            end="",
        )
    assert statistics.median(times) < 1.0


def test_all_stages_killed_at_once(daemon: Daemon) -> None:
    """After SIGKILL of every stage at once the pipeline runs again by itself."""
    before = daemon.pids()
    generation = daemon.status()["generation"]
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)
    daemon.wait_running(generation + 1)
    daemon.wait_progress(1000)
    assert not set(daemon.pids().values()) & set(before.values())


def test_killed_launcher_is_replaced(daemon: Daemon) -> None:
    """Stages live on when the launcher is killed, and a new launcher forks again."""
    before = daemon.pids()
    old = daemon.launcher_pid()
    os.kill(old, signal.SIGKILL)
    wait_for(lambda: [p for p in children(daemon.process.pid) if comm(p) == "launcher" and p != old], "a new launcher")
    assert daemon.pids() == before
    recover(daemon, ["middle"])


def test_launcher_killed_together_with_a_stage(daemon: Daemon) -> None:
    """A stage that dies while there is no launcher comes back with the next launcher."""
    generation = daemon.status()["generation"]
    os.kill(daemon.launcher_pid(), signal.SIGKILL)
    os.kill(daemon.pids()["total"], signal.SIGKILL)
    daemon.wait_running(generation + 1)
    daemon.wait_progress(1000)


def test_no_zombies_and_no_strangers(daemon: Daemon) -> None:
    """After all of this the supervisor's children are exactly the launcher and the stages, none a zombie."""

    def settled() -> bool:
        found = children(daemon.process.pid)
        names = sorted(comm(pid) for pid in found)
        return names == ["count", "launcher", "middle", "total"] and all(stat(p)[0] != "Z" for p in found)

    wait_for(settled, "only the launcher and the stages are left")


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


@pytest.mark.parametrize("mischief", ["grandchild", "escaped_grandchild"])
def test_dead_supervisor_takes_everything_along(mischief: str) -> None:
    """After SIGKILL of the supervisor every process is gone within 100 ms, grandchildren included."""
    with running(simple(middle=f'mischief = "{mischief}"')) as daemon:
        family = daemon.family()
        assert len(family) == 7  # supervisor, launcher, warden, three stages, a grandchild
        daemon.process.kill()
        killed = time.monotonic()
        wait_for(lambda: not any(is_alive(pid) for pid in family), "everybody is gone", 5.0, 0.001)
        assert time.monotonic() - killed < 0.1


def test_dead_stage_takes_its_grandchild_along() -> None:
    """A grandchild in a session of its own does not outlive its stage: the supervisor finds and ends it."""
    with running(simple(middle='mischief = "escaped_grandchild"')) as daemon:
        before = daemon.family()
        os.kill(daemon.pids()["middle"], signal.SIGKILL)
        daemon.wait_running(2)
        daemon.wait_event("orphan_ended")
        wait_for(lambda: len(daemon.family()) == len(before), "the old grandchild is gone")


@pytest.mark.slow
def test_supervisor_killed_at_random_instants(capsys: pytest.CaptureFixture[str]) -> None:
    """SIGKILL of the supervisor at random instants, around forks too, leaves no process after 100 ms."""
    rng = random.Random(7)
    rounds = int(os.environ.get("STREAMPIPE_SUPERVISOR_KILLS", "12"))
    worst = 0.0
    for number in range(rounds):
        daemon = Daemon(simple(head=PATIENT))
        try:
            if number % 3 == 0:  # while the launcher and the stages come up
                wait_for(lambda d=daemon: (d.run / "control.sock").exists(), "the socket")  # type: ignore[misc]  # as above
                deadline = time.monotonic() + rng.uniform(0.0, 1.6)
            else:  # while stages are being forked again
                daemon.wait_running()
                for pid in rng.sample(sorted(daemon.pids().values()), 2):
                    os.kill(pid, signal.SIGKILL)
                deadline = time.monotonic() + rng.uniform(0.0, 0.06)
            wait_for(lambda d=deadline: time.monotonic() >= d, "the instant", step=0.001)  # type: ignore[misc]  # as above
            family = daemon.family()
            daemon.process.kill()
            killed = time.monotonic()
            wait_for(lambda f=family: not any(map(is_alive, f)), "all gone", 5.0, 0.001)  # type: ignore[misc]  # as above
            wait_for(lambda d=daemon: not d.family(), "who was being forked is gone too", 5.0, 0.001)  # type: ignore[misc]  # as above
            worst = max(worst, time.monotonic() - killed)
        finally:
            daemon.close()
    with capsys.disabled():
        print(
            f"\nsupervisor killed at {rounds} random instants: everything gone after {worst * 1e3:.0f} ms at worst",
            end="",
        )
    assert worst < 0.1
