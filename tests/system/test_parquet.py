"""Parquet files while the process that writes them is killed: a reader of the directory sees every row exactly once."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pyarrow.compute
import pyarrow.dataset
import pytest

from support.daemon import Daemon, running, wait_for
from support.law import PATIENT, Chaos

pytestmark = pytest.mark.system

SEED = int(os.environ.get("STREAMPIPE_LAW_SEED", "18"))
KILLS = 12
RECORDS = 120_000
RATE = 20_000
"""Records a second: 6 s of stream, so that there is something to kill all the while."""
STORED = f"""
[stages.generator]
class = "generator"
source = {{ type = "synthetic", records = {RECORDS} }}
rate = "{RATE}/s"
[stages.consumer]
class = "consumer"
input = "generator"
derived = {{ double = "x1 * 2" }}
sink = {{ type = "parquet" }}
"""


def positions(state: Path) -> list[int]:
    """As a reader of the directory sees them, at any time."""
    data = state / "stages" / "consumer" / "records.parquet" / "data"
    if not data.exists() or not any(data.iterdir()):
        return []
    table = pyarrow.dataset.dataset(data).to_table(["position", "x1", "double"], use_threads=False)
    known = table.filter(pyarrow.compute.is_valid(table["x1"]))
    assert (known["double"].to_numpy() == 2 * known["x1"].to_numpy()).all()
    found: list[int] = table["position"].to_pylist()
    return found


def kill(daemon: Daemon, before: int | None) -> int:
    """SIGKILL to a consumer that is not the one of `before`."""
    pid = wait_for(lambda: (there := daemon.pids().get("consumer")) != before and there, "there is another consumer")
    assert pid
    os.kill(pid, signal.SIGKILL)
    return pid


def test_every_row_once_while_the_consumer_is_killed(tmp_path: Path) -> None:
    """Whenever somebody reads, the rows are those from the first on, each once, and never fewer than before; at the end
    they are all there, and nothing else is in the directory."""
    chaos, seen, killed = Chaos(SEED), 0, None
    with running(PATIENT.format(interval="50ms") + STORED, tmp_path) as daemon:
        for _ in range(KILLS):
            chaos.pause(0.4)
            killed = kill(daemon, killed)
            rows = positions(daemon.state)
            assert rows == list(range(len(rows)))
            assert len(rows) >= seen
            seen = len(rows)
        wait_for(lambda: daemon.status()["state"] == "finished", "the stream ends", 60.0)
        assert positions(daemon.state) == list(range(RECORDS))
        prepared = daemon.state / "stages" / "consumer" / "records.parquet" / "prepared"
        assert list(prepared.iterdir()) == []
