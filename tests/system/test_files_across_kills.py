"""A file that is followed and rotated, and one that is written, while everything is killed: every line exactly once."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from support.daemon import Daemon, wait_for
from support.law import PATIENT, Chaos

pytestmark = [pytest.mark.system, pytest.mark.slow]

SEED = int(os.environ.get("STREAMPIPE_LAW_SEED", "16"))
STEPS = int(os.environ.get("STREAMPIPE_LAW_STEPS", "16"))
LINES_PER_STEP = 500
FOLLOW = """
[stages.generator]
class = "generator"
source = {{ type = "csv", path = "{path}", follow = true }}
[stages.consumer]
class = "consumer"
input = "generator"
sink = {{ type = "jsonl" }}
"""


def committed(state: Path) -> list[int]:
    """Column n of the lines that a reader may rely on."""
    directory = state / "stages" / "consumer"
    try:
        visible = json.loads((directory / "records.jsonl.epochs").read_text())["visible_bytes"]
    except FileNotFoundError:
        return []
    lines = (directory / "records.jsonl").read_bytes()[:visible].splitlines()
    return [int(json.loads(line)["n"]) for line in lines]


def test_followed_file_into_json_lines(tmp_path: Path) -> None:
    """While a program appends to a CSV file and rotates it, and stages, the launcher and the supervisor are killed at
    any time, the committed part of the JSON Lines file only grows, and at the end has every line once, in order."""
    path = tmp_path / "in.csv"
    path.write_text("n\n")
    text = PATIENT.format(interval="50ms") + FOLLOW.format(path=path)
    chaos, written, seen = Chaos(SEED), 0, 0
    daemon = Daemon(text, tmp_path)
    try:
        daemon.wait_running()
        wait_for(lambda: daemon.status()["epoch"] is not None, "where the stream begins is committed")
        for step in range(1, STEPS + 1):
            with path.open("a") as file:
                file.writelines(f"{n}\n" for n in range(written, written + LINES_PER_STEP))
            written += LINES_PER_STEP
            if step % 3 == 0:  # logrotate: rename and create
                path.rename(path.with_name(f"in.csv-{20260100 + step}"))
                path.write_text("n\n")
            chaos.pause(0.2)
            chaos.strike(daemon)
            if step % 5 == 0:
                daemon.process.kill()
                daemon.process.wait(10.0)
                daemon.close()
                daemon = Daemon(text, tmp_path)
                daemon.wait_running()
            rows = committed(tmp_path / "state")
            assert rows == list(range(len(rows)))
            assert len(rows) >= seen
            seen = len(rows)
        wait_for(lambda: len(committed(tmp_path / "state")) >= written, "everything is committed", 30.0)
        assert committed(tmp_path / "state") == list(range(written))
        assert chaos.done.total() >= 3 * STEPS // 4, chaos.done
    finally:
        daemon.close()
