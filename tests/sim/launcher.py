"""The fork server, simulated: forks with delay, and dies with what it has not answered yet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sim.world import Actor, World

PRELOAD_S: Final = 0.05
FORK_S: Final = 0.01
ANSWER_S: Final = 0.004


class Launcher(Actor):
    """One life of it; `on_ready()` comes when everything is preloaded."""

    def __init__(self, world: World, on_ready: Callable[[], None]) -> None:
        super().__init__()
        self.ready = False
        self._world = world
        self._on_ready = on_ready
        world.after(PRELOAD_S, self, self._preloaded)

    def fork(self, begun: Callable[[], None]) -> None:
        """`begun()` when the pid is known. What was forked before waits for `Begin`, so it is not there yet."""
        self._world.after(FORK_S, self, self._forked, begun)

    def _preloaded(self) -> None:
        self.ready = True
        self._on_ready()

    def _forked(self, begun: Callable[[], None]) -> None:
        self._world.after(ANSWER_S, self, begun)
