"""stages/model_files.py: models on the disk, whole or told to be damaged."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streampiped.errors import StateError
from streampiped.learn.estimators import equal
from streampiped.stages.model_files import LIST, ModelFiles

STATE = {"pool": {"weights": np.arange(5.0), "rows": 7}, "names": ["a", "b"]}
ABOUT = {"champion": "ridge", "rows": 7}


@pytest.fixture
def files(tmp_path: Path) -> ModelFiles:
    return ModelFiles(tmp_path / "models")


def content(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def test_what_is_saved_is_loaded(files: ModelFiles) -> None:
    """State and manifest come back; two files stand under their names and nothing else."""
    file = files.save(12, STATE, ABOUT)
    assert equal(files.load(12), STATE)
    assert equal(files.load(12, file["sha256"]), STATE)
    assert files.about(12) | ABOUT | file == files.about(12)
    assert files.kept() == {12}


def test_saving_again_changes_nothing(files: ModelFiles, tmp_path: Path) -> None:
    """Whoever is killed and does it again leaves the same bytes."""
    files.save(3, STATE, ABOUT)
    before = content(tmp_path / "models")
    files.save(3, STATE, ABOUT)
    assert content(tmp_path / "models") == before


@pytest.mark.parametrize("name", ["v00000003.npz", "v00000003.json"])
def test_every_damage_is_told(files: ModelFiles, tmp_path: Path, name: str) -> None:
    """Cut off anywhere, or with any byte changed, a file is refused by name; the other version is as it was."""
    files.save(3, STATE, ABOUT)
    files.save(4, STATE, ABOUT)
    path = tmp_path / "models" / name
    data = path.read_bytes()
    for place in range(0, len(data), 7):
        for wrong in (data[:place], data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]):
            path.write_bytes(wrong)
            if name.endswith(".npz") or not _is_harmless(data, wrong):
                with pytest.raises(StateError, match="v00000003"):
                    files.load(3)
    path.unlink()
    with pytest.raises(StateError, match=name):
        files.load(3)
    assert equal(files.load(4), STATE)


def _is_harmless(data: bytes, wrong: bytes) -> bool:
    """What only people read of the manifest, and the end of its last line."""
    import json

    try:
        ours, theirs = json.loads(data), json.loads(wrong)
    except ValueError:
        return False
    return all(ours[key] == theirs.get(key) for key in ("format", "version", "sha256"))


def test_another_file_is_refused(files: ModelFiles) -> None:
    """A whole file that is not the one that was meant is no model to go back to."""
    files.save(3, STATE, ABOUT)
    with pytest.raises(StateError, match="SHA-256"):
        files.load(3, "0" * 64)


def test_interrupted_write_leaves_nothing(files: ModelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk refuses, what was there stays, and no half of a file under any name."""
    files.save(3, STATE, ABOUT)
    before = content(tmp_path / "models")

    def refuse(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    for version in (3, 4):
        with pytest.raises(OSError, match="space"):
            files.save(version, {"other": 1}, ABOUT)
    monkeypatch.undo()
    assert content(tmp_path / "models") == before


def test_removed_is_removed(files: ModelFiles, tmp_path: Path) -> None:
    """With what an interrupted write has left."""
    files.save(3, STATE, ABOUT)
    (tmp_path / "models" / "v00000003.npz.tmp").write_bytes(b"half")
    files.remove(3)
    assert content(tmp_path / "models") == {}
    files.remove(3)


def test_list_is_appended_to(files: ModelFiles) -> None:
    """Records come back in their order."""
    records: list[dict[str, Any]] = [{"kind": "version", "version": n, "champion": "ä"} for n in range(5)]
    for record in records:
        files.append(record)
    assert files.records() == (records, [])


def test_torn_list(files: ModelFiles, tmp_path: Path) -> None:
    """Cut off anywhere the list has its whole lines, says what is lost, and takes new ones behind them."""
    for number in range(3):
        files.append({"n": number})
    path = tmp_path / "models" / LIST
    data = path.read_bytes()
    line = len(data) // 3
    for length in range(len(data) + 1):
        path.write_bytes(data[:length])
        found, complaints = files.records()
        assert found == [{"n": n} for n in range(length // line)]
        assert bool(complaints) is bool(length % line)
        files.append({"n": "next"})
        assert files.records() == ([*found, {"n": "next"}], [])


def test_damaged_line_is_left_out(files: ModelFiles, tmp_path: Path) -> None:
    """A line with a wrong bit is named and hurts no other."""
    for number in range(3):
        files.append({"n": number})
    path = tmp_path / "models" / LIST
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    found, complaints = files.records()
    assert found == [{"n": 0}, {"n": 2}]
    assert len(complaints) == 1
    assert "line 2" in complaints[0]


@contextlib.contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """What a full disk does, for real: a write takes what fits, and the next is refused."""
    limit, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limit[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("room", [0, 1, 20])
def test_half_a_line_is_taken_back(files: ModelFiles, tmp_path: Path, room: int) -> None:
    """Where the disk takes a part of a record, the list is as it was, and the next record can be read."""
    records = [{"kind": "version", "number": number} for number in range(3)]
    files.append(records[0])
    size = (tmp_path / "models" / LIST).stat().st_size
    with files_end_at(size + room), pytest.raises(OSError, match="too large"):
        files.append(records[1])
    files.append(records[2])
    assert files.records() == ([records[0], records[2]], [])


@pytest.mark.parametrize("size", [0, 100, 600])
def test_a_refused_model_leaves_nothing(files: ModelFiles, tmp_path: Path, size: int) -> None:
    """Neither of its files is left, whichever the disk refused: each epoch tries again under another name."""
    files.append({"kind": "version"})
    before = content(tmp_path / "models")
    with files_end_at(size), pytest.raises(OSError, match="too large"):
        files.save(3, STATE, {**ABOUT, "why": "x" * 2000})
    assert content(tmp_path / "models") == before
