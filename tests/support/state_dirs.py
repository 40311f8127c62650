"""State directories for tests: epochs of two small stages, and everything in them as a value."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from streampiped.runtime.snapshots import Manifest, StateDirectory, snapshot_name, write_durably
from streampiped.wire import state as wire_state

SHAPE = {"count": "a:A", "total": "b:B"}


@contextmanager
def opened(root: Path, pipeline: str | None = "p") -> Iterator[StateDirectory]:
    directory = StateDirectory(root, pipeline)
    try:
        yield directory
    finally:
        directory.close()


def prepared(directory: StateDirectory, epoch: int, generation: int = 1, **more: Any) -> Manifest:
    """Snapshots of every stage; the manifest that would commit them."""
    shape = more.pop("shape", SHAPE)
    parts = {}
    for stage, klass in shape.items():
        data = wire_state.pack(klass, {"epoch": epoch})
        file = snapshot_name(stage, generation, epoch)
        write_durably(directory.epochs / file, data)
        parts[stage] = (file, len(data), zlib.crc32(data))
    return replace(Manifest(epoch, generation, False, parts, shape), **more)


def committed(directory: StateDirectory, epoch: int, generation: int = 1, **more: Any) -> Manifest:
    """A whole epoch; `more` are fields of its manifest."""
    manifest = prepared(directory, epoch, generation, **more)
    directory.commit(manifest)
    return manifest


def contents(root: Path) -> dict[str, tuple[bytes, int]]:
    """Every file with its bytes and the time of its last change."""
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {str(path.relative_to(root)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def listing(directory: StateDirectory) -> set[str]:
    return set(os.listdir(directory.epochs))
