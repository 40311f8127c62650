"""The rows that a stage leaves out, on the simulated disk; verdicts.py and runtime/dead_letters.py on a real one."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Collection, Iterator
from typing import Final

from sim.disk import Disk, Fuse
from sim.stages import Verdict, save
from sim.world import Actor, World

DISK_S: Final = 0.006  # for one step of a save
RETRY_S: Final = 0.5  # before something that the disk refused is tried again


def skips(disk: Disk, stage: str) -> dict[tuple[str, str, int], list[int]]:
    """As `streampiped.skips.Skips` wants them."""
    found: dict[tuple[str, str, int], list[int]] = {}
    for (via, source, position), attempt in sorted(put_aside(disk, stage)):
        found.setdefault((via, source, attempt), []).append(position)
    return found


class Verdicts:
    """The supervisor's list: a row is condemned when that is durable, however often it takes, unless its stage dies
    before. One after the other."""

    def __init__(self, world: World, actor: Actor, fuse: Fuse) -> None:
        self._world = world
        self._actor = actor
        self._fuse = fuse
        self._queue: deque[tuple[str, int, Collection[Verdict], Callable[[bool], None]]] = deque()
        self._dead: set[tuple[str, int]] = set()

    def keep(self, stage: str, incarnation: int, rows: Collection[Verdict], kept: Callable[[bool], None]) -> None:
        """`kept(True)` when they are, `kept(False)` when they never will be."""
        if not rows:
            kept(True)
            return
        self._queue.append((stage, incarnation, rows, kept))
        if len(self._queue) == 1:
            self._write()

    def died(self, stage: str, incarnation: int) -> None:
        """What the disk refuses to take of it is not tried again."""
        self._dead.add((stage, incarnation))

    def _write(self) -> None:
        stage, _, rows, _ = self._queue[0]
        text = json.dumps(sorted({*put_aside(self._world.disk, stage), *rows}))
        steps = save(self._world.disk, self._fuse, f"letters/{stage}", text.encode())
        self._world.after(DISK_S, self._actor, self._step, steps)

    def _step(self, steps: Iterator[None]) -> None:
        try:
            next(steps)
        except StopIteration:
            self._next(True)
        except OSError:
            if self._queue[0][:2] in self._dead:
                self._next(False)
            else:
                self._world.after(RETRY_S, self._actor, self._retry)
        else:
            self._world.after(DISK_S, self._actor, self._step, steps)

    def _retry(self) -> None:
        if self._queue[0][:2] in self._dead:
            self._next(False)
        else:
            self._write()

    def _next(self, done: bool) -> None:
        *_, kept = self._queue.popleft()
        if self._queue:
            self._write()
        kept(done)


def put_aside(disk: Disk, stage: str) -> list[Verdict]:
    """What the list has of a stage."""
    found = json.loads(disk.read(f"letters/{stage}") or b"[]")
    return [((via, source, position), attempt) for (via, source, position), attempt in found]
