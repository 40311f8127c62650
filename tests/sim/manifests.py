"""The epochs on the simulated disk, as runtime/epoch_store.py finds them on a real one."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sim.disk import Disk
from sim.world import ViolationError
from streampiped.core.epoch_commands import WriteManifest

EPOCHS: Final = "epochs"
"""The directory of snapshots and manifests."""
KEPT: Final = 2  # committed epochs whose files stay

_FILE: Final = re.compile(r"e(\d{8})\.(manifest|g\d+\..+\.snap)(\.tmp)?")


@dataclass(frozen=True)
class Manifest:
    """A committed epoch. `parts`: stage -> the file of its snapshot."""

    epoch: int
    finished: bool
    parts: dict[str, str]
    changes: tuple[dict[str, Any], ...]


def snapshot_path(stage: str, generation: int, epoch: int) -> str:
    return f"{EPOCHS}/e{epoch:08d}.g{generation}.{stage}.snap"


def manifest_path(epoch: int) -> str:
    return f"{EPOCHS}/e{epoch:08d}.manifest"


def manifest_of(command: WriteManifest) -> Manifest:
    parts = {part.stage: part.file for part in command.parts}
    return Manifest(command.epoch, command.finished, parts, tuple(dict(change) for change in command.changes))


def encode(command: WriteManifest) -> bytes:
    body = {
        "epoch": command.epoch,
        "finished": command.finished,
        "parts": {part.stage: (part.file, part.length, part.checksum) for part in command.parts},
        "changes": [dict(change) for change in command.changes],
    }
    return json.dumps(body).encode()


def highest(disk: Disk) -> int:
    """The largest number in any file's name."""
    names = (_FILE.fullmatch(name) for name in disk.list(EPOCHS))
    return max((int(match[1]) for match in names if match), default=0)


def committed(disk: Disk) -> list[int]:
    return [int(name[1:9]) for name in disk.list(EPOCHS) if name.endswith(".manifest")]


def newest(disk: Disk) -> Manifest | None:
    """ViolationError when it is damaged: what has been committed must be whole."""
    numbers = committed(disk)
    if not numbers:
        return None
    try:
        body = json.loads(disk.read(manifest_path(numbers[-1])) or b"")
    except ValueError as error:
        raise ViolationError(f"the manifest of epoch {numbers[-1]} is damaged") from error
    for stage, (file, length, checksum) in body["parts"].items():
        data = disk.read(file)
        if data is None or len(data) != length or zlib.crc32(data) != checksum:
            raise ViolationError(f"epoch {numbers[-1]} is committed, and {stage}'s snapshot {file} is damaged")
    parts = {stage: file for stage, (file, *_) in body["parts"].items()}
    return Manifest(body["epoch"], body["finished"], parts, tuple(body["changes"]))


def old_files(disk: Disk, before: int) -> Sequence[str]:
    """What may go when `before` has been committed."""
    kept = committed(disk)[-KEPT:]
    matches = ((name, _FILE.fullmatch(name)) for name in disk.list(EPOCHS))
    return [f"{EPOCHS}/{name}" for name, m in matches if m and int(m[1]) < before and int(m[1]) not in kept]
