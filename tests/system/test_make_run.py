"""`make run`, as a newcomer types it on a terminal."""

from __future__ import annotations

import os
import pty
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from select import select

import pytest

from support.tree import REPOSITORY

pytestmark = [pytest.mark.system, pytest.mark.timeout(90)]

CTRL_C = b"\x03"
CTRL_Z = b"\x1a"
DEADLINE_S = 60.0
"""For a line to come, or for the end: a cold start takes 2 s, the whole bounded stream about 20 s."""


@dataclass(slots=True)
class Terminal:
    """A command on a terminal of its own."""

    pid: int
    descriptor: int
    shown: bytes = b""
    ended: int | None = field(default=None)

    def wait_for(self, text: bytes) -> None:
        while text not in self.shown:
            assert self._read(), f"the command ended before it said {text!r}:\n{self.shown.decode()}"

    def type(self, keys: bytes) -> None:
        os.write(self.descriptor, keys)

    def exit_code(self) -> int:
        """What the shell would call `$?`, once everything that the command said has been read."""
        while self._read():
            pass
        self.ended = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.ended

    def _read(self) -> bool:
        ready, _, _ = select([self.descriptor], [], [], DEADLINE_S)
        assert ready, f"silent for {DEADLINE_S} s:\n{self.shown.decode()}"
        with suppress(OSError):  # EIO: nobody has the terminal open any more
            chunk = os.read(self.descriptor, 1 << 16)
            self.shown += chunk
            return bool(chunk)
        return False


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    """`make run` in a directory of its own, with the environment of these tests."""
    (tmp_path / "etc").mkdir()
    shutil.copy2(REPOSITORY / "etc" / "streampipe.toml", tmp_path / "etc")
    shutil.copy2(REPOSITORY / "pyproject.toml", tmp_path)
    environment = Path(sys.prefix)
    made = f"--old-file={environment}/installed"
    pid, descriptor = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        os.execvp("make", ["make", f"--file={REPOSITORY}/Makefile", f"VENV={environment}", made, "run"])
    each = Terminal(pid, descriptor)
    yield each
    if each.ended is None:
        with suppress(ProcessLookupError):
            os.killpg(os.tcgetpgrp(descriptor), signal.SIGKILL)
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    os.close(descriptor)


def test_ctrl_c_drains_reports_and_exits_0(terminal: Terminal) -> None:
    """Ctrl-C while records flow ends `make run` with the report and exit 0, without a complaint of make; Ctrl-Z before
    it does nothing."""
    terminal.wait_for(b"first batch of generation 1")
    terminal.type(CTRL_Z)
    terminal.type(CTRL_C)
    begun = time.monotonic()
    assert terminal.exit_code() == 0, terminal.shown.decode()
    print(f"Ctrl-C to the end: {time.monotonic() - begun:.2f} s")
    assert b"R2" in terminal.shown
    assert b"make:" not in terminal.shown
    assert b"Traceback" not in terminal.shown


def test_ctrl_c_during_the_start_exits_0(terminal: Terminal) -> None:
    """Ctrl-C while processes are still being started ends `make run` quietly with exit 0."""
    terminal.wait_for(b"started, 5 stages")
    terminal.type(CTRL_C)
    assert terminal.exit_code() == 0, terminal.shown.decode()
    assert b"Traceback" not in terminal.shown
