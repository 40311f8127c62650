"""The links of one stage in one generation: frames in from the inputs, frames out to the outputs, and what of their
batches lies in shared memory."""

from __future__ import annotations

import asyncio
import os
import struct
import time
from collections.abc import Callable, Sequence
from copy import copy
from typing import Any, Final

import numpy as np

from streampiped.core.credits import WINDOW_MAX, Window
from streampiped.core.stage_side import Inlet
from streampiped.errors import FrameError, SchemaError
from streampiped.output_check import check_output
from streampiped.phases import Phase
from streampiped.records import Batch
from streampiped.runtime.pipes import PipeWriter
from streampiped.stage_memory import StageMemory
from streampiped.topology import Plan
from streampiped.wire.frames import Frame, FrameReader, FrameWriter

CREDIT: Final = struct.Struct("<q")  # when the reader was done with a batch, CLOCK_MONOTONIC ns
WINDOW_TARGET_S: Final = 0.025
"""What a batch may take from one end of a link to the other, the time in `process` included. It bounds how long a
barrier is under way: five stages at full speed align within 0.1 s; a stage that takes seconds for a batch has a single
one in front of it."""


class InputLink:
    """One input."""

    __slots__ = ("_crediting", "fd", "inlet", "reader")

    def __init__(self, inlet: Inlet, fd: int, crediting: int, reader: FrameReader) -> None:
        self.inlet = inlet
        self.fd = fd
        self.reader = reader
        self._crediting = crediting

    def done(self) -> None:
        """A batch of it needs no place any more."""
        os.write(self._crediting, CREDIT.pack(time.monotonic_ns()))

    def close(self) -> None:
        os.close(self.fd)
        os.close(self._crediting)


class OutputLink:
    """One output: a pipe, and how many batches may be under way on it."""

    def __init__(self, fd: int, credited: int, loop: asyncio.AbstractEventLoop, on_idle: Callable[[], None]) -> None:
        self._pipe = PipeWriter(fd, loop, on_idle)
        self._credited = credited
        self._loop = loop
        self._on_idle = on_idle
        self._window = Window(WINDOW_TARGET_S)

    @property
    def idle(self) -> bool:
        return self._pipe.idle

    def write(self, buffers: list[Any], *, counts: bool) -> None:
        """Queue a frame; `counts`: it is a batch, for which a credit will come back."""
        if counts:
            self._window.sent(time.monotonic())
        self._pipe.write(buffers)

    def may_send(self) -> bool:
        """Whether there is a credit for a batch; if not, `on_idle` comes as soon as there is one."""
        if self._window.may_send():
            return True
        self._collect()
        if self._window.may_send():
            return True
        self._loop.add_reader(self._credited, self._credit)
        return False

    def close(self) -> None:
        self._loop.remove_reader(self._credited)
        os.close(self._credited)
        self._pipe.close()

    def _credit(self) -> None:
        self._collect()
        if self._window.may_send():
            self._loop.remove_reader(self._credited)
            self._on_idle()

    def _collect(self) -> None:
        try:
            data = os.read(self._credited, CREDIT.size * WINDOW_MAX)
        except BlockingIOError:
            return
        for (done_ns,) in CREDIT.iter_unpack(data):
            self._window.returned(done_ns / 1e9)


class StageLinks:
    """All of them. `on_input()` comes when bytes of an input have been read, `on_idle()` when an output that was full
    is not any more."""

    def __init__(
        self,
        plan: Plan,
        name: str,
        loop: asyncio.AbstractEventLoop,
        may_read: Callable[[], bool],
        on_input: Callable[[], None],
        on_idle: Callable[[], None],
    ) -> None:
        """`may_read()` says whether the buffers may be written: a view of them may still be on its way out."""
        self._loop = loop
        self._frame_bytes_max = plan.links.frame_bytes_max
        self._may_read = may_read
        self._on_input = on_input
        self._on_idle = on_idle
        self._frames = FrameWriter(0, self._frame_bytes_max)
        self._memory = StageMemory(plan, name, loop, on_idle)
        self._sources = frozenset(spec.name for spec in plan.stages)
        self._edges = len(plan.spec(name).inputs) + len(plan.outputs(name))
        self.inputs: list[InputLink] = []
        self._outputs: list[OutputLink] = []
        self._taken: FrameReader | None = None
        """Of the batch at hand."""
        self._listening = False

    def open(self, generation: int, inlets: Sequence[Inlet], descriptors: Sequence[int]) -> None:
        """Take the ends of a generation, as `Reset` brings them."""
        self._frames = FrameWriter(generation, self._frame_bytes_max)
        self._memory.open(generation, descriptors[2 * self._edges :])
        pairs = list(zip(descriptors[: 2 * self._edges : 2], descriptors[1 : 2 * self._edges : 2], strict=True))
        for inlet, (fd, crediting) in zip(inlets, pairs, strict=False):
            via = inlet.name if len(inlets) > 1 else ""
            reader = FrameReader(generation, self._frame_bytes_max, via, self._memory.views)
            self.inputs.append(InputLink(inlet, fd, crediting, reader))
        for fd, credited in pairs[len(inlets) :]:
            self._outputs.append(OutputLink(fd, credited, self._loop, self._on_idle))

    def close(self) -> None:
        """Whatever was read or queued is forgotten."""
        self.rest()
        for link in self.inputs:
            link.close()
        for output in self._outputs:
            output.close()
        self.inputs, self._outputs, self._taken = [], [], None
        self._memory.close()

    @property
    def idle(self) -> bool:
        """Everything that was emitted is on its way."""
        for output in self._outputs:  # noqa: SIM110  asked between any two frames, and all() takes four times as long
            if not output.idle:
                return False
        return True

    def held_up(self) -> Phase | None:
        """What keeps another batch from being sent, None: nothing. `on_idle` comes when that may have changed."""
        if not self.idle:
            return Phase.BLOCKED
        short = False
        for output in self._outputs:  # each of them tells
            short = not output.may_send() or short
        if short:
            return Phase.CREDITS
        return None if self._memory.may_place() else Phase.SLOTS

    @property
    def dry(self) -> bool:
        """There is one input, which is listened to, and nothing of it is left."""
        return self._listening and len(self.inputs) == 1 and not self.inputs[0].reader.pending

    def take(self, link: InputLink, batch: Batch) -> None:
        """A batch has come: where it lies it stays, until `done`."""
        self._memory.hold(batch)
        self._taken = link.reader

    def done(self, link: InputLink) -> None:
        """With the batch that was taken: it needs no place any more, on its link or in memory."""
        self._memory.done()
        self._taken = None
        link.done()

    def emit(self, frame: Frame) -> None:
        """Queue a frame to every output before anything waits for one of them: a diamond would deadlock."""
        self.send(self.encode(frame), counts=isinstance(frame, Batch))

    def encode(self, frame: Frame) -> list[Any]:
        """What `send` takes, and will be given; nothing where nobody listens. FrameError when it is no frame,
        OutputError when it is a batch that no stage may give."""
        if not self._outputs:
            return []
        came = None
        if isinstance(frame, Batch):
            came = self._taken.came(frame) if self._taken is not None else None
            if came is None:  # else it is what our input gave, bit for bit
                check_output(frame, self._sources)
        return self._frames.encode(frame, self._memory.place, came)

    def rehearse(self, frame: Frame) -> None:
        """The errors of `encode`. Nobody will see it, and the next frame is as if nobody had asked."""
        if self._outputs:
            if isinstance(frame, Batch):
                check_output(frame, self._sources)
            copy(self._frames).encode(frame)

    def send(self, buffers: list[Any], *, counts: bool = True) -> None:
        """Queue an encoded frame to every output; `counts`: it is a batch."""
        for output in self._outputs:
            output.write(buffers, counts=counts)

    def emit_parts(self, batch: Batch, left_out: Callable[[Batch, FrameError], None]) -> int:
        """Queue a batch, or, where it makes no frame, its halves, and so on; a record that makes none alone is told to
        `left_out`. How many were queued. Of a source: the same batch makes the same parts again. SchemaError when no
        part can be one."""
        try:
            self.emit(batch)
        except SchemaError:
            raise
        except FrameError as error:
            if batch.rows == 1:
                left_out(batch, error)
                return 0
            first = np.arange(batch.rows) < batch.rows // 2
            return sum(self.emit_parts(batch.select(half), left_out) for half in (first, ~first))
        return batch.rows

    def listen(self) -> None:
        """Read from every input that does not wait at a barrier, as soon as there is something."""
        if not self._listening:
            self._listening = True
            for link in self.inputs:
                if not link.inlet.waits:
                    self._loop.add_reader(link.fd, self._readable, link)

    def rest(self) -> None:
        """Read nothing."""
        if self._listening:
            self._listening = False
            for link in self.inputs:
                self._loop.remove_reader(link.fd)

    def _readable(self, link: InputLink) -> None:
        if link.inlet.waits:  # since this reader was added
            self._loop.remove_reader(link.fd)
            return
        if not self._may_read():
            return
        try:
            count = os.readv(link.fd, [link.reader.space()])
        except BlockingIOError:
            return
        if not count:  # the supervisor holds both ends, so this generation is over
            self.rest()
            return
        link.reader.filled(count)
        self._on_input()
