"""A file that is followed and rotated, and one that is written, while everything is killed: every line exactly once."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from support.daemon import Daemon, wait_for
from support.law import PATIENT, Chaos
from support.rotations import WAYS, Writer

pytestmark = [pytest.mark.system, pytest.mark.slow]

SEED = int(os.environ.get("STREAMPIPE_LAW_SEED", "16"))
STEPS = int(os.environ.get("STREAMPIPE_LAW_STEPS", "14"))
SIZES = (0, 1, 3, 60, 500, 1500)
"""Lines of a step: none, so few that only the header tells the files apart, and more than one batch."""
FOLLOW = """
[stages.generator]
class = "generator"
source = {{ type = "csv", path = "{path}", follow = true }}
batch_max = 256
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


class Run:
    """The daemon, the program that writes its file, and what disturbs both."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.chaos = Chaos(SEED)
        self.rng = self.chaos.rng
        ways = self.rng.choice((WAYS, WAYS, WAYS[:1], WAYS[1:2], WAYS[2:]))
        self.writer = Writer(root / "in.csv", self.rng, ways=ways)
        self.text = PATIENT.format(interval="50ms") + FOLLOW.format(path=root / "in.csv")
        self.daemon = Daemon(self.text, root)

    def step(self) -> None:
        """Lines, perhaps a rotation with a death in the middle of it, a death, and perhaps the supervisor's."""
        self.writer.write(self.rng.choice(SIZES))
        if self.rng.random() < 0.5:
            for _ in self.writer.rotate():
                if self.rng.random() < 0.3:
                    self.chaos.strike(self.daemon)
        self.chaos.pause(0.2)
        self.chaos.strike(self.daemon)
        if self.rng.random() < 0.2:
            self.restart()

    def restart(self) -> None:
        """Kill the supervisor; while nobody is there the file is written and rotated a few times."""
        self.daemon.process.kill()
        self.daemon.process.wait(10.0)
        self.daemon.close()
        for _ in range(self.rng.randrange(4)):
            self.writer.write(self.rng.choice(SIZES))
            for _ in self.writer.rotate():
                pass
        self.daemon = Daemon(self.text, self.root)
        self.daemon.wait_running()


def test_followed_file_into_json_lines(tmp_path: Path) -> None:
    """While a program appends to a CSV file, whole lines and parts of them, and rotates it by renaming it with dates or
    numbers, and by copytruncate, and stages, the launcher and the supervisor are killed at any time, the committed part
    of the JSON Lines file only grows, and at the end has every line once, in order."""
    run, seen = Run(tmp_path), 0
    try:
        run.daemon.wait_running()
        wait_for(lambda: run.daemon.status()["epoch"] is not None, "where the stream begins is committed")
        for _ in range(STEPS):
            run.step()
            rows = committed(tmp_path / "state")
            assert rows == list(range(len(rows)))
            assert len(rows) >= seen
            seen = len(rows)
        run.writer.finish_line()
        expected = run.writer.written
        wait_for(lambda: len(committed(tmp_path / "state")) >= expected, "everything is committed", 30.0)
        assert committed(tmp_path / "state") == list(range(expected))
        assert run.chaos.done.total() >= 3 * STEPS // 4, run.chaos.done
    finally:
        run.daemon.close()
