"""The foreground run: reports, Ctrl-C, going on where one left off, and the figures of a plain loop."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import signal
import subprocess
import termios
from pathlib import Path
from typing import Any

import pytest

from streampiped.runtime.snapshots import StateDirectory
from streampiped.stages.base import StageContext
from streampiped.stages.evaluator import Evaluator, EvaluatorOptions
from streampiped.wire import state as wire_state
from support.daemon import BIN, Daemon, chain, running, simple, wait_for
from support.reference import DATA, STREAMS, reference_results

pytestmark = [pytest.mark.system]

SEED = 42
HOLDOUT = 0.02
HEAD = f"""
[pipeline]
seed = {SEED}
[log_extractor]
enabled = false
[service_monitor]
enabled = false
"""
CHAIN = """
[stages.generator{number}]
class = "generator"
batch_max = {batch}
[stages.generator{number}.source]
type = "csv"
path = "{path}"
[stages.normalizer{number}]
class = "normalizer"
input = "generator{number}"
target = "{target}"
[stages.consumer{number}]
class = "consumer"
input = "normalizer{number}"
[stages.trainer{number}]
class = "trainer"
input = "consumer{number}"
target = "{target}"
holdout = {holdout}
[stages.evaluator{number}]
class = "evaluator"
input = "trainer{number}"
trainer = "trainer{number}"
target = "{target}"
holdout = {holdout}
"""
SIDE_BY_SIDE = [(name, batch) for name in sorted(STREAMS) for batch in (16, 64)]
"""Chain 0, 1, ... of one daemon: the file and the size of its batches."""


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What the evaluator of each chain has scored in all, as its snapshot of the last epoch knows it; the daemon's
    report is word for word that of one of them."""
    directory = tmp_path_factory.mktemp("side-by-side")
    chains = [
        CHAIN.format(number=number, batch=batch, path=DATA / name, target=STREAMS[name], holdout=HOLDOUT)
        for number, (name, batch) in enumerate(SIDE_BY_SIDE)
    ]
    with running(HEAD + "".join(chains), directory) as daemon:
        wait_for(lambda: daemon.status()["state"] == "finished", "the streams have ended")
        reported = daemon.call("report")["results"]
    for section in ("model", "gate"):  # of other stages
        reported.pop(section, None)
    found = [snapshot_results(directory, f"evaluator{number}") for number in range(len(SIDE_BY_SIDE))]
    assert reported in found
    return [results["total"] for results in found]


def snapshot_results(directory: Path, stage: str) -> dict[str, Any]:
    """The results that an evaluator reports when it is restored from the newest epoch."""
    state = StateDirectory(directory / "state", "streampipe", create=False)
    try:
        manifest = state.newest().manifest
        assert manifest is not None
        data = (state.epochs / manifest.parts[stage][0]).read_bytes()
    finally:
        state.close()
    evaluator = Evaluator(EvaluatorOptions(holdout=HOLDOUT), StageContext(name=stage))
    evaluator.restore(wire_state.unpack(data, manifest.shape[stage]))
    results: dict[str, Any] = evaluator.query("report", {})["results"]
    return results


@pytest.mark.parametrize(("number", "name", "batch"), [(n, *each) for n, each in enumerate(SIDE_BY_SIDE)])
def test_daemon_equals_the_stages_called_in_a_row(
    scores: list[dict[str, Any]], number: int, name: str, batch: int
) -> None:
    """On real streams the scores that the whole pipeline reports are bit for bit those of its stages called one after
    the other in one process over the same batches."""
    assert scores[number] == reference_results(name, batch, seed=SEED, number=number)["total"]


def test_bounded_run_reports_and_exits_0(tmp_path: Path) -> None:
    """`run --until-finished` on a bounded stream ends by itself with 0 and the last stage's report on stdout."""
    daemon = Daemon(simple(count="records = 100000", rate="0/s"), tmp_path, "--until-finished")
    try:
        assert daemon.wait(60.0) == 0
        assert f"rows 100000 sum {100_000 * 99_999 // 2}" in daemon.out
    finally:
        daemon.close()


def test_interrupted_run_drains_reports_and_goes_on(tmp_path: Path) -> None:
    """SIGINT drains, reports and exits 0; started again, the run goes on where it was: every record counts once."""
    records = 200_000
    daemon = Daemon(simple(count=f"records = {records}"), tmp_path, "--until-finished")
    try:
        daemon.wait_running()
        daemon.wait_progress(10_000)
        daemon.process.send_signal(signal.SIGINT)
        assert daemon.wait(60.0) == 0
        rows = int(daemon.out.split("rows ")[1].split()[0])
        assert 0 < rows < records
    finally:
        daemon.close()
    again = Daemon(simple(count=f"records = {records}", rate="0/s"), tmp_path, "--until-finished")
    try:
        assert again.wait(60.0) == 0
        assert f"rows {records} sum {records * (records - 1) // 2}" in again.out
    finally:
        again.close()


def test_nothing_lost_or_doubled_across_kills(tmp_path: Path) -> None:
    """With stages killed on the way, the end state is that of an undisturbed run."""
    records = 200_000
    head = '\n[supervision]\nmax_restarts = 1000\n[checkpoint]\ninterval = "200ms"\n'
    daemon = Daemon(simple(head=head, count=f"records = {records}"), tmp_path, "--until-finished")
    try:
        daemon.wait_running()
        for name in ("count", "middle", "total", "middle"):
            daemon.wait_progress(5_000)
            os.kill(daemon.pids()[name], signal.SIGKILL)
            daemon.wait_event("generation_started", len(daemon.events("generation_started")) + 1)
        assert daemon.wait(60.0) == 0
        assert f"rows {records} sum {records * (records - 1) // 2}" in daemon.out
    finally:
        daemon.close()


def test_terminal_shows_progress_and_ctrl_c_works(tmp_path: Path) -> None:
    """On a terminal the run shows a live display, and Ctrl-C ends it with a report and 0."""
    config = tmp_path / "streampipe.toml"
    config.write_text(chain('rate = "20k/s"'))
    ours, theirs = pty.openpty()
    command = [
        str(BIN / "streampiped"), "run", "--config", str(config), "--until-finished",
        "--state-dir", str(tmp_path / "s"), "--runtime-dir", str(tmp_path / "r"),
    ]  # fmt: skip
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, "LOGS_DIRECTORY": str(tmp_path / "l")},
        preexec_fn=lambda: (os.setsid(), fcntl.ioctl(0, termios.TIOCSCTTY, 0)),
    )  # fmt: skip
    os.close(theirs)
    shown = b""

    def read_until(what: bytes, seconds: float) -> None:
        nonlocal shown
        os.set_blocking(ours, False)

        def there() -> bool:
            nonlocal shown
            with contextlib.suppress(OSError):
                shown += os.read(ours, 65536)
            return what in shown

        wait_for(there, f"{what!r} on the terminal", seconds)

    try:
        read_until(b"R2 ", 30.0)
        os.write(ours, b"\x03")
        read_until(b"model, all rows", 30.0)
        assert process.wait(30.0) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(10.0)
        os.close(ours)
