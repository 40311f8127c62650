"""A command line understood in a fork of the launcher: the same promises as in a fork of one's own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from streampiped.cli import CHECK_S, left
from streampiped.errors import ExitCode
from streampiped.runtime.apart import TIMEOUT_S, ApartError, bring_back
from streampiped.runtime.launch import Launch, execute_launcher
from streampiped.runtime.lent import NoLauncherError, discard, run_lent
from streampiped.runtime.linux import children
from support.config_files import CHAIN, TRANSFORM, written

pytestmark = pytest.mark.system

HANGS = "import signal\nsignal.pause()\n"
CRASHES = "import os\nos.kill(os.getpid(), 11)\n"
LEAVES = """
import subprocess, sys
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
raise ValueError("refused on purpose")
"""


@pytest.fixture
def launch() -> Iterator[Launch]:
    """A launcher that preloads nothing."""
    launch = execute_launcher(())
    yield launch
    if launch.control.fileno() >= 0:
        discard(launch)


def _run_of(module: str, tmp_path: Path) -> list[str]:
    """The arguments of a run whose class is in a module of this text."""
    (tmp_path / "user_module.py").write_text(module)
    text = CHAIN.replace(TRANSFORM, 'class = "user_module:X"')
    file = written(tmp_path, f'[pipeline]\npython_path = ["."]\n{text}')
    return ["run", "--config", str(file), "--state-dir", str(tmp_path / "state"), "--runtime-dir", str(tmp_path)]


def test_class_that_hangs_ends_in_time(launch: Launch, tmp_path: Path) -> None:
    """A check that hangs ends at the timeout, killed; the launcher lives and makes the next one."""
    with pytest.raises(ApartError, match="no answer within 3 s"):
        run_lent(launch, _run_of(HANGS, tmp_path), timeout=3.0)
    assert children() == {launch.pid}
    assert run_lent(launch, ["--version"])["code"] == ExitCode.OK


def test_class_that_crashes_is_named(launch: Launch, tmp_path: Path) -> None:
    """A check that crashes the interpreter says of what it died."""
    with pytest.raises(ApartError, match="killed by SIGSEGV"):
        run_lent(launch, _run_of(CRASHES, tmp_path))


def test_findings_come_out_and_nothing_is_left(
    launch: Launch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """What a check finds goes to our own standard error; what user code has started meanwhile is ended."""
    assert run_lent(launch, _run_of(LEAVES, tmp_path))["code"] == ExitCode.CONFIG
    assert "refused on purpose" in capfd.readouterr().err
    assert children() == {launch.pid}


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSTOP])
def test_lost_launcher_is_no_finding(launch: Launch, signum: signal.Signals) -> None:
    """A launcher that is dead, or deaf, is told apart from a configuration that cannot be checked."""
    os.kill(launch.pid, signum)
    with pytest.raises(NoLauncherError):
        run_lent(launch, ["--version"], timeout=0.5)
    discard(launch)
    assert not children()


def test_the_time_of_the_fork_counts() -> None:
    """The launcher's preload and the check have one time together: what the fork took the answer cannot take again."""

    def fork() -> tuple[int, int]:
        until = time.monotonic() + 0.6  # longer than all of the time
        while time.monotonic() < until:
            pass
        child = subprocess.Popen(["sh", "-c", "sleep 0.3; exit 3"], stdout=subprocess.PIPE, bufsize=0)
        child.returncode = 0  # the waiting is done for it
        assert child.stdout is not None
        return child.pid, os.dup(child.stdout.fileno())

    with pytest.raises(ApartError, match="no answer within"):
        bring_back(fork, 0.5)


def test_a_check_ends_before_systemd_ends_it() -> None:
    """Whenever the launcher is given up, both attempts are over before the unit's TimeoutStartSec=."""
    unit = (Path(__file__).parents[2] / "systemd" / "streampipe.service").read_text()
    limit = float(unit.partition("\nTimeoutStartSec=")[2].partition("s\n")[0])
    assert max(passed + left(passed) for passed in (0.0, 1.0, TIMEOUT_S / 2, TIMEOUT_S)) == CHECK_S
    assert limit > CHECK_S


BROKEN = """
import sys
from streampiped import cli
cli.guess = lambda arguments: ("no_such_module",)
sys.exit(cli.run(sys.argv[1:]))
"""


def test_wrong_file_is_told_without_a_launcher(tmp_path: Path) -> None:
    """When the launcher cannot start, the configuration is checked all the same: its faults are told, exit 78."""
    file = written(tmp_path, "[stages.a]\nclass = 1\n")
    command = [sys.executable, "-c", BROKEN, "run", "--config", str(file)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == ExitCode.CONFIG, done.stderr
    assert "stages.a.class = 1: should be text" in done.stderr
