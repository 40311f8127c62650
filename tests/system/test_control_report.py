"""`streampipectl report` as a process: what scripts read of it, and terminals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.control_backend import DEADLINE_S, Daemon, running

pytestmark = pytest.mark.system


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with running(tmp_path) as started:
        yield started


def report(daemon: Daemon, *words: str, encoding: str = "utf-8") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "streampipectl.app", "--socket", daemon.path, "report", *words],
        env={**os.environ, "PYTHONIOENCODING": encoding}, capture_output=True, encoding=encoding,
        timeout=DEADLINE_S, check=False,
    )  # fmt: skip


def answer(verdict: str | None) -> dict[str, Any]:
    results = {"rows": 5} if verdict is None else {"rows": 5, "verdict": verdict}
    return {"text": "So and so.\n\nmodel ▁▄█", "results": results, "operations": {"epoch": 7}}


@pytest.mark.parametrize("words", [(), ("--json",)])
@pytest.mark.parametrize(("verdict", "code"), [("good", 0), ("not_better", 1), ("not_enough_data", 2), (None, 0)])
def test_the_verdict_is_the_exit_code(daemon: Daemon, words: tuple[str, ...], verdict: str | None, code: int) -> None:
    """0 good, 1 not better than guessing, 2 not enough data, as text and as JSON, with nothing on stderr; a report of
    somebody's that has no verdict is 0."""
    daemon.backend.reported = answer(verdict)
    done = report(daemon, *words)
    assert (done.returncode, done.stderr) == (code, "")
    if words:
        assert json.loads(done.stdout) == answer(verdict)
    else:
        assert done.stdout == "So and so.\n\nmodel ▁▄█\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_bars_are_drawn_on_a_terminal_that_has_no_blocks(daemon: Daemon, encoding: str) -> None:
    """Where the encoding has no block characters, bars of ASCII stand in their places."""
    daemon.backend.reported = answer("good")
    assert report(daemon, encoding=encoding).stdout.splitlines()[-1] == "model .=#"
