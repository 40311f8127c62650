"""A full disk under the state directory: nobody dies, nothing is lost, and it goes on by itself when there is room."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.daemon import Daemon, simple, wait_for
from support.law import Outcome, finish, hold_out, stored, undisturbed

pytestmark = [
    pytest.mark.system,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small tmpfs, which only root may"),
]

RECORDS = 60_000
STREAM = stored(RECORDS, rate="20k/s")
SIZE_MIB = 64


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """The outcome of the same stream on a disk that always has room."""
    return undisturbed(stored(RECORDS), tmp_path_factory.mktemp("calm"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of SIZE_MIB where the daemon keeps its state."""
    state = tmp_path / "state"
    state.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB}m", "tmpfs", str(state)]
    subprocess.run(mount, check=True, capture_output=True)
    try:
        yield state
    finally:
        subprocess.run(["umount", "-l", str(state)], check=True, capture_output=True)


def fill(disk: Path, leave: int) -> Path:
    """Take everything but `leave` bytes. The daemon writes and removes meanwhile, and an allocation that does not fit
    any more takes nothing at all: then again."""
    filler = disk / "filler"
    taken = 0
    with filler.open("wb") as file:
        while (more := free(disk) - leave) > 0:
            with contextlib.suppress(OSError):
                os.posix_fallocate(file.fileno(), taken, more)
                taken += more
    return filler


def free(disk: Path) -> int:
    found = os.statvfs(disk)
    return found.f_bavail * found.f_frsize


@pytest.mark.parametrize("leave", [1 << 18])
def test_full_disk_is_waited_for(small_disk: Path, tmp_path: Path, calm: Outcome, leave: int) -> None:
    """While there is no room the pipeline says 'degraded' and why, answers, restarts nobody and makes no progress it
    would have to take back; when there is room again it goes on by itself, and the outcome is exact."""
    daemon = Daemon(STREAM, tmp_path)
    try:
        daemon.wait_running()
        daemon.wait_progress(5000)
        pids = daemon.pids()
        filler = fill(small_disk, leave)
        status = daemon.wait_degraded()
        assert "space" in status["reason"] or "full" in status["reason"], status["reason"]
        assert daemon.ctl("status").returncode == 0
        assert daemon.ctl("why", "consumer").returncode == 0
        filler.unlink()
        hold_out(daemon, pids, calm)
    finally:
        daemon.close()


def test_kill_on_a_full_disk(small_disk: Path, tmp_path: Path, calm: Outcome) -> None:
    """The supervisor is killed while the disk is full; started again on the full disk it waits, and is exact in the
    end."""
    daemon = Daemon(STREAM, tmp_path)
    try:
        daemon.wait_running()
        daemon.wait_progress(5000)
        filler = fill(small_disk, 0)
        daemon.wait_degraded()
        daemon.process.kill()
        daemon.process.wait(10.0)
        daemon.close()
        daemon = Daemon(STREAM, tmp_path)
        wait_for(lambda: daemon.events("stage_impaired") or daemon.events("epoch_aborted"), "the start meets the disk")
        filler.unlink()
        daemon.wait_running()
        assert finish(daemon).differences(calm) == []
    finally:
        daemon.close()


def test_stop_on_a_full_disk(small_disk: Path, tmp_path: Path) -> None:
    """A stop is answered with success only when the next start will know of it: on a full disk with 8 and the reason,
    which status repeats; when there is room again it is remembered by itself."""
    text = simple(head='\n[checkpoint]\ninterval = "1h"\n', rate="1k/s")  # nobody else frees or takes
    daemon = Daemon(text, tmp_path)
    try:
        daemon.wait_running()
        wait_for(lambda: daemon.status()["epoch"] is not None, "the first epoch is committed")
        filler = fill(small_disk, 0)
        late = daemon.ctl("stop", "middle", "--timeout", "1")
        assert late.returncode == 8, late
        assert "after 1 s: middle is stopped, the disk refuses to remember who is stopped: " in late.stderr
        status = daemon.status()
        assert (status["state"], "which the disk refuses to remember: " in status["reason"]) == ("stopped", True)
        assert "who is stopped cannot be remembered: " in daemon.ctl("why", "supervisor").stdout
        filler.unlink()
        wait_for(lambda: "refuses" not in daemon.status()["reason"], "the disk has taken it", 30.0)
        daemon.process.kill()
        daemon.process.wait(10.0)
        daemon.close()
        daemon = Daemon(text, tmp_path)
        daemon.wait_event("pipeline_ready", 2)
        assert (daemon.status()["state"], daemon.status()["held"]) == ("stopped", ["middle"])
    finally:
        daemon.close()
