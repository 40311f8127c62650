"""Sinks on a disk that is full at any moment: a small tmpfs, filled and freed."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from streampiped.errors import StorageError
from streampiped.sinks import parquet_merge
from streampiped.sinks import sqlite as sqlite_module
from streampiped.sinks.base import Sink
from streampiped.sinks.queued import QueuedSink
from support.sinks import KINDS
from support.streams import numbered

pytestmark = pytest.mark.system

DISK_BYTES = 16 << 20
ROWS_MAX = 3000
PAGE = 4096
UNMOUNT_S = 10.0

Step = tuple[str, int]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("rows"), st.integers(1, ROWS_MAX)),
        st.tuples(st.just("epoch"), st.integers(1, 2)),
        st.tuples(st.just("lost"), st.just(0)),
    ),
    min_size=3,
    max_size=12,
)


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file system of DISK_BYTES."""
    path = tmp_path_factory.mktemp("disk")
    if os.geteuid():
        pytest.skip("mounting a small tmpfs needs root")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
    yield path
    _unmount(path)


def _unmount(path: Path) -> None:
    """A look at the file system by anybody on the machine keeps it busy for a moment; a file that a sink has left open
    keeps it for good."""
    ends = time.monotonic() + UNMOUNT_S
    while (done := subprocess.run(["umount", str(path)], capture_output=True, text=True, check=False)).returncode:
        assert time.monotonic() < ends, f"{done.stderr.strip()}; open here: {_open_files(path)}"


def _open_files(path: Path) -> list[str]:
    """What this process has open below the path."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/self/fd/{name}"))
    return [name for name in found if name.startswith(str(path))]


@pytest.fixture(scope="module")
def _small_log() -> Iterator[None]:
    """A write-ahead log that is copied back often, files that are merged soon: more places where a disk can be full."""
    patch = pytest.MonkeyPatch()
    patch.setattr(parquet_merge, "MERGE_FILES", 2)
    patch.setattr(parquet_merge, "RETRY_EPOCHS", 1)
    patch.setattr(sqlite_module, "CHECKPOINT_PAGES", 20)
    yield
    patch.undo()


class Pipeline:
    """Feeds one sink, as a generation after another does: what was not committed comes again."""

    def __init__(self, kind: str, directory: Path) -> None:
        make, self.seen = KINDS[kind]
        self.directory = directory
        self.sink: Sink = QueuedSink(make(directory), lambda: None)
        self.sink.rollback(None)
        self.epoch = 0
        self.committed: tuple[int | None, int] = (None, 0)  # epoch and rows, the manifest's word
        self.given = 0

    def step(self, kind: str, count: int) -> None:
        match kind:
            case "rows":
                self.sink.write(numbered(self.given, count))
                self.given += count
            case "epoch":
                self.epoch += count
                self.sink.prepare(self.epoch)
                self.committed = (self.epoch, self.given)
                self.sink.commit(self.epoch)
            case "lost":
                self.reset()

    def reset(self) -> None:
        self.sink.rollback(self.committed[0])
        self.given = self.committed[1]

    def finish(self) -> None:
        self.step("rows", 100)
        self.step("epoch", 1)

    def check(self) -> None:
        assert [row[1] for row in self.seen(self.directory)] == list(range(self.committed[1]))


def fill(disk: Path, left: int) -> None:
    """Take all room but about `left` bytes."""
    status = os.statvfs(disk)
    with (disk / "ballast").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(PAGE, status.f_bavail * status.f_frsize - left))


@pytest.mark.parametrize("kind", KINDS)
@given(
    steps=STEPS,
    full_at=st.integers(0, 11),
    left=st.integers(0, 100).map(lambda pages: pages * PAGE),
    again=st.booleans(),
)
@settings(
    max_examples=60,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow],
)
@pytest.mark.usefixtures("_small_log")
def test_a_full_disk_costs_time_and_no_row(
    disk: Path, kind: str, steps: list[Step], full_at: int, left: int, again: bool
) -> None:
    """Filled before any step, with any room left, and freed after the failure: rolled back to the last committed epoch
    and fed again, the sink shows exactly the rows. Rolling back while the disk is still full harms nothing."""
    directory = disk / "sink"
    directory.mkdir()
    pipeline = Pipeline(kind, directory)
    try:
        for number, step in enumerate(steps):
            if number == full_at:
                fill(disk, left)
            try:
                pipeline.step(*step)
            except StorageError:
                with pytest.raises(StorageError, match="must be written again"):
                    pipeline.sink.prepare(pipeline.epoch + 1)
                if again:
                    _try_anyway(pipeline)
                (disk / "ballast").unlink()
                full_at = -1
                pipeline.reset()
            pipeline.check()
        (disk / "ballast").unlink(missing_ok=True)
        pipeline.reset()
        pipeline.check()
        pipeline.finish()
        pipeline.check()
    finally:
        pipeline.sink.close()
        (disk / "ballast").unlink(missing_ok=True)
        shutil.rmtree(directory)


def _try_anyway(pipeline: Pipeline) -> None:
    """A reset that comes too early: it fails as a full disk does, or is as good as a later one."""
    try:
        pipeline.reset()
    except StorageError:
        return
    pipeline.check()


def _run(pipeline: Pipeline, epochs: int) -> None:
    for _ in range(epochs):
        pipeline.step("rows", ROWS_MAX)
        pipeline.step("epoch", 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("_small_log")
def test_a_disk_without_any_room_is_told_and_outlived(disk: Path, kind: str) -> None:
    """A disk with no room at all fails within one epoch, with the file's name and the reason; freed, all goes on."""
    directory = disk / "sink"
    directory.mkdir()
    pipeline = Pipeline(kind, directory)
    pipeline.finish()
    fill(disk, 0)
    with pytest.raises(StorageError, match=r"records\.(sqlite|jsonl|parquet): .*(full|[Nn]o space|I/O)"):
        _run(pipeline, epochs=20)
    (disk / "ballast").unlink()
    pipeline.reset()
    pipeline.finish()
    pipeline.check()
    pipeline.sink.close()
    shutil.rmtree(directory)


@pytest.mark.parametrize("kind", KINDS)
def test_a_read_only_disk_is_worth_another_try(disk: Path, kind: str) -> None:
    """A file system that has become read-only is StorageError; writable again, everything goes on."""
    directory = disk / "sink"
    directory.mkdir()
    pipeline = Pipeline(kind, directory)
    pipeline.finish()
    pipeline.sink.close()
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    try:
        with pytest.raises(StorageError, match="records"):
            pipeline.reset()
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    pipeline.reset()
    pipeline.finish()
    pipeline.check()
    pipeline.sink.close()
    shutil.rmtree(directory)
