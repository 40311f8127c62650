"""A real systemd for tests: booted by systemd-nspawn over a throw-away copy of the machine's own root.

The root file system is an overlay (lower: this machine's `/`, upper: a tmpfs), so that the container has
every program of the machine, nothing is built or downloaded, and nothing written inside survives. The
checkout is visible at its own path. Measured on Debian 12 (systemd 252), two cores: 0.3 s from `booted()` to
a running systemd, 0.1 s to end it.

Nothing of the outside has to be undone step by step: the mounts live in a mount namespace of their own and
vanish with its last process, and every process lives in a control group made for this container, which one
write to `cgroup.kill` ends. So a test that is killed half-way leaves processes in one named control group, no
mounts.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

BOOT_S: Final = 30.0
"""Until systemd says READY; 0.3 s when idle, so this is only reached when it will not boot at all."""
COMMAND_S: Final = 60.0
"""Default deadline of one command inside."""
END_S: Final = 10.0
"""Until every process of the container is gone after the kill."""
PROGRAMS: Final = ("systemd-nspawn", "nsenter", "unshare")
TARGET: Final = "harness.target"

SETUP: Final = """
set -eu
root=/run/box/root
for group in "$@"; do echo $$ > "$group/cgroup.procs"; done
mount -t tmpfs -o mode=0755 tmpfs /run
mkdir -p /run/box/upper /run/box/work $root
mount -t overlay -o lowerdir=/,upperdir=/run/box/upper,workdir=/run/box/work overlay $root
rm -rf $root/etc/systemd/system $root/etc/systemd/network
mkdir -p $root/etc/systemd/system
: > $root/etc/machine-id
printf '[Unit]\\nRequires=sysinit.target\\nAfter=sysinit.target\\n' > $root/etc/systemd/system/{target}
exec systemd-nspawn --quiet --boot --directory=$root --machine=box-$$ --notify-ready=yes \\
    --register=no --keep-unit --private-network --console=pipe \\
    --link-journal=no --resolv-conf=off --timezone=off {binds} -- --unit={target}
"""
"""Runs in its own mount namespace. A tmpfs over /run hides the machine's own and takes nspawn's lock files
with it; the machine's enabled units are emptied, for a container that started them too would not be minimal.
`--keep-unit --register=no`: there need be no systemd-machined, not even a systemd, on the outside."""


@dataclass(frozen=True, slots=True)
class Container:
    """A booted systemd. `leader` is the pid, seen from outside, of the container's pid 1."""

    leader: int

    @property
    def root(self) -> Path:
        """The container's `/`, to read and write from outside."""
        return Path(f"/proc/{self.leader}/root")

    def run(
        self, *argv: str, check: bool = True, user: str | None = None, timeout: float = COMMAND_S
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside, as root or `user`. With `check`, a failure shows the command's output."""
        who = ("runuser", "-u", user, "--") if user else ()
        enter = ("nsenter", "--target", str(self.leader), "--all", "--", "env", "--chdir=/")
        done = subprocess.run(
            [*enter, *who, *argv],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"},
        )
        if check and done.returncode != 0:
            pytest.fail(f"{' '.join(argv)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def write(self, path: str, text: str) -> None:
        """Create or replace a file inside, and the directories it needs."""
        target = self.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def show(self, unit: str, *properties: str) -> dict[str, str]:
        """`systemctl show`: the named properties of a unit."""
        done = self.run("systemctl", "show", unit, f"--property={','.join(properties)}")
        return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)

    def journal(self, unit: str) -> str:
        """Every message of a unit so far, and what systemd itself says about it."""
        self.run("journalctl", "--sync")
        return self.run("journalctl", "--unit", unit, "--output=cat", "--no-pager").stdout


def eventually(condition: Callable[[], bool], what: str, deadline_s: float = 15.0) -> float:
    """Wait until `condition` holds and return the seconds it took; past the deadline the test fails, saying
    `what` did not happen."""
    begun = time.monotonic()
    while not condition():
        if time.monotonic() - begun > deadline_s:
            pytest.fail(f"not within {deadline_s} s: {what}")
        time.sleep(0.02)
    return time.monotonic() - begun


def require_systemd() -> None:
    """Skip where a container cannot be booted, with the reason. In CI (CI=true) that is a failure
    instead: there the environment is ours, and a skipped proof would look like a green one."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        reason = f"needs {', '.join(missing)} (Debian: systemd-container, util-linux)"
    elif os.geteuid() != 0:
        reason = "needs root, to mount an overlay and to boot a container"
    else:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must run this test, and it {reason}")
    pytest.skip(reason)


@contextmanager
def booted(directory: Path, shared: Sequence[Path] = ()) -> Iterator[Container]:
    """Boot a systemd; on leaving, whatever happened, end it and everything in it.

    `directory` (a test's tmp_path) gets the console's log and the readiness socket. `shared` paths that the overlay
    does not show, because they are on another file system or in /tmp, are bound read-only at the same place.
    """
    require_systemd()
    groups = _make_groups(f"streampipe-box-{os.getpid()}-{directory.name}")
    console = directory / "console.log"
    process: subprocess.Popen[bytes] | None = None
    leader = 0
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready, console.open("wb") as log:
            ready.bind(str(directory / "ready.sock"))
            process = _start(groups, shared, directory / "ready.sock", log.fileno())
            leader = _wait_ready(ready, process, console)
        yield Container(leader)
    finally:
        if leader:  # its end is the end of its pid namespace; nspawn then reaps it and leaves
            os.kill(leader, signal.SIGKILL)
        elif process is not None:
            process.kill()
        if process is not None:
            process.wait(END_S)
        _kill_groups(groups)
        _remove_groups(groups)


def _start(groups: Sequence[Path], shared: Sequence[Path], ready: Path, log: int) -> subprocess.Popen[bytes]:
    binds = " ".join(f"--bind-ro={path}" for path in shared if _is_hidden(path))
    script = SETUP.replace("{target}", TARGET).replace("{binds}", binds)
    return subprocess.Popen(
        ["unshare", "--mount", "--propagation=private", "sh", "-c", script, "sh", *map(str, groups)],
        # A hybrid v1/v2 host would hand its own layout on; systemd inside works as on any machine with v2
        # alone.
        env={**os.environ, "NOTIFY_SOCKET": str(ready), "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )


def _is_hidden(path: Path) -> bool:
    """The overlay does not show it: it is on another file system, or below a directory that the container has new."""
    return path.stat().st_dev != os.stat("/").st_dev or path.resolve().is_relative_to("/tmp")


def _wait_ready(ready: socket.socket, process: subprocess.Popen[bytes], console: Path) -> int:
    """The leader's pid, as nspawn tells it, once the systemd inside has said READY=1."""
    leader = 0
    deadline = time.monotonic() + BOOT_S
    ready.settimeout(0.5)
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(TimeoutError):
            for line in ready.recv(4096).decode().splitlines():
                if line.startswith("X_NSPAWN_LEADER_PID="):
                    leader = int(line.partition("=")[2])
                if line == "READY=1" and leader:
                    return leader
    return pytest.fail(f"no systemd within {BOOT_S} s:\n{console.read_text(errors='replace')}")


def _make_groups(name: str) -> list[Path]:
    """A control group of our own below the present one, in the v2 and in the systemd v1 hierarchy: without it
    two containers would share `payload`, and there would be no single handle to end everything."""
    present = dict(line.split(":", 2)[1:] for line in Path("/proc/self/cgroup").read_text().splitlines())
    groups = []
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, options, *_ = line.split()
        controller = "" if kind == "cgroup2" else "name=systemd"
        if kind == "cgroup2" or (kind == "cgroup" and "name=systemd" in options.split(",")):
            group = Path(place + present[controller]) / name
            group.mkdir()
            groups.append(group)
    return groups


def _kill_groups(groups: Sequence[Path]) -> None:
    """End every process of the container, at once on v2; on v1 (a hybrid host before Linux 5.14) by pid."""
    for group in groups:
        with suppress(OSError):
            (group / "cgroup.kill").write_text("1")
    for pid in [pid for group in groups for pid in _members(group)]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _members(group: Path) -> list[int]:
    return [int(pid) for file in group.rglob("cgroup.procs") for pid in file.read_text().split()]


def _remove_groups(groups: Sequence[Path]) -> None:
    deadline = time.monotonic() + END_S
    while any(_members(group) for group in groups) and time.monotonic() < deadline:
        time.sleep(0.01)
    for group in groups:
        for place, _, _ in os.walk(group, topdown=False):
            os.rmdir(place)
