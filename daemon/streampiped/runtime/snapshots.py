"""The state directory: snapshots, manifests, the lock. docs/specs/snapshots.md is the contract.

    STATE/format                     "streampipe state 1" and the pipeline's name
    STATE/lock                       held with flock by the running supervisor
    STATE/epochs/e00000012.g3.NAME.snap   a stage's snapshot (wire/state.py)
    STATE/epochs/e00000012.manifest  names, lengths and checksums of an epoch's snapshots; its rename is the commit
    STATE/stages/NAME/               a stage's own files
    STATE/dead_letters.sqlite        rows that a stage cannot live with (dead_letters.py)

A file is written under a temporary name, fsynced, renamed, and its directory fsynced.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from streampiped.errors import StateBusyError, StateError

FORMAT: Final = 1
_EPOCH_FILE: Final = re.compile(r"e(\d{8,})\.(?:manifest|g\d+\..+\.snap)(?:\.tmp)?")


@dataclass(frozen=True, slots=True)
class Manifest:
    """A committed epoch. `parts`: stage -> (file name, bytes, CRC-32). `shape`: stage -> class."""

    epoch: int
    generation: int
    finished: bool
    parts: dict[str, tuple[str, int, int]]
    shape: dict[str, str]


def write_durably(path: Path, data: bytes) -> None:
    """All or nothing, and still there after a power loss."""
    temporary = path.with_name(path.name + ".tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(temporary, path)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def snapshot_name(stage: str, generation: int, epoch: int) -> str:
    return f"e{epoch:08d}.g{generation}.{stage}.snap"


def manifest_name(epoch: int) -> str:
    return f"e{epoch:08d}.manifest"


def read_snapshot(path: Path, length: int, checksum: int) -> bytes:
    """The bytes that the manifest promised; StateError when they are others."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StateError(f"{path}: cannot be read: {error.strerror}") from error
    if len(data) != length or zlib.crc32(data) != checksum:
        raise StateError(
            f"{path}: {len(data)} bytes with checksum {zlib.crc32(data):08x}, "
            f"the manifest says {length} with {checksum:08x}"
        )
    return data


class StateDirectory:
    """The supervisor's side of the state directory; exactly one process holds it."""

    def __init__(self, root: Path, pipeline: str) -> None:
        """Create what is missing and take the lock. StateError when another daemon has it, or when the directory
        belongs to another pipeline or a later format; then nothing was touched."""
        self.root = root
        self.epochs = root / "epochs"
        root.mkdir(parents=True, exist_ok=True)
        self._lock = self._take_lock()
        try:
            self._check_format(pipeline)
            self.epochs.mkdir(exist_ok=True)
        except BaseException:
            os.close(self._lock)
            raise

    def _take_lock(self) -> int:
        fd = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise StateBusyError(f"{self.root}: in use by another streampiped") from None
        return fd

    def _check_format(self, pipeline: str) -> None:
        path = self.root / "format"
        wanted = f"streampipe state {FORMAT}\npipeline {pipeline}\n"
        if not path.exists():
            write_durably(path, wanted.encode())
            return
        found = path.read_text(errors="replace")
        if found != wanted:
            raise StateError(
                f"{self.root}: holds {' of '.join(found.split(chr(10))[:2])!r}, expected format {FORMAT} of pipeline "
                f"{pipeline!r}; use another --state-dir, or --fresh to discard it"
            )

    @staticmethod
    def discard(root: Path) -> None:
        """Remove everything of a former run; the directory itself stays. StateError when a daemon holds it, or when
        it does not look like a state directory."""
        if not root.exists() or not set(os.listdir(root)) - {"lock"}:  # a lock alone: discarded and not used since
            return
        if not (root / "format").exists():
            raise StateError(f"{root}: not empty and not a state directory of streampipe; nothing was removed")
        directory = StateDirectory.__new__(StateDirectory)
        directory.root = root
        lock = directory._take_lock()
        for entry in ("epochs", "stages"):
            shutil.rmtree(root / entry, ignore_errors=True)
        for name in ("dead_letters.sqlite", "dead_letters.sqlite-journal"):  # positions begin again
            (root / name).unlink(missing_ok=True)
        (root / "format").unlink()
        os.close(lock)

    def highest(self) -> int:
        """The largest epoch number in any file name, 0 when there is none: numbers are never used twice."""
        numbers = (_EPOCH_FILE.fullmatch(name) for name in os.listdir(self.epochs))
        return max((int(m[1]) for m in numbers if m), default=0)

    def newest(self) -> Manifest | None:
        """The newest committed epoch. StateError when its manifest or one of its snapshots is damaged."""
        committed = self._committed()
        if not committed:
            return None
        path = self.epochs / manifest_name(committed[-1])
        try:
            manifest = _manifest(json.loads(path.read_text()))
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise StateError(f"{path}: not a manifest of format {FORMAT}: {error!r}") from error
        for file, length, checksum in manifest.parts.values():
            read_snapshot(self.epochs / file, length, checksum)
        return manifest

    def _committed(self) -> list[int]:
        """The epochs that have a manifest, ascending; by number, for beyond 99 999 999 names sort otherwise."""
        matches = (_EPOCH_FILE.fullmatch(name) for name in os.listdir(self.epochs) if name.endswith(".manifest"))
        return sorted(int(match[1]) for match in matches if match)

    def commit(self, manifest: Manifest) -> None:
        """Write the manifest: the commit point of its epoch. Blocks for the disk; OSError when it fails."""
        body = {
            "format": FORMAT,
            "epoch": manifest.epoch,
            "generation": manifest.generation,
            "finished": manifest.finished,
            "parts": {name: list(part) for name, part in manifest.parts.items()},
            "shape": manifest.shape,
        }
        write_durably(self.epochs / manifest_name(manifest.epoch), json.dumps(body, indent=1).encode())

    def retain(self, count: int, committed: int) -> None:
        """Remove all but the newest `count` committed epochs, and what aborted epochs before `committed` left."""
        kept = set(self._committed()[-max(1, count) :])
        for name in os.listdir(self.epochs):
            match = _EPOCH_FILE.fullmatch(name)
            if match and int(match[1]) < committed and int(match[1]) not in kept:
                (self.epochs / name).unlink(missing_ok=True)

    def close(self) -> None:
        os.close(self._lock)


def _manifest(body: dict[str, Any]) -> Manifest:
    if body["format"] != FORMAT:
        raise ValueError(f"format {body['format']}")
    parts = {name: (str(p[0]), int(p[1]), int(p[2])) for name, p in body["parts"].items()}
    return Manifest(body["epoch"], body["generation"], body["finished"], parts, dict(body["shape"]))
