"""Links: the pipes between stages, as the supervisor makes them and as a stage writes them."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import select
import struct
import termios
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from streampiped.runtime.slots import SharedMemory

IOV_MAX: Final = 64  # buffers of one writev; a frame has four
WANTED_PIPE_BYTES: Final = 1 << 20  # the unprivileged maximum (fs.pipe-max-size)


class Link:
    """Both ends of one pipe of one generation, and of the one on which the reader gives back a credit for every batch;
    held by the supervisor so that no neighbour of a dead stage sees EOF or EPIPE."""

    def __init__(self, pipe_bytes: int = WANTED_PIPE_BYTES) -> None:
        self.reader, self.writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            self.credited, self.crediting = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            os.close(self.reader)
            os.close(self.writer)
            raise
        with contextlib.suppress(PermissionError):  # over the user's soft limit: the 64 KiB that it has must do
            fcntl.fcntl(self.writer, fcntl.F_SETPIPE_SZ, pipe_bytes)

    def waiting(self) -> int:
        """Bytes that nobody has read yet."""
        return unread_bytes(self.reader)

    def full(self) -> bool:
        """Whether a writer would have to wait."""
        poll = select.poll()
        poll.register(self.writer, select.POLLOUT)
        return not poll.poll(0)

    def starved(self) -> bool:
        """Whether a writer without credits would have to wait for one."""
        return not unread_bytes(self.credited)

    def close(self) -> None:
        for fd in (self.reader, self.writer, self.credited, self.crediting):
            os.close(fd)


class LinkTable:
    """The pipes and the shared memory of all generations that are still open."""

    def __init__(self, edges: Sequence[tuple[str, str]], pipe_bytes: int, owners: Mapping[str, int]) -> None:
        """`edges` are (writer, reader); `owners`: the stages that share memory, and how much."""
        self._edges = tuple(edges)
        self._pipe_bytes = pipe_bytes
        self._owners = dict(owners)
        self._open: dict[int, dict[tuple[str, str], Link]] = {}
        self._memory: dict[int, dict[str, SharedMemory]] = {}

    def make(self, generation: int) -> None:
        """Fresh pipes for every edge, fresh memory for every owner. OSError, and nothing is made, when there are no
        descriptors left or the memory may not be so large."""
        with contextlib.ExitStack() as undo:
            links: dict[tuple[str, str], Link] = {}
            memory: dict[str, SharedMemory] = {}
            for edge in self._edges:
                links[edge] = link = Link(self._pipe_bytes)
                undo.callback(link.close)
            for name, size in self._owners.items():
                memory[name] = shared = SharedMemory(size)
                undo.callback(shared.close)
            undo.pop_all()
        self._open[generation], self._memory[generation] = links, memory

    def has(self, generation: int) -> bool:
        """Whether it is open: `make` did not fail."""
        return generation in self._open

    def close_before(self, generation: int) -> None:
        """Close the pipes and forget the memory of older generations."""
        for old in [g for g in self._open if g < generation]:
            for link in self._open.pop(old).values():
                link.close()
            for memory in self._memory.pop(old).values():
                memory.close()

    def ends(
        self, generation: int, inputs: Sequence[str], name: str, outputs: Sequence[str], seen: Sequence[str] = ()
    ) -> list[int]:
        """The descriptors for one stage: per input where to read and where to give credits, then per output where to
        write and where credits come back; then, of an owner, its memory and where slots come back, and per stage whose
        memory it is shown that memory and where to give slots back."""
        links = [self._open[generation][source, name] for source in inputs]
        found = [fd for link in links for fd in (link.reader, link.crediting)]
        links = [self._open[generation][name, to] for to in outputs]
        found += [fd for link in links for fd in (link.writer, link.credited)]
        memory = self._memory[generation]
        own = [memory[name]] if name in memory else []
        found += [fd for each in own for fd in (each.memory, each.returned)]
        return found + [fd for each in seen for fd in (memory[each].memory, memory[each].returning)]

    def waiting(self, generation: int, name: str) -> bool:
        """Whether unread bytes lie on an input of this stage."""
        links = self._open.get(generation, {})
        return any(link.waiting() for (_, reader), link in links.items() if reader == name)

    def blocked(self, generation: int, name: str) -> bool:
        """Whether an output of this stage is full."""
        links = self._open.get(generation, {})
        return any(link.full() for (writer, _), link in links.items() if writer == name)

    def starved(self, generation: int, name: str) -> bool:
        """Whether no credit lies on an output of this stage."""
        links = self._open.get(generation, {})
        return any(link.starved() for (writer, _), link in links.items() if writer == name)

    def full(self, generation: int, name: str) -> bool:
        """Whether no slot of this stage's memory has come back."""
        memory = self._memory.get(generation, {})
        return name in memory and not unread_bytes(memory[name].returned)


def unread_bytes(fd: int) -> int:
    """Bytes to be read from a pipe (FIONREAD)."""
    return int(struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, b"\0\0\0\0"))[0])


def unsent_bytes(fd: int) -> int:
    """Bytes written to a Unix socket and not yet read by its peer (SIOCOUTQ)."""
    return int(struct.unpack("i", fcntl.ioctl(fd, termios.TIOCOUTQ, b"\0\0\0\0"))[0])


class PipeWriter:
    """Writes frames to one pipe without blocking and without copying.

    What the pipe has no room for is kept by reference, so the caller must not let the memory change until `idle`:
    it hands nothing more out before `on_idle` comes.
    """

    def __init__(self, fd: int, loop: asyncio.AbstractEventLoop, on_idle: Callable[[], None]) -> None:
        self._fd = fd
        self._loop = loop
        self._on_idle = on_idle
        self._queue: deque[Any] = deque()

    @property
    def idle(self) -> bool:
        return not self._queue

    def write(self, buffers: list[Any]) -> None:
        """Queue the buffers behind what is there, and write what fits now. OSError when the pipe is broken."""
        written = 0
        if not self._queue:
            try:
                written = os.writev(self._fd, buffers if len(buffers) <= IOV_MAX else buffers[:IOV_MAX])
            except BlockingIOError:
                written = 0
            if written == sum([len(each) if type(each) is bytes else each.nbytes for each in buffers]):
                return  # nearly always: no view of each, no queue
            self._loop.add_writer(self._fd, self._writable)
        self._queue.extend([memoryview(b).cast("B") for b in buffers])
        self._drop(written)

    def close(self) -> None:
        """Forget what is queued and close the descriptor."""
        self._loop.remove_writer(self._fd)
        self._queue.clear()
        os.close(self._fd)

    def _push(self) -> bool:
        """Write until nothing is left (True) or nothing fits."""
        queue = self._queue
        while queue:
            try:
                count = os.writev(self._fd, list(islice(queue, IOV_MAX)))
            except BlockingIOError:
                return False
            self._drop(count)
        return True

    def _drop(self, count: int) -> None:
        """So many bytes of what is queued have been written."""
        queue = self._queue
        while queue and count >= len(queue[0]):
            count -= len(queue.popleft())
        if count:
            queue[0] = queue[0][count:]

    def _writable(self) -> None:
        if self._push():
            self._loop.remove_writer(self._fd)
            self._on_idle()
