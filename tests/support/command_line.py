"""`streampiped` without an interpreter of its own: where a test is about the words and the exit code alone."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from streampiped.cli import run


def typed(capfd: pytest.CaptureFixture[str], *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The command with these arguments, and what it says. As ever it reads the configuration in a process that is
    thrown away. Not for `streampiped run`, which executes a launcher that ends with the process."""
    assert arguments[0] != "run", arguments
    capfd.readouterr()
    code = run(list(map(str, arguments)))
    return subprocess.CompletedProcess(arguments, code, *capfd.readouterr())
