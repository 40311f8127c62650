"""What a service manager or a shell allows is too little: it is said, and no stage is blamed."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from streampiped.topology import Links, Paths, Plan, StageSpec
from support.daemon import Daemon, descriptors, running, simple, wait_for

pytestmark = [pytest.mark.system]

STAGES: Final = ("count", "middle", "total")
KILLS: Final = 3
FOR_A_FORK: Final = 6
"""Descriptors, and not enough for the next generation, even with the three of the dead: two links and two owners take
fourteen."""


def needed() -> int:
    """Open files of a daemon with `simple()`."""
    stages = tuple(StageSpec(name, "a:B", "transform", STAGES[n - 1 : n] if n else ()) for n, name in enumerate(STAGES))
    return Plan("p", 0, "", Paths("", "", ""), stages, links=Links()).descriptors()


@pytest.mark.parametrize(
    ("name", "allowed", "need"),
    [("RLIMIT_NOFILE", needed() - 1, needed()), ("RLIMIT_FSIZE", (16 << 20) - 1, 16 << 20)],
)
def test_limit_below_the_need_is_refused(name: str, allowed: int, need: int, tmp_path: Path) -> None:
    """A daemon that may not have what its pipeline needs ends with exit 78, and names the limit, what it needs and what
    it may have; the state directory is left alone."""
    daemon = Daemon(simple(), tmp_path, limit=(getattr(resource, name), allowed))
    try:
        assert daemon.wait() == 78
        said = daemon.stderr()
        assert name in said
        assert str(allowed) in said
        assert str(need) in said
        assert not list(daemon.state.iterdir())
    finally:
        daemon.close()


def test_the_need_suffices(tmp_path: Path) -> None:
    """With as many open files as it asks for, and no more, a pipeline runs, and goes on when stages are killed and
    restarted."""
    daemon = Daemon(simple(), tmp_path, limit=(resource.RLIMIT_NOFILE, needed()))
    try:
        daemon.wait_running()
        for _ in range(KILLS):
            generation = daemon.status()["generation"]
            os.kill(daemon.pids()["middle"], signal.SIGKILL)
            daemon.wait_running(generation + 1)
        assert daemon.ctl("restart", "total").returncode == 0
        assert not daemon.events("command_failed")
    finally:
        daemon.close()


@contextlib.contextmanager
def short_of_descriptors(daemon: Daemon, spare: int) -> Iterator[int]:
    """The supervisor may open `spare` more files, while the block runs; the limit that says so."""
    pid = daemon.process.pid
    opened = {int(fd) for fd in os.listdir(f"/proc/{pid}/fd")}
    limit = next(n for n in range(spare, 4096) if n - sum(fd < n for fd in opened) == spare)
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, hard))
    yield limit
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))


def test_links_that_cannot_be_made_are_no_stages_fault() -> None:
    """A supervisor that runs out of descriptors for a new generation says which limit it is, blames no stage, tries
    again, and goes on when there are more."""
    with running(simple()) as daemon:
        generation, before = daemon.status()["generation"], descriptors(daemon.process.pid)
        with short_of_descriptors(daemon, FOR_A_FORK) as limit:
            os.kill(daemon.pids()["middle"], signal.SIGKILL)
            assert f"RLIMIT_NOFILE is {limit}" in daemon.wait_event("links_failed", 2)["reason"]
            assert "RLIMIT_NOFILE" in daemon.wait_degraded()["reason"]
        daemon.wait_running(generation + 3)
        daemon.wait_progress(1000)
        assert [daemon.process_status(name)["restarts"] for name in STAGES] == [0, 1, 0]
        assert not daemon.events("stage_raised")
        wait_for(lambda: descriptors(daemon.process.pid) == before, "nothing is left open")


def test_fork_that_fails_leaves_nothing_open() -> None:
    """A supervisor that is short of descriptors in the middle of ordering a fork says which limit it is, and has as
    many open as before when it is over."""
    with running(simple()) as daemon:
        generation, before = daemon.status()["generation"], descriptors(daemon.process.pid)
        with short_of_descriptors(daemon, 1) as limit:
            os.kill(daemon.pids()["middle"], signal.SIGKILL)
            wait_for(
                lambda: [e for e in daemon.events("command_failed") if e["command"] == "Fork"], "no fork can be ordered"
            )
            assert f"RLIMIT_NOFILE is {limit}" in daemon.process_status("middle")["last_reason"]
        daemon.wait_running(generation + 1)
        wait_for(lambda: descriptors(daemon.process.pid) == before, "nothing is left open")
