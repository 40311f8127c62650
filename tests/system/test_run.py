"""The foreground run: reports, Ctrl-C, going on where one left off, and the figures of a plain loop."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import signal
import subprocess
import termios
import zlib
from pathlib import Path

import pytest

from streampiped.records import Batch, Span, held_out
from support.daemon import BIN, Daemon, chain, running, simple, wait_for
from support.reference import DATA, STREAMS, read_stream, reference_scores

pytestmark = [pytest.mark.system]

SEED = 42
HOLDOUT = 0.02
CHAIN = """
[pipeline]
seed = {seed}
[stages.generator]
class = "generator"
batch_max = {batch}
[stages.generator.source]
type = "csv"
path = "{path}"
[stages.normalizer]
class = "normalizer"
input = "generator"
target = "{target}"
[stages.consumer]
class = "consumer"
input = "normalizer"
[stages.trainer]
class = "trainer"
input = "consumer"
target = "{target}"
holdout = {holdout}
[stages.evaluator]
class = "evaluator"
input = "trainer"
target = "{target}"
holdout = {holdout}
"""


@pytest.mark.parametrize("name", sorted(STREAMS))
@pytest.mark.parametrize("batch", [16, 64])
def test_daemon_equals_the_plain_loop(name: str, batch: int, tmp_path: Path) -> None:
    """On real streams the MSE and R2 that the whole pipeline reports equal those of a plain loop over the same batches
    to 1e-12."""
    target = STREAMS[name]
    config = CHAIN.format(seed=SEED, batch=batch, path=DATA / name, target=target, holdout=HOLDOUT)
    with running(config, tmp_path) as daemon:
        wait_for(lambda: daemon.status()["state"] == "finished", "the stream has ended")
        results = daemon.call("report")["results"]
    columns = read_stream(name)
    rows = len(columns[target])
    spare = held_out(SEED, Batch.build({}, spans=(Span("generator", 0, rows),)), HOLDOUT)
    wanted = reference_scores(columns, target, batch, held_out=spare, seed=zlib.crc32(f"{SEED}:trainer".encode()))
    found = results["total"]
    assert found["rows"] == rows
    assert found["mse"] == pytest.approx(wanted["mse"], rel=1e-12)
    assert found["r2"] == pytest.approx(wanted["r2"], rel=1e-12)


def test_bounded_run_reports_and_exits_0(tmp_path: Path) -> None:
    """`run --until-finished` on a bounded stream ends by itself with 0 and the last stage's report on stdout."""
    daemon = Daemon(simple(count="records = 100000"), tmp_path, "--until-finished")
    try:
        assert daemon.wait(60.0) == 0
        assert f"rows 100000 sum {100_000 * 99_999 // 2}" in daemon.out
    finally:
        daemon.close()


def test_interrupted_run_drains_reports_and_goes_on(tmp_path: Path) -> None:
    """SIGINT drains, reports and exits 0; started again, the run goes on where it was: every record counts once."""
    records = 2_000_000
    config = simple(count=f"records = {records}", middle='max_rate = "1M/s"')
    daemon = Daemon(config, tmp_path, "--until-finished")
    try:
        daemon.wait_running()
        daemon.wait_progress(10_000)
        daemon.process.send_signal(signal.SIGINT)
        assert daemon.wait(60.0) == 0
        rows = int(daemon.out.split("rows ")[1].split()[0])
        assert 0 < rows < records
    finally:
        daemon.close()
    again = Daemon(config, tmp_path, "--until-finished")
    try:
        assert again.wait(60.0) == 0
        assert f"rows {records} sum {records * (records - 1) // 2}" in again.out
    finally:
        again.close()


def test_nothing_lost_or_doubled_across_kills(tmp_path: Path) -> None:
    """With stages killed on the way, the end state is that of an undisturbed run."""
    records = 2_000_000
    head = '\n[supervision]\nmax_restarts = 1000\n[checkpoint]\ninterval = "200ms"\n'
    daemon = Daemon(
        simple(head=head, count=f"records = {records}", middle='max_rate = "1M/s"'), tmp_path, "--until-finished"
    )
    try:
        daemon.wait_running()
        for name in ("count", "middle", "total", "middle"):
            daemon.wait_progress(50_000)
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
