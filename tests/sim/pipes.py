"""Links in memory: bounded, and torn at any byte."""

from __future__ import annotations

from collections.abc import Callable

from sim.world import Actor, World

PACE_S = 0.002  # from a write to the reader's look at it, and back


class Pipe:
    """One link of one generation. `torn`: how often a read or write moves only a part of what it could."""

    __slots__ = ("_capacity", "_data", "_rest", "_torn", "_world", "reader", "writer")

    def __init__(self, world: World, capacity: int, torn: float) -> None:
        self._world = world
        self._capacity = capacity
        self._torn = torn
        self._data = bytearray()
        self._rest = bytearray()  # what the writer has and the pipe has no room for
        self.reader: tuple[Actor, Callable[[Pipe], None]] | None = None
        """Who is told, once, that there is something to read."""
        self.writer: tuple[Actor, Callable[[], None]] | None = None
        """Who is told when everything has been written."""

    @property
    def idle(self) -> bool:
        return not self._rest

    @property
    def waiting(self) -> bool:
        """Bytes that nobody has read."""
        return bool(self._data)

    def write(self, data: bytes) -> None:
        was_idle = not self._rest
        self._rest += data
        if was_idle:
            self._push()

    def read_into(self, room: memoryview) -> int:
        count = self._part(min(len(room), len(self._data)))
        room[:count] = self._data[:count]
        del self._data[:count]
        if self._rest and self.writer is not None:
            self._world.after(PACE_S, self.writer[0], self._pull)
        return count

    def listen(self, actor: Actor, readable: Callable[[Pipe], None]) -> None:
        """Tell `actor` once when there is something."""
        self.reader = (actor, readable)
        if self._data:
            self._announce()

    def rest(self) -> None:
        self.reader = None

    def _announce(self) -> None:
        if self.reader is not None:
            actor, readable = self.reader
            self.reader = None
            self._world.after(PACE_S, actor, readable, self)

    def _push(self) -> None:
        count = self._part(min(len(self._rest), self._capacity - len(self._data)))
        if not count:
            return
        self._data += self._rest[:count]
        del self._rest[:count]
        self._announce()

    def _pull(self) -> None:
        """There may be room."""
        if self._rest:
            self._push()
            if not self._rest and self.writer is not None:
                self.writer[1]()

    def _part(self, count: int) -> int:
        if count > 1 and self._torn and self._world.chance() < self._torn:
            return self._world.random.randint(1, count)
        return count
