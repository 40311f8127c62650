"""What the kernel's scheduler says of real processes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from streampiped.runtime.scheduled import scheduled, scheduled_with_children
from support.daemon import wait_for

pytestmark = pytest.mark.system

PARENT = "import os, signal\npid = os.fork()\nwhile not pid: pass\nsignal.pause()"


def test_who_waits_for_a_busy_child_is_busy() -> None:
    """A process that sleeps while a child of it wants the CPU counts as one that wants it, with the time of both."""
    with subprocess.Popen([sys.executable, "-c", PARENT], start_new_session=True) as parent:
        try:
            wait_for(lambda: scheduled_with_children(parent.pid).cpu > scheduled(parent.pid).cpu + 0.1, "a busy child")
            wait_for(lambda: scheduled(parent.pid).kernel == "S", "the parent sleeps")
            assert scheduled_with_children(parent.pid).kernel == "R"
        finally:
            for pid in (*_children(parent.pid), parent.pid):
                subprocess.run(["kill", "-KILL", str(pid)], check=False)


def _children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]
