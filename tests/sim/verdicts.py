"""The rows that a stage leaves out, on the simulated disk; verdicts.py and runtime/dead_letters.py on a real one."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator

from sim.disk import Disk, Fuse
from sim.stages import save


def skips(disk: Disk, stage: str) -> dict[tuple[str, int], list[int]]:
    """As `streampiped.skips.Skips` wants them."""
    found: dict[tuple[str, int], list[int]] = {}
    for source, position in sorted(_rows(disk, stage)):
        found.setdefault((source, 0), []).append(position)
    return found


def condemn(disk: Disk, fuse: Fuse, stage: str, rows: Collection[tuple[str, int]]) -> Iterator[None]:
    """Put them on the list, in steps; OSError when the disk refuses."""
    yield from save(disk, fuse, f"letters/{stage}", json.dumps(sorted({*_rows(disk, stage), *rows})).encode())


def _rows(disk: Disk, stage: str) -> list[tuple[str, int]]:
    return [(source, position) for source, position in json.loads(disk.read(f"letters/{stage}") or b"[]")]
