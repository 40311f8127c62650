"""The container harness itself: a real systemd runs our unit, and nothing of it stays."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.nspawn import Container, booted, eventually

pytestmark = [pytest.mark.systemd, pytest.mark.xdist_group("systemd")]

UNIT = """
[Service]
Type=notify
NotifyAccess=all
ExecStart=/bin/sh -c 'echo begun; systemd-notify --ready; exec sleep infinity'
Restart=always
RestartSec=0
"""


def test_notify_service_starts_and_is_restarted(box: Container) -> None:
    """A Type=notify service is active when `systemctl start` returns, and comes back after a SIGKILL."""
    box.write("/etc/systemd/system/trivial.service", UNIT)
    box.run("systemctl", "daemon-reload")
    box.run("systemctl", "start", "trivial")
    first = box.show("trivial", "MainPID", "ActiveState")
    assert first["ActiveState"] == "active"
    box.run("kill", "-KILL", first["MainPID"])
    eventually(lambda: box.show("trivial", "NRestarts")["NRestarts"] == "1", "systemd restarts the service", 60.0)
    eventually(lambda: box.journal("trivial").count("begun") == 2, "the second one says that it has begun", 60.0)
    box.run("systemctl", "stop", "trivial")


def test_command_failure_is_told(box: Container) -> None:
    """A command that fails inside gives its exit code, and fails the test unless it was expected."""
    assert box.run("sh", "-c", "exit 7", check=False).returncode == 7
    with pytest.raises(pytest.fail.Exception, match="exit 7"):
        box.run("sh", "-c", "exit 7")


def test_nothing_stays_behind(tmp_path: Path) -> None:
    """After a container no process, mount or control group of it is left, even when the test failed."""
    leaders: list[int] = []
    with pytest.raises(RuntimeError, match="inside"):
        _fail_inside(tmp_path, leaders)
    with pytest.raises(ProcessLookupError):
        os.kill(leaders[0], 0)
    assert "/run/box" not in Path("/proc/self/mounts").read_text()
    assert not Path("/etc/written-inside").exists()
    assert not list(Path("/sys/fs/cgroup").rglob(f"streampipe-box-{os.getpid()}-{tmp_path.name}"))


def _fail_inside(directory: Path, leaders: list[int]) -> None:
    with booted(directory) as container:
        leaders.append(container.leader)
        container.write("/etc/written-inside", "x")
        container.run("systemd-run", "--quiet", "sleep", "1000")
        raise RuntimeError("inside")
