"""The state directory: one holder, one pipeline, numbers that are never used twice, damage that is found.

docs/specs/snapshots.md is the contract.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from streampiped.errors import StateError
from streampiped.runtime.snapshots import Manifest, StateDirectory, manifest_name, snapshot_name, write_durably

SHAPE = {"count": "a:A", "total": "b:B"}


@contextmanager
def opened(root: Path, pipeline: str = "p") -> Iterator[StateDirectory]:
    directory = StateDirectory(root, pipeline)
    try:
        yield directory
    finally:
        directory.close()


def committed(directory: StateDirectory, epoch: int, generation: int = 1, finished: bool = False) -> Manifest:
    """Snapshots of every stage and their manifest."""
    parts = {}
    for stage in SHAPE:
        data = f"{stage} {epoch}".encode()
        file = snapshot_name(stage, generation, epoch)
        write_durably(directory.epochs / file, data)
        parts[stage] = (file, len(data), zlib.crc32(data))
    manifest = Manifest(epoch, generation, finished, parts, SHAPE)
    directory.commit(manifest)
    return manifest


def contents(root: Path) -> dict[str, tuple[bytes, int]]:
    """Every file with its bytes and the time of its last change."""
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {str(path.relative_to(root)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


# one holder, one pipeline


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    """A second daemon is refused with the directory's name while the first lives, and may have it afterwards."""
    with opened(tmp_path), pytest.raises(StateError, match=rf"{tmp_path}: in use by another streampiped"):
        StateDirectory(tmp_path, "p")
    with opened(tmp_path) as directory:
        assert directory.newest() is None


def test_another_pipelines_state_is_refused_and_untouched(tmp_path: Path) -> None:
    """The state of another pipeline, or of another format, is refused with both names; not a byte of it changes, and
    the lock is free again."""
    with opened(tmp_path) as directory:
        committed(directory, 1)
    before = contents(tmp_path)
    with pytest.raises(StateError, match="expected format 1 of pipeline 'other'"):
        StateDirectory(tmp_path, "other")
    assert contents(tmp_path) == before
    with opened(tmp_path) as directory:
        assert directory.highest() == 1
    (tmp_path / "format").write_text("streampipe state 2\npipeline p\n")
    with pytest.raises(StateError, match="streampipe state 2"):
        StateDirectory(tmp_path, "p")


def test_no_descriptor_is_left(tmp_path: Path) -> None:
    """Opening, being refused and closing leave no descriptor behind."""
    before = len(os.listdir("/proc/self/fd"))
    with opened(tmp_path), pytest.raises(StateError):
        StateDirectory(tmp_path, "p")
    with pytest.raises(StateError):
        StateDirectory(tmp_path, "other")
    StateDirectory.discard(tmp_path)
    assert len(os.listdir("/proc/self/fd")) == before


# the newest epoch


def test_newest_is_what_was_committed_last(tmp_path: Path) -> None:
    """The newest manifest comes back as it was written; files of epochs that have none count for nothing."""
    with opened(tmp_path) as directory:
        assert directory.newest() is None
        committed(directory, 1)
        wanted = committed(directory, 2, generation=5, finished=True)
        write_durably(directory.epochs / snapshot_name("count", 5, 3), b"of an epoch that was aborted")
        assert directory.newest() == wanted


def test_newest_is_told_by_number(tmp_path: Path) -> None:
    """Epoch 100 000 000 (three years at one a second) is newer than 99 999 999, whatever their names sort like."""
    with opened(tmp_path) as directory:
        for epoch in (99_999_999, 100_000_000):
            committed(directory, epoch)
        newest = directory.newest()
        assert newest is not None
        assert newest.epoch == directory.highest() == 100_000_000
        directory.retain(1, 100_000_000)
        assert directory.newest() == newest


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"\xff", b"{}", b'{"format": 1}', b'{"format": 2}', b"null"],
)
def test_damaged_manifest_is_refused(tmp_path: Path, body: bytes) -> None:
    """A newest manifest that cannot be read is a StateError with its path; no older one is taken in silence."""
    with opened(tmp_path) as directory:
        committed(directory, 1)
        (directory.epochs / manifest_name(2)).write_bytes(body)
        with pytest.raises(StateError, match=rf"{manifest_name(2)}: not a manifest of format 1"):
            directory.newest()


@pytest.mark.parametrize(
    ("field", "value"),
    [("parts", []), ("parts", {"count": []}), ("parts", {"count": ["f", "x", 1]}), ("shape", 5), ("format", 2)],
)
def test_manifest_with_a_wrong_field_is_refused(tmp_path: Path, field: str, value: Any) -> None:
    """A manifest whose JSON is sound and whose fields are not is refused in the same way."""
    with opened(tmp_path) as directory:
        committed(directory, 1)
        path = directory.epochs / manifest_name(1)
        path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
        with pytest.raises(StateError, match="not a manifest"):
            directory.newest()


@pytest.mark.parametrize("damage", ["gone", "short", "long", "flipped"])
def test_damaged_snapshot_is_found(tmp_path: Path, damage: str) -> None:
    """A snapshot that is missing, has another length or one other bit is found before anything starts, and named."""
    with opened(tmp_path) as directory:
        file = committed(directory, 1).parts["total"][0]
        path = directory.epochs / file
        data = path.read_bytes()
        if damage == "gone":
            path.unlink()
        else:
            path.write_bytes(
                {"short": data[:-1], "long": data + b"x", "flipped": bytes([data[0] ^ 1]) + data[1:]}[damage]
            )
        with pytest.raises(StateError, match=file):
            directory.newest()


# numbers and retention


def test_highest_counts_every_file(tmp_path: Path) -> None:
    """The highest number comes from any file of an epoch, committed or not, half-written or not; others are no
    matter."""
    with opened(tmp_path) as directory:
        assert directory.highest() == 0
        committed(directory, 4)
        assert directory.highest() == 4
        for number, name in enumerate(
            [snapshot_name("count", 1, 5), manifest_name(6) + ".tmp", "e00000007.g2.x.snap.tmp"]
        ):
            (directory.epochs / name).touch()
            assert directory.highest() == 5 + number
        for name in ("e99.manifest", "x00000099.manifest", "e00000099.txt", "notes"):
            (directory.epochs / name).touch()
        assert directory.highest() == 7


@pytest.mark.parametrize("count", [0, 1, 2, 3, 100])
def test_retain_keeps_the_newest(tmp_path: Path, count: int) -> None:
    """The newest `count` epochs stay whole, and the newest one always; what aborted epochs before it left goes, what
    came after it stays."""
    with opened(tmp_path) as directory:
        for epoch in (1, 2, 4, 5):
            committed(directory, epoch)
        for epoch in (3, 6):  # an aborted one, and one in flight
            write_durably(directory.epochs / snapshot_name("count", 1, epoch), b"")
        (directory.epochs / "e00000003.g1.total.snap.tmp").touch()
        (directory.epochs / "notes.txt").touch()
        directory.retain(count, 5)
        kept = (1, 2, 4, 5)[-max(count, 1) :]
        wanted = {manifest_name(e) for e in kept} | {snapshot_name(s, 1, e) for e in kept for s in SHAPE}
        assert set(os.listdir(directory.epochs)) == wanted | {snapshot_name("count", 1, 6), "notes.txt"}
        newest = directory.newest()
        assert newest is not None
        assert newest.epoch == 5


def test_written_whole_or_not_at_all(tmp_path: Path) -> None:
    """A file that cannot be written whole leaves the one of that name as it was."""
    path = tmp_path / "f"
    write_durably(path, b"old")
    path.with_name("f.tmp").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_durably(path, b"new")
    assert path.read_bytes() == b"old"


# beginning anew


def test_discard_removes_the_state_and_nothing_else(tmp_path: Path) -> None:
    """`--fresh` removes epochs and the stages' files; what else somebody put there stays."""
    with opened(tmp_path) as directory:
        committed(directory, 3)
        (tmp_path / "stages" / "consumer").mkdir(parents=True)
        (tmp_path / "stages" / "consumer" / "records.sqlite").touch()
        (tmp_path / "mine.txt").touch()
    StateDirectory.discard(tmp_path)
    assert set(os.listdir(tmp_path)) == {"lock", "mine.txt"}


def test_discarded_twice_is_discarded(tmp_path: Path) -> None:
    """An empty directory, none at all, and one that was discarded before have nothing to discard."""
    StateDirectory.discard(tmp_path / "none")
    StateDirectory.discard(tmp_path)
    with opened(tmp_path, "one"):
        pass
    StateDirectory.discard(tmp_path)
    StateDirectory.discard(tmp_path)
    with opened(tmp_path, "two") as directory:
        assert directory.highest() == 0


def test_discard_refuses_what_is_not_ours(tmp_path: Path) -> None:
    """A directory without our format file, or one that a daemon holds, keeps every file."""
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(StateError, match="nothing was removed"):
        StateDirectory.discard(tmp_path)
    (tmp_path / "thesis.txt").unlink()
    with opened(tmp_path) as directory:
        committed(directory, 1)
        before = contents(tmp_path)
        with pytest.raises(StateError, match="in use"):
            StateDirectory.discard(tmp_path)
        assert contents(tmp_path) == before
