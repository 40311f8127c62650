"""A disk that answers fsync with EIO: nobody dies, nothing is lost, and it goes on by itself when that is over."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from support.daemon import Daemon, wait_for
from support.law import config, hold_out, undisturbed

pytestmark = [
    pytest.mark.system,
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace, which makes system calls fail, is missing"),
]

RECORDS = 60_000


@contextlib.contextmanager
def fsync_fails(pids: Sequence[int]) -> Iterator[None]:
    """Every fsync and rename of these processes is answered with EIO, and not done."""
    calls = "fsync,fdatasync,rename,renameat,renameat2"
    attached = [word for pid in pids for word in ("-p", str(pid))]
    tracer = subprocess.Popen(
        ["strace", "-f", "-e", f"trace={calls}", "-e", f"inject={calls}:error=EIO", "-o", os.devnull, *attached],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert tracer.stderr is not None
    try:
        for _ in pids:  # with all its threads
            assert "attached" in tracer.stderr.readline()
        yield
    finally:
        tracer.terminate()
        tracer.communicate(timeout=10.0)


def test_failing_fsyncs_are_waited_out(tmp_path: Path) -> None:
    """While the fsyncs of the supervisor (manifests), of the sink, or of everybody fail, the pipeline says 'degraded'
    and why; afterwards it goes on by itself, with the same processes, and the outcome is exact."""
    (tmp_path / "calm").mkdir()
    calm = undisturbed(config(RECORDS), tmp_path / "calm")
    daemon = Daemon(config(RECORDS, rate="20k/s"), tmp_path)
    try:
        daemon.wait_running()
        pids = daemon.pids()
        stages = [pids[name] for name in ("generator", "normalizer", "consumer")]
        for victims in ([daemon.process.pid], [pids["consumer"]], [daemon.process.pid, *stages]):
            assert daemon.ctl("checkpoint").returncode == 0
            with fsync_fails(victims):
                status = daemon.wait_degraded()
            reason = status["reason"].lower()
            assert "input/output error" in reason or "disk i/o error" in reason, reason
            wait_for(lambda: daemon.status()["state"] != "degraded", "it goes on by itself", 30.0)
        hold_out(daemon, pids, calm)
    finally:
        daemon.close()
