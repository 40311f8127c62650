"""Style and types, as tests, so that one command checks everything."""

from __future__ import annotations

import subprocess
import sys

import pytest

from support.tree import REPOSITORY


@pytest.mark.parametrize(
    "command",
    [
        ("ruff", "check", "."),
        ("ruff", "format", "--check", "."),
        ("mypy",),
        (
            "mypy",
            "systemd/install.py",
            "systemd/package.py",
            "docs/man/generate.py",
            "tests/bench",
            "tests/speed",
            "tests/support",
            "tests/tidy",
            "tests/systemd",
        ),
    ],
    ids=" ".join,
)
def test_tool_has_nothing_to_say(command: tuple[str, ...]) -> None:
    """The tool, as pyproject.toml sets it up, finds nothing in the repository."""
    done = subprocess.run([sys.executable, "-m", *command], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
