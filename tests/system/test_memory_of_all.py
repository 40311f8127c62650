"""What all processes of the pipeline have in memory together, on the real daemon at full speed."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from speed import usage
from speed.peer_streampipe import config
from speed.work import Work
from support.daemon import running, wait_for

pytestmark = [pytest.mark.system, pytest.mark.slow]

RECORDS: Final = 1_500_000  # as in docs/performance.md
FEWER: Final = 600_000
"""With all members, which take 5 times as long; all of them have begun to answer by then."""
FINISHED_S: Final = 300.0
UNUSED: Final = ("/pandas/", "/pyarrow/", "/scipy/stats/")


@dataclass(frozen=True, slots=True)
class Bound:
    """`mib_max`: the largest sum of PSS. A page that a stranger shares counts for less, so neighbours never add."""

    text: str
    mib_max: float


ALONE: Final = config(Work(RECORDS))
ALL: Final = config(Work(FEWER, members=(), services=True))
BOUNDS: Final = {
    # 225 to 229 were measured; 333 with pandas and pyarrow, and all that scikit-learn imports. The target is 250
    "five stages": Bound(ALONE, 250.0),
    # 237 to 243, and 357
    "services and all members": Bound(ALL, 270.0),
}


@pytest.mark.parametrize("name", BOUNDS)
def test_all_processes_together(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """At full speed, up to the end of the stream, the sum of PSS over supervisor, launcher, warden and stages is
    bounded, and none of them has loaded a library that no stage uses."""
    bound = BOUNDS[name]
    with running(bound.text) as daemon:
        with usage.Peak(daemon.process.pid) as peak:
            wait_for(lambda: daemon.events("pipeline_finished"), "it ends", FINISHED_S)
        pids = usage.family(daemon.process.pid)
        loaded = _loaded(pids)
    with capsys.disabled():
        print(f"\n{name}: {peak.mib:.0f} MiB in {len(pids)} processes", end="")
    assert not loaded
    assert peak.mib <= bound.mib_max


@pytest.mark.skipif(importlib.util.find_spec("pandas") is None, reason="a stage that is built on pandas")
def test_a_stage_may_be_built_on_pandas() -> None:
    """A user's stage imports pandas behind a launcher that has scikit-learn without it: scikit-learn takes data frames
    there and gives them, and the stage has what nobody else has loaded."""
    stages = config(Work(FEWER)).replace('input = "generator"', 'input = "framed"')
    stages += '[stages.framed]\nclass = "support.frame_stage:Framed"\ninput = "generator"\n'
    with running(stages) as daemon:
        wait_for(lambda: daemon.events("pipeline_finished"), "it ends", FINISHED_S)
        assert not daemon.events("stage_failed")
        assert daemon.status()["processes"][-1]["records_in"] == FEWER
        assert _loaded([daemon.pids()["framed"]])
        assert not _loaded([daemon.launcher_pid(), daemon.pids()["trainer"]])


def _loaded(pids: Iterable[int]) -> set[str]:
    """Of UNUSED, what processes have mapped."""
    text = "".join(Path(f"/proc/{pid}/maps").read_text() for pid in pids)
    return {part for part in UNUSED if part in text}
